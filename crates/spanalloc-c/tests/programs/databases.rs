//! SQLite with a million rows, and Redis under load.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::program::{
    self, Malloc, answer, command, find, is_served, is_silent, kill_group, place, same_answer,
};

#[test]
fn sqlite_has_a_million_rows() {
    let Some(sqlite) = find("sqlite3") else { return };
    let home = place();
    is_served(command(&sqlite, home.path(), Malloc::Spanalloc).arg("--version"), &["sqlite3"]);
    let statements = "
        BEGIN;
        CREATE TABLE rows (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT);
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000000)
            INSERT INTO rows SELECT n, n % 100, printf('name %d', n * 7919 % 1000003) FROM numbers;
        COMMIT;
        CREATE INDEX by_name ON rows (name);
        SELECT count(*), sum(id), min(name), max(length(name)) FROM rows;
        SELECT count(DISTINCT name) FROM rows;
        SELECT kind, count(*), sum(id) FROM rows GROUP BY kind ORDER BY sum(id) DESC LIMIT 2;
        SELECT id FROM rows WHERE name = 'name 7919';
        SELECT length(group_concat(name)) > 5000000 FROM rows;
        DELETE FROM rows WHERE kind >= 50;
        SELECT count(*) FROM rows;
        PRAGMA integrity_check;
    ";
    let told = same_answer(sqlite, home.path(), |command| command.args([":memory:", statements]));
    let expected = "1000000|500000500000|name 1|12\n1000000\n0|10000|5000500000\n99|10000|5000490000\n\
                    1\n1\n500000\nok\n";
    assert_eq!(told, expected);
}

#[test]
fn sqlite_keeps_its_rows_in_a_file() {
    let Some(sqlite) = find("sqlite3") else { return };
    let home = place();
    let home = home.path();
    let make = "
        CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT);
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50000)
            INSERT INTO rows SELECT n, printf('name %d', n * 7919 % 50021) FROM numbers;
        CREATE INDEX by_name ON rows (name);
        VACUUM;
    ";
    answer(command(&sqlite, home, Malloc::Spanalloc).args(["ours.db", make]));
    answer(command(&sqlite, home, Malloc::System).args(["theirs.db", make]));
    let [ours, theirs] = ["ours.db", "theirs.db"].map(|file| fs::read(home.join(file)).unwrap());
    assert!(ours == theirs, "the databases differ");
    let dump = same_answer(sqlite, home, |command| command.args(["ours.db", ".dump"]));
    assert_eq!(dump.lines().filter(|line| line.starts_with("INSERT")).count(), 50_000);
}

/// A Redis server in a directory, reached by a socket in it.
struct Redis<'a> {
    server: Child,
    home: &'a Path,
    client: PathBuf,
}

impl<'a> Redis<'a> {
    fn start(server: &Path, home: &'a Path, client: &Path) -> Self {
        let log = |name| File::create(home.join(name)).unwrap();
        let server = command(server, home, Malloc::Spanalloc)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--daemonize", "no"])
            .args(["--enable-debug-command", "yes", "--io-threads", "2"])
            .stdout(log("log"))
            .stderr(log("errors"))
            .process_group(0)
            .spawn()
            .unwrap();
        let mut redis = Self { server, home, client: client.to_owned() };
        redis.until("it listens", |redis| {
            redis.socket().exists() && redis.says(&["PING"]) == "PONG"
        });
        redis
    }

    fn socket(&self) -> PathBuf {
        self.home.join("socket")
    }

    /// What the server answers to a command. The client runs under the library too.
    fn says(&self, words: &[&str]) -> String {
        let mut command = command(&self.client, self.home, Malloc::Spanalloc);
        answer(command.args(["-s", "socket"]).args(words)).trim_end().to_owned()
    }

    /// Waits for something to become true of a server that runs.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < program::LIMIT, "waited too long until {what}");
            assert!(self.server.try_wait().unwrap().is_none(), "ended: {}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything the server wrote.
    fn told(&self) -> String {
        ["log", "errors"].map(|name| fs::read_to_string(self.home.join(name)).unwrap()).join("")
    }

    fn saves_in_a_child(&mut self) {
        assert_eq!(self.says(&["BGSAVE"]), "Background saving started");
        self.until("it has saved", |redis| {
            redis.says(&["INFO", "persistence"]).contains("rdb_bgsave_in_progress:0")
        });
        let info = self.says(&["INFO", "persistence"]);
        assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}\n{}", self.told());
    }

    /// Shuts the server down; it ends well, and said nothing that the library says.
    fn ends(mut self) {
        self.says(&["SHUTDOWN", "NOSAVE"]);
        let status = program::wait(&mut self.server, program::LIMIT).expect("it does not end");
        assert!(status.success(), "{status}: {}", self.told());
        is_silent(&self.told());
    }
}

impl Drop for Redis<'_> {
    fn drop(&mut self) {
        if self.server.try_wait().unwrap().is_none() {
            kill_group(&self.server);
            self.server.wait().unwrap();
        }
    }
}

/// The requests of each kind, and the keys they are spread over.
const REQUESTS: &str = "100000";
const KEYS: &str = "10000";

/// Debian's Redis is linked with jemalloc, but calls it by the names of the C library, so a library
/// that is loaded before it takes its place.
#[test]
fn redis_serves_a_benchmark_and_saves_in_a_fork() {
    let names = ["redis-server", "redis-benchmark", "redis-cli", "redis-check-rdb"].map(find);
    let [Some(server), Some(benchmark), Some(client), Some(check)] = names else { return };
    let home = place();
    let home = home.path();
    is_served(command(&server, home, Malloc::Spanalloc).arg("--version"), &["redis-server"]);

    let mut redis = Redis::start(&server, home, &client);
    let mut load = command(&benchmark, home, Malloc::Spanalloc);
    load.args(["-s", "socket", "-q", "-P", "16", "-n", REQUESTS, "-r", KEYS, "-d", "100"]);
    load.args(["-t", "set,get,incr,lpush,rpush,lpop,sadd,hset,zadd"]);
    let loaded = std::thread::scope(|scope| {
        let loaded = scope.spawn(|| answer(&mut load));
        // In the middle of the requests, as far as they last.
        while !loaded.is_finished() {
            redis.saves_in_a_child();
            std::thread::sleep(Duration::from_millis(200));
        }
        loaded.join().unwrap()
    });
    assert_eq!(loaded.matches("requests per second").count(), 9, "{loaded}");

    let counters = "local sum = 0
        for _, key in ipairs(redis.call('KEYS', 'counter:*')) do sum = sum + redis.call('GET', key) end
        return sum";
    assert_eq!(redis.says(&["EVAL", counters, "0"]), REQUESTS);
    let values = "local whole = 0
        for _, key in ipairs(redis.call('KEYS', 'key:*')) do
            if redis.call('STRLEN', key) == 100 then whole = whole + 1 end
        end
        return whole - #redis.call('KEYS', 'key:*')";
    assert_eq!(redis.says(&["EVAL", values, "0"]), "0");
    // Two pushes and one pop.
    assert_eq!(redis.says(&["LLEN", "mylist"]), REQUESTS);
    assert_eq!(redis.says(&["SET", "the key", "the value"]), "OK");
    let keys: usize = redis.says(&["DBSIZE"]).parse().unwrap();
    assert!(keys > 15_000, "{keys} keys");

    redis.saves_in_a_child();
    let digest = redis.says(&["DEBUG", "DIGEST"]);
    answer(command(&check, home, Malloc::Spanalloc).arg("dump.rdb"));
    redis.ends();

    // A new server reads what the child wrote.
    let redis = Redis::start(&server, home, &client);
    assert_eq!(redis.says(&["DEBUG", "DIGEST"]), digest);
    assert_eq!(redis.says(&["DBSIZE"]), keys.to_string());
    assert_eq!(redis.says(&["GET", "the key"]), "the value");
    assert_eq!(redis.says(&["FLUSHALL"]), "OK");
    assert_eq!(redis.says(&["DBSIZE"]), "0");
    redis.ends();
}
