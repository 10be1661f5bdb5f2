//! Processes of the comparison: started on a library, ended in time, and measured.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::libraries::Library;
use crate::rounds::last_lines;

/// How many lines at the end of what a process said tell why it failed.
const REASON_LINES: usize = 5;

/// What a process used, with those that it started and waited for.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// From its start to its end.
    pub wall: Duration,
    /// Computed by it, and by the system for it.
    pub cpu: Duration,
    /// The most memory that one of the processes held at a time.
    pub peak_rss_bytes: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
}

/// The command that runs a program on a library, in a directory and in an environment that are the
/// same for all.
#[must_use]
pub fn command(program: &Path, place: &Path, library: &Library) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs([("LC_ALL", "C"), ("TZ", "UTC"), ("PYTHONMALLOC", "malloc")])
        .envs([("PYTHONHASHSEED", "0"), ("PERL_HASH_SEED", "0")])
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("HOME", place), ("TMPDIR", place)])
        .env("LD_PRELOAD", &library.path)
        .envs(library.environment.iter().copied())
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

/// A process that runs. What it prints goes to the files `out` and `err` of its directory.
#[derive(Debug)]
pub struct Process {
    child: Child,
    began: Instant,
    limit: Duration,
}

impl Process {
    /// Starts the command, which may take this long.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self, String> {
        let place = command.get_current_dir().unwrap_or(Path::new(".")).to_owned();
        let file = |name| File::create(place.join(name)).map_err(|error| error.to_string());
        command.stdout(file("out")?).stderr(file("err")?).process_group(0);
        let began = Instant::now();
        let child = command.spawn().map_err(|error| format!("it does not start: {error}"))?;
        Ok(Self { child, began, limit })
    }

    /// Waits for its end, and ends it with all that it started when its time is over.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait(self) -> Result<(ExitStatus, Used), String> {
        let id = self.child.id().cast_signed();
        let left = self.limit.saturating_sub(self.began.elapsed());
        let in_time = ends_within(id, left).map_err(|error| error.to_string())?;
        if !in_time {
            // SAFETY: a system call without pointers. The child leads a group of processes, and its
            // number is its own until it is waited for.
            unsafe { libc::kill(-id, libc::SIGKILL) };
        }
        let mut status = 0;
        // SAFETY: all zeros are a value of it.
        let mut usage: libc::rusage = unsafe { mem::zeroed() };
        // SAFETY: both pointers are valid for writing.
        if unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) } != id {
            return Err(io::Error::last_os_error().to_string());
        }
        if !in_time {
            return Err(format!("it was ended after {} s", self.limit.as_secs()));
        }
        let time = |it: libc::timeval| {
            Duration::from_secs(it.tv_sec.cast_unsigned())
                + Duration::from_micros(it.tv_usec.cast_unsigned())
        };
        let used = Used {
            wall: self.began.elapsed(),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            peak_rss_bytes: usage.ru_maxrss.cast_unsigned() * 1024,
            minor_faults: usage.ru_minflt.cast_unsigned(),
        };
        Ok((ExitStatus::from_raw(status), used))
    }
}

/// Whether a child ends within this time. It is not waited for.
fn ends_within(id: libc::pid_t, limit: Duration) -> io::Result<bool> {
    // SAFETY: a system call without pointers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    let Ok(opened @ 0..) = i32::try_from(opened) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is new, and nobody else's.
    let process = unsafe { OwnedFd::from_raw_fd(opened) };
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let timeout = left.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: `poll` is one structure, valid for reading and writing.
        match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
            0 => return Ok(false),
            1 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                // As when this process was stopped for a while.
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Runs a command to its end, and returns what it printed and used.
///
/// # Errors
/// Why it did not start, failed, took too long, or found no library.
pub fn run(command: &mut Command, limit: Duration) -> Result<(Vec<u8>, Used), String> {
    let place = command.get_current_dir().unwrap_or(Path::new(".")).to_owned();
    let (status, used) = Process::start(command, limit)?.wait()?;
    let said = fs::read(place.join("err")).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said);
    // The dynamic linker goes on without a library that it cannot load.
    if !status.success() || said.contains("ERROR: ld.so") {
        return Err(format!("{status}: {}", last_lines(&said, REASON_LINES)));
    }
    Ok((fs::read(place.join("out")).map_err(|error| error.to_string())?, used))
}

/// The functions by which nearly all memory comes and goes.
const FUNCTIONS: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// Runs the command, and makes sure by what the dynamic linker tells that every object of every
/// process got these functions from the library, among them one whose name begins with `user`.
///
/// # Errors
/// Who has them from elsewhere.
pub fn is_served(
    command: &mut Command,
    user: &str,
    library: &Library,
    limit: Duration,
) -> Result<(), String> {
    let told = tempfile::tempdir().map_err(|error| error.to_string())?;
    command.envs([("LD_BIND_NOW", "1"), ("LD_DEBUG", "bindings")]);
    run(command.env("LD_DEBUG_OUTPUT", told.path().join("process")), limit)?;
    let mut served = BTreeSet::new();
    let processes = fs::read_dir(told.path()).map_err(|error| error.to_string())?;
    for process in processes.filter_map(Result::ok) {
        let text = fs::read(process.path()).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&text);
        let bindings: BTreeSet<Binding<'_>> = text.lines().filter_map(binding).collect();
        served.extend(users(&bindings, &library.path.to_string_lossy())?);
    }
    let is_user = |name: &String| name.starts_with(user);
    served.iter().any(is_user).then_some(()).ok_or_else(|| {
        let names: Vec<&str> = served.iter().map(String::as_str).collect();
        format!("{user} does not get its memory from the library; these do: {}", names.join(", "))
    })
}

/// An object, the one it has a function from, and the function's name.
type Binding<'a> = (&'a str, &'a str, &'a str);

/// The parts of "binding file USER [0] to PROVIDER [0]: normal symbol `NAME'".
fn binding(line: &str) -> Option<Binding<'_>> {
    let (user, rest) = line.split_once("binding file ")?.1.split_once(" [0] to ")?;
    let (provider, rest) = rest.split_once(" [0]: normal symbol `")?;
    Some((user, provider, rest.split_once('\'')?.0))
}

/// The names of the objects that the library serves in a process; an error if another one does.
fn users(bindings: &BTreeSet<Binding<'_>>, library: &str) -> Result<Vec<String>, String> {
    let mut served = Vec::new();
    for &(user, provider, name) in bindings.iter().filter(|(.., name)| FUNCTIONS.contains(name)) {
        // A program that takes the address of a function lends the others its own entry of it.
        let lent = || bindings.contains(&(provider, library, name));
        if provider != library && !lent() {
            return Err(format!("{user} has {name} from {provider}, not from {library}"));
        }
        served.push(user.rsplit('/').next().unwrap_or(user).to_owned());
    }
    Ok(served)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::Duration;

    use super::{binding, command, is_served, run, users};
    use crate::preload::libraries::{Library, library};

    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(
        script: &str,
        system: &Library,
        limit: Duration,
    ) -> Result<(Vec<u8>, super::Used), String> {
        let place = tempfile::tempdir().unwrap();
        run(command(Path::new("/bin/sh"), place.path(), system).args(["-c", script]), limit)
    }

    #[test]
    fn processes_are_measured() {
        let system = library("system").unwrap();
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $i; sleep 0.05";
        let (out, used) = shell(script, &system, LIMIT).unwrap();
        assert_eq!(out, b"20000\n");
        assert!(used.cpu > Duration::ZERO && used.cpu < used.wall);
        assert!(used.wall >= Duration::from_millis(50));
        assert!(used.peak_rss_bytes > 500_000 && used.minor_faults > 10);
    }

    #[test]
    fn failures_and_endless_processes_are_told() {
        let mut system = library("system").unwrap();
        let failed = shell("echo reason >&2; exit 3", &system, LIMIT).unwrap_err();
        assert!(failed.contains('3') && failed.contains("reason"), "{failed}");
        let late = shell("sleep 60 & sleep 60", &system, Duration::from_millis(30)).unwrap_err();
        assert!(late.contains("was ended"), "{late}");
        system.path = "/nowhere/at/all.so".into();
        let absent = shell("true", &system, LIMIT).unwrap_err();
        assert!(absent.contains("/nowhere/at/all.so"), "{absent}");
    }

    #[test]
    fn bindings_tell_who_is_served() {
        let line =
            "  12: binding file /bin/a [0] to /lib/x.so [0]: normal symbol `malloc' [GLIBC_2.2]";
        let one = binding(line).unwrap();
        assert_eq!(one, ("/bin/a", "/lib/x.so", "malloc"));
        let mut bindings = BTreeSet::from([one]);
        assert_eq!(users(&bindings, "/lib/x.so").unwrap(), ["a"]);
        assert!(users(&bindings, "/lib/other.so").is_err());
        // The program's own entry of a function that it has from the library.
        bindings.insert(("/lib/b.so", "/bin/a", "malloc"));
        assert_eq!(users(&bindings, "/lib/x.so").unwrap(), ["a", "b.so"]);
        bindings.insert(("/lib/b.so", "/bin/a", "free"));
        assert!(users(&bindings, "/lib/x.so").is_err());
    }

    #[test]
    fn a_program_is_served_by_the_system() {
        let system = library("system").unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut cat = command(Path::new("/bin/cat"), place.path(), &system);
        is_served(&mut cat, "cat", &system, LIMIT).unwrap();
        let mut cat = command(Path::new("/bin/cat"), place.path(), &system);
        let error = is_served(&mut cat, "dog", &system, LIMIT).unwrap_err();
        assert!(error.contains("cat"), "{error}");
    }
}
