//! A Redis server under load.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{Process, Used};
use crate::rounds::run_with_limit;

/// The socket that it listens on, in its directory.
const SOCKET: &str = "socket";
/// The requests that are made, of each kind as many. What was pushed is popped half.
const KINDS: &str = "set,get,incr,lpush,rpush,lpop,sadd,hset,zadd";

/// The arguments of the server: it serves nobody else and keeps nothing.
pub const ARGUMENTS: [&str; 8] =
    ["--port", "0", "--unixsocket", SOCKET, "--save", "", "--daemonize", "no"];

/// Starts the server, makes so many requests of each kind, and returns what it used for them. The
/// program that makes them runs as it is.
///
/// # Errors
/// Why the server or the other program failed, or what is wrong with its data.
pub fn serve(
    mut server: Command,
    benchmark: &Path,
    requests: u32,
    limit: Duration,
) -> Result<Used, String> {
    let place = server.get_current_dir().unwrap_or(Path::new(".")).to_owned();
    let socket = place.join(SOCKET);
    let process = Process::start(&mut server, limit)?;
    if let Err(reason) = load(&socket, benchmark, requests, limit) {
        // It may have ended already.
        let _ended = ask(&socket, "SHUTDOWN NOSAVE");
        process.wait()?;
        return Err(reason);
    }
    let length = ask(&socket, "LLEN mylist");
    // An orderly end closes the connection and answers nothing.
    let _ended = ask(&socket, "SHUTDOWN NOSAVE");
    let (status, used) = process.wait()?;
    let length = length?;
    if !status.success() || length != format!(":{requests}") {
        return Err(format!("{status}; it has {length} entries instead of {requests}"));
    }
    Ok(used)
}

/// Waits until the server listens, and makes the requests.
fn load(socket: &Path, benchmark: &Path, requests: u32, limit: Duration) -> Result<(), String> {
    let began = Instant::now();
    while ask(socket, "PING").as_deref() != Ok("+PONG") {
        if began.elapsed() > Duration::from_secs(10) {
            return Err("the server does not answer".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut command = Command::new(benchmark);
    command.arg("-s").arg(socket).args(["-q", "-P", "16", "-r", "20000", "-d", "100", "-t", KINDS]);
    let said = run_with_limit(command.args(["-n", &requests.to_string()]), limit)?;
    let kinds = KINDS.split(',').count();
    if said.matches("requests per second").count() != kinds {
        return Err(format!("not all requests were made: {}", said.trim()));
    }
    Ok(())
}

/// The first line of the answer to a command.
fn ask(socket: &Path, command: &str) -> Result<String, String> {
    let answer = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        writeln!(stream, "{command}\r")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    answer().map_err(|error: std::io::Error| error.to_string())
}
