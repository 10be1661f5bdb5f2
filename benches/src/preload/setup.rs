//! Which programs are run, and what they are given to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::libraries::Library;
use super::programs::{Program, Shape};
use super::redis;
use crate::Random;
use crate::results::Skipped;

/// Where and how much the programs do.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// A directory for their files.
    pub place: &'a Path,
    /// Whether they do little.
    pub quick: bool,
    /// The library on which they give the answer that is right.
    pub plain: &'a Library,
}

type Made = Result<Program, String>;
type Make = fn(&Setup<'_>, &'static str) -> Made;

/// What whole programs take.
const PROGRAMS: &str = "Programs";
/// What the start of one takes.
const START: &str = "Start";

/// The rows, their groups, and what makes them.
const ALL: [(&str, &str, Make); 9] = [
    ("python3-objects", PROGRAMS, |it, name| {
        it.script(name, python()?, include_str!("scripts/objects.py"), 100_000)
    }),
    ("python3-documents", PROGRAMS, |it, name| {
        it.script(name, python()?, include_str!("scripts/documents.py"), 25_000)
    }),
    ("perl-records", PROGRAMS, |it, name| {
        it.script(name, find("perl")?, include_str!("scripts/records.pl"), 100_000)
    }),
    ("lua-tables", PROGRAMS, |it, name| {
        let script = include_str!("scripts/tables.lua");
        let lua = it.script(name, find("lua5.4")?, script, 100_000)?;
        Ok(Program { probe: vec!["-v".into()], ..lua })
    }),
    ("sqlite3-rows", PROGRAMS, |it, name| it.sqlite(name)),
    ("jq-documents", PROGRAMS, |it, name| it.jq(name)),
    ("g++-program", PROGRAMS, |it, name| it.compiler(name)),
    ("redis-requests", PROGRAMS, |it, name| it.redis(name)),
    ("cat-start", START, |it, name| it.start(name)),
];

impl Setup<'_> {
    /// All programs that are asked for, with their input; and those that the system does not have.
    #[must_use]
    pub fn programs(self, is_asked: impl Fn(&str, &str) -> bool) -> (Vec<Program>, Vec<Skipped>) {
        let (mut programs, mut skipped) = (Vec::new(), Vec::new());
        for (name, group, make) in ALL {
            if !is_asked(name, group) {
                continue;
            }
            match make(&self, name) {
                Ok(program) => programs.push(Program { group, ..program }),
                Err(reason) => {
                    eprintln!("SKIPPED: {name}: {reason}");
                    skipped.push(Skipped { name: name.to_owned(), reason });
                }
            }
        }
        (programs, skipped)
    }

    /// The part of `full` that is done.
    fn count(&self, full: u32) -> u32 {
        if self.quick { full / 5 } else { full }
    }

    /// Writes a file, and returns its path.
    fn file(&self, name: &str, text: &str) -> Result<String, String> {
        let file = self.place.join(name);
        fs::write(&file, text).map_err(|error| error.to_string())?;
        Ok(file.display().to_string())
    }

    /// An interpreter with its script, which is told how much to do.
    fn script(&self, name: &'static str, path: PathBuf, text: &str, full: u32) -> Made {
        let (file, count) = (self.file(name, text)?, self.count(full).to_string());
        let user = name.split_once('-').map_or(name, |(user, _)| user);
        whole(name, path, user, &[&file, &count]).with_answer(self.place, self.plain)
    }

    fn sqlite(&self, name: &'static str) -> Made {
        let count = self.count(400_000).to_string();
        let statements = include_str!("scripts/rows.sql").replace("{COUNT}", &count);
        whole(name, find("sqlite3")?, "sqlite3", &[":memory:", &statements])
            .with_answer(self.place, self.plain)
    }

    fn jq(&self, name: &'static str) -> Made {
        let path = find("jq")?;
        let documents = self.file("documents.json", &json(self.count(60_000)))?;
        let filter = include_str!("scripts/groups.jq");
        // The program is a small one around its library.
        whole(name, path, "libjq", &["-c", filter, &documents]).with_answer(self.place, self.plain)
    }

    /// The compiler itself is a process that `g++` starts; it writes what the assembler would read.
    fn compiler(&self, name: &'static str) -> Made {
        let path = find("g++")?;
        let (program, empty) =
            (self.file("program.cpp", &cpp(self.count(8)))?, self.file("empty.cpp", "")?);
        let options = ["-std=c++17", "-S", "-o", "-"];
        let arguments: Vec<&str> = options.into_iter().chain([&*program]).collect();
        let mut compiler = whole(name, path, "cc1plus", &arguments);
        compiler.probe = options.into_iter().chain([&*empty]).map(str::to_owned).collect();
        compiler.with_answer(self.place, self.plain)
    }

    fn redis(&self, name: &'static str) -> Made {
        let mut server = whole(name, find("redis-server")?, "redis-server", &redis::ARGUMENTS);
        let benchmark = find("redis-benchmark")?;
        server.shape = Shape::Server { benchmark, requests: self.count(60_000) };
        Ok(server)
    }

    /// A program that allocates next to nothing, and tells its memory.
    fn start(&self, name: &'static str) -> Made {
        let mut cat = whole(name, find("cat")?, "cat", &["/proc/self/status"]);
        cat.shape = Shape::Starts(self.count(200));
        Ok(cat)
    }
}

/// A program that prints its answer and tells its version.
fn whole(name: &'static str, path: PathBuf, user: &'static str, arguments: &[&str]) -> Program {
    Program {
        name,
        group: PROGRAMS,
        path,
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        probe: vec!["--version".into()],
        user,
        shape: Shape::Whole(Vec::new()),
    }
}

/// Where the program is.
fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|directory| directory.join(name));
    files.find(|file| file.is_file()).ok_or_else(|| format!("{name} is not on this system"))
}

/// The interpreter itself: what is found first may be a script that chooses one.
fn python() -> Result<PathBuf, String> {
    let question = "import os, sys; print(os.path.realpath(sys.executable))";
    let output = Command::new(find("python3")?).args(["-c", question]).output();
    let output = output.map_err(|error| error.to_string())?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Documents in JSON, the same in every run.
fn json(count: u32) -> String {
    let mut random = Random::new(1);
    let mut text = String::from("[");
    for id in 0..count {
        let [name, first, second, width, height] =
            [1_000_000, 9, 7, 640, 480].map(|end| random.below(end));
        let comma = if id == 0 { "" } else { ",\n" };
        text += &format!(
            r#"{comma}{{"id":{id},"name":"document {name}","tags":["tag{first}","tag{second}"],"size":{{"width":{width},"height":{height}.5}}}}"#,
        );
    }
    text + "]\n"
}

/// A program in C++ with so many parts.
fn cpp(parts: u32) -> String {
    let parts: String = (0..parts).map(|part| format!("PART({part})\n")).collect();
    include_str!("scripts/program.cpp").to_owned() + &parts
}

#[cfg(test)]
mod tests {
    use super::{cpp, json};

    #[test]
    fn what_is_generated_is_the_same_in_every_run() {
        assert_eq!(json(10), json(10));
        let documents: serde_json::Value = serde_json::from_str(&json(10)).unwrap();
        assert_eq!(documents.as_array().unwrap().len(), 10);
        assert!(cpp(3).ends_with("PART(0)\nPART(1)\nPART(2)\n"));
    }
}
