//! The C libraries that are compared, and how each is built.
//!
//! spanalloc's comes from Cargo. Those of the peers are built from the sources that their crates
//! bring, with the options of their own releases, as the crates only build what a Rust program
//! needs of them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::build::{self, messages};
use crate::contenders::{CHECKED, Contender, MIMALLOC3, SYSTEM};
use crate::machine;
use crate::results::ContenderInfo;
use crate::rounds::last_lines;

/// How many lines at the end of a failed step are its reason.
const REASON_LINES: usize = 12;

/// An allocator that programs are run on.
#[derive(Debug)]
pub struct Library {
    /// The library.
    pub path: PathBuf,
    /// What a program on it finds in its environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// What the results say of it.
    pub info: ContenderInfo,
}

/// Where a library comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    System,
    Spanalloc,
    /// A crate with the sources, and what has to be done with them.
    Sources(&'static str, fn(&Sources) -> Result<Recipe, String>),
}

/// All that are compared, in the order of the tables.
const ALL: [(&str, Origin); 8] = [
    (CHECKED, Origin::Spanalloc),
    (SYSTEM, Origin::System),
    (MIMALLOC3, Origin::Sources("libmimalloc-sys", |it| mimalloc(it, "v3"))),
    ("mimalloc v2", Origin::Sources("libmimalloc-sys", |it| mimalloc(it, "v2"))),
    ("jemalloc", Origin::Sources("tikv-jemalloc-sys", jemalloc)),
    ("snmalloc", Origin::Sources("snmalloc-sys", snmalloc)),
    ("rpmalloc", Origin::Sources("rpmalloc-sys", rpmalloc)),
    ("tcmalloc", Origin::Sources("libtcmalloc-sys", tcmalloc)),
];

/// The names of all, in the order of the tables.
#[must_use]
pub fn names() -> [&'static str; ALL.len()] {
    ALL.map(|(name, _)| name)
}

/// Builds the library of this name, unless it is built already.
///
/// # Errors
/// Why it cannot be had.
pub fn library(name: &str) -> Result<Library, String> {
    let (name, origin) = ALL
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("no library is called {name}"))?;
    let (path, version, notes) = match origin {
        Origin::System => {
            let notes = "preloaded as the others are, so that it goes before the jemalloc that a redis links";
            (system()?, machine::libc_version(), notes)
        }
        Origin::Spanalloc => {
            (spanalloc()?, env!("CARGO_PKG_VERSION").to_owned(), "libspanalloc_c.so")
        }
        Origin::Sources(package, recipe) => {
            let sources = Sources::find(package)?;
            let program = env::current_exe().map_err(|error| error.to_string())?;
            let place = program.with_file_name("preload").join(name.replace(' ', "-"));
            let path = recipe(&sources)?.follow(&place)?;
            (path, format!("sources of {package} {}", sources.version), "")
        }
    };
    let info = ContenderInfo { name: name.to_owned(), version, notes: notes.to_owned() };
    // What TCMalloc needs in a Rust program it needs here too.
    let environment = Contender::named(name).map_or(&[][..], |contender| contender.environment);
    Ok(Library { path, environment, info })
}

/// The C library that this program runs on.
fn system() -> Result<PathBuf, String> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let files = maps.lines().filter_map(|line| line.find('/').map(|place| &line[place..]));
    let mut files = files.filter(|file| file.ends_with("/libc.so.6"));
    files.next().map(PathBuf::from).ok_or_else(|| "this program has no libc.so.6".into())
}

/// The library of this project, in the profile of the running program.
fn spanalloc() -> Result<PathBuf, String> {
    let said = messages(&["--package", "spanalloc-c", "--lib"])?;
    said.iter()
        .filter(|message| message["target"]["name"] == "spanalloc_c")
        .filter_map(|message| message["filenames"].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .find(|file| file.ends_with(".so"))
        .map(PathBuf::from)
        .ok_or_else(|| "Cargo does not say where the library is".into())
}

/// What Cargo tells of the packages.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// The sources of a package.
#[derive(Debug)]
struct Sources {
    version: String,
    place: PathBuf,
}

impl Sources {
    /// Asks Cargo for a package of the dependencies, which it fetches if it has to.
    fn find(package: &str) -> Result<Self, String> {
        let mut command = Command::new(build::cargo());
        command.args(["metadata", "--format-version=1", "--all-features", "--manifest-path"]);
        let said = output(command.arg(build::MANIFEST))?;
        let said: Metadata = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let found = said.packages.into_iter().find(|it| it.name == package);
        let found = found.ok_or_else(|| format!("there is no {package}"))?;
        Ok(Self { version: found.version, place: found.manifest_path.with_file_name("") })
    }

    fn path(&self, inside: &str) -> String {
        self.place.join(inside).display().to_string()
    }
}

/// The commands that build a library in a directory of its own, and the file they make there.
#[derive(Debug)]
struct Recipe {
    commands: Vec<Vec<String>>,
    made: &'static str,
}

impl Recipe {
    /// Runs the commands in this directory, unless the very same have been run there before.
    fn follow(&self, place: &Path) -> Result<PathBuf, String> {
        let (made, done) = (place.join(self.made), place.join("done"));
        let text = format!("{:#?}\n", self.commands);
        if made.exists() && fs::read_to_string(&done).is_ok_and(|before| before == text) {
            return Ok(made);
        }
        let failed = |error: std::io::Error| format!("{}: {error}", place.display());
        if place.exists() {
            fs::remove_dir_all(place).map_err(failed)?;
        }
        fs::create_dir_all(place).map_err(failed)?;
        for words in &self.commands {
            let [program, arguments @ ..] = &words[..] else { continue };
            output(Command::new(program).args(arguments).current_dir(place))?;
        }
        fs::write(done, text).map_err(failed)?;
        Ok(made)
    }
}

/// What a command prints; an error if it fails.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} does not run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = last_lines(&String::from_utf8_lossy(&output.stderr), REASON_LINES);
    Err(format!("{program}: {}: {said}", output.status))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A compiler's words for an optimised shared library.
const SHARED: &str = "-O3 -DNDEBUG -fPIC -shared -ftls-model=initial-exec -w";

fn mimalloc(sources: &Sources, version: &str) -> Result<Recipe, String> {
    let source = |inside: &str| sources.path(&format!("c_src/mimalloc/{version}/{inside}"));
    let mut command = words("cc -std=gnu11 -fvisibility=hidden -fno-builtin-malloc");
    command.extend(words(SHARED));
    command.extend(words("-DMI_DEBUG=0 -DMI_BUILD_RELEASE -DMI_MALLOC_OVERRIDE"));
    command.extend(words("-DMI_SHARED_LIB -DMI_SHARED_LIB_EXPORT"));
    command.extend(["include", "src"].map(|inside| format!("-I{}", source(inside))));
    command.push(source("src/static.c"));
    command.extend(words("-o libmimalloc.so -pthread"));
    Ok(Recipe { commands: vec![command], made: "libmimalloc.so" })
}

fn rpmalloc(sources: &Sources) -> Result<Recipe, String> {
    let mut command = words("cc");
    command.extend(words(SHARED));
    command.extend(words("-D_GNU_SOURCE -DENABLE_PRELOAD=1 -DENABLE_OVERRIDE=1"));
    command.push(sources.path("rpmalloc/rpmalloc/rpmalloc.c"));
    command.extend(words("-o librpmalloc.so -pthread -ldl"));
    Ok(Recipe { commands: vec![command], made: "librpmalloc.so" })
}

fn snmalloc(sources: &Sources) -> Result<Recipe, String> {
    let mut configure = words("cmake -B . -DCMAKE_BUILD_TYPE=Release -DSNMALLOC_BUILD_TESTING=OFF");
    configure.extend(["-S".to_owned(), sources.path("upstream")]);
    let make = words("cmake --build . --target snmallocshim");
    Ok(Recipe { commands: vec![configure, make], made: "libsnmallocshim.so" })
}

fn jemalloc(sources: &Sources) -> Result<Recipe, String> {
    let copy = |inside: &str| vec!["cp".into(), "-r".into(), sources.path(inside), ".".into()];
    // The crate's version is its own, then jemalloc's behind a plus sign.
    let version =
        sources.version.split_once('+').ok_or("the crate names no version of jemalloc")?.1;
    let mut configure = words("sh configure --disable-cxx --enable-doc=no --enable-static=no");
    configure.push(format!("--with-version={version}"));
    let make = words("make -j2 build_lib_shared");
    let commands = vec![copy("jemalloc/."), copy("configure/configure"), configure, make];
    Ok(Recipe { commands, made: "lib/libjemalloc.so.2" })
}

/// The crate's own build leaves out the names of C, which are in one file; the rest of TCMalloc is
/// taken from it.
fn tcmalloc(_sources: &Sources) -> Result<Recipe, String> {
    let said = messages(&["--bin", "on_tcmalloc", "--features", "peer-tcmalloc"])?;
    let built = said.iter().find(|message| {
        let package = message["package_id"].as_str();
        message["reason"] == "build-script-executed"
            && package.is_some_and(|id| id.contains("libtcmalloc-sys"))
    });
    let built = built.and_then(|message| message["out_dir"].as_str());
    let built = built.ok_or("Cargo does not say where TCMalloc is")?;
    let source = |inside: &str| format!("{built}/patched_deps/c_src/{inside}");
    let mut command = words("c++ -std=c++17 -fno-omit-frame-pointer");
    command.extend(words(SHARED));
    command.push("-DTCMALLOC_INTERNAL_8K_PAGES".into());
    command.extend(["abseil-cpp", "tcmalloc"].map(|inside| format!("-I{}", source(inside))));
    command.push(source("tcmalloc/tcmalloc/tcmalloc.cc"));
    command.push(format!("{built}/libtcmalloc.a"));
    command.extend(words("-o libtcmalloc.so -pthread"));
    Ok(Recipe { commands: vec![command], made: "libtcmalloc.so" })
}

#[cfg(test)]
mod tests {
    use super::{Recipe, library, words};

    #[test]
    fn a_recipe_is_followed_once_and_again_when_it_changes() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().join("built");
        let recipe = |text: &str| {
            let script = format!("echo {text} >> made");
            Recipe { commands: vec![vec!["sh".into(), "-c".into(), script]], made: "made" }
        };
        let made = recipe("one").follow(&place).unwrap();
        recipe("one").follow(&place).unwrap();
        assert_eq!(std::fs::read_to_string(&made).unwrap(), "one\n");
        recipe("two").follow(&place).unwrap();
        assert_eq!(std::fs::read_to_string(&made).unwrap(), "two\n");
        let failing = Recipe { commands: vec![words("ls /nowhere/at/all")], made: "made" };
        assert!(failing.follow(&place).unwrap_err().contains("/nowhere/at/all"));
        assert!(!made.exists());
    }

    #[test]
    fn the_system_has_a_library() {
        let system = library("system").unwrap();
        assert!(system.path.exists() && system.info.version.starts_with("glibc "));
        assert!(library("malloc").is_err());
    }
}
