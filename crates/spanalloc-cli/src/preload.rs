//! `spanalloc run`: a program in the place of this command, on the C library.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{self, Command};

use crate::args::RunArgs;
use crate::{Error, program};

/// The file name of the C library.
const LIBRARY: &str = "libspanalloc_c.so";

/// The file name of the recorder.
pub(crate) const RECORDER: &str = "libspanalloc_record.so";

/// Where the library may be, from the directory of this command: where cargo leaves it, which is
/// first because a copy beside the command can be of an older build; beside it; in an installed tree.
const PLACES: [&str; 3] = ["deps", "", "../lib"];

/// The variable that names the libraries a program loads before all others.
pub(crate) const PRELOAD: &str = "LD_PRELOAD";

/// Puts the program in the place of this process. Comes back only with the reason why it cannot.
pub(crate) fn run(args: &RunArgs) -> Error {
    let Err(error) = try_run(args);
    error
}

fn try_run(args: &RunArgs) -> Result<Infallible, Error> {
    let library = library(LIBRARY)?;
    let mut words = args.command.iter();
    let name = words.next().cloned().unwrap_or_default();
    let mut command = Command::new(&name);
    command.args(words).env(PRELOAD, preloads(&library, env::var_os(PRELOAD))?);
    if args.no_check {
        command.env("SPANALLOC_CHECK", "0");
    }
    if args.stats || args.map || args.report.is_some() {
        ask_for_report(args, &mut command)?;
    }
    if let Some((file, why)) = program::unaffected(&name, &library) {
        // Nothing is left to do if that fails.
        let _ = writeln!(io::stderr(), "spanalloc: {} {why}", file.display());
    }
    Err(Error::cannot_run(name, command.exec()))
}

/// What is asked for here replaces what the environment asks for.
fn ask_for_report(args: &RunArgs, command: &mut Command) -> Result<(), Error> {
    let stats = args.stats || !args.map;
    for (name, wanted) in [("SPANALLOC_STATS", stats), ("SPANALLOC_MAP", args.map)] {
        if wanted {
            command.env(name, "1")
        } else {
            command.env_remove(name)
        };
    }
    match &args.report {
        Some(file) => command.env("SPANALLOC_REPORT", emptied(file)?),
        None => command.env_remove("SPANALLOC_REPORT"),
    };
    // The program keeps the number of this process; the programs that it starts do not report.
    command.env("SPANALLOC_REPORT_PID", process::id().to_string());
    Ok(())
}

/// The library of this name that belongs to this command.
pub(crate) fn library(name: &str) -> Result<PathBuf, Error> {
    let command = env::current_exe().map_err(Error::OwnPlace)?;
    let directory = command.parent().unwrap_or(Path::new("/"));
    let places = PLACES.map(|place| directory.join(place).join(name));
    let found = places.iter().find(|place| place.is_file());
    found.cloned().ok_or_else(|| Error::NoLibrary(places.to_vec()))
}

/// The value of `LD_PRELOAD` with `library` first, then what was `there` but for other builds of it, of
/// the C library and of the recorder.
pub(crate) fn preloads(library: &Path, there: Option<OsString>) -> Result<OsString, Error> {
    let apart = |byte: &u8| *byte == b' ' || *byte == b':';
    if library.as_os_str().as_bytes().iter().any(apart) {
        return Err(Error::LibraryPath(library.to_owned()));
    }
    let mut value = library.as_os_str().to_owned();
    for entry in there.unwrap_or_default().as_bytes().split(apart) {
        let entry = Path::new(OsStr::from_bytes(entry));
        if entry.file_name().is_some_and(|name| name != LIBRARY && name != RECORDER) {
            value.push(":");
            value.push(entry);
        }
    }
    Ok(value)
}

/// The place of the report wherever the program changes its directory to, with nothing in it yet.
fn emptied(file: &Path) -> Result<PathBuf, Error> {
    let absolute = path::absolute(file).and_then(|file| File::create(&file).map(|_| file));
    absolute.map_err(|source| Error::ReportFile { path: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preloaded(there: &str) -> OsString {
        preloads(Path::new("/ours/libspanalloc_c.so"), Some(there.into())).unwrap()
    }

    #[test]
    fn the_library_is_loaded_first_and_once() {
        assert_eq!(preloaded(""), "/ours/libspanalloc_c.so");
        assert_eq!(preloaded("a.so /b/c.so"), "/ours/libspanalloc_c.so:a.so:/b/c.so");
        assert_eq!(preloaded(":/old/libspanalloc_c.so::d.so"), "/ours/libspanalloc_c.so:d.so");
        for path in ["/my files/libspanalloc_c.so", "/a:b/libspanalloc_c.so"] {
            assert!(
                matches!(preloads(Path::new(path), None), Err(Error::LibraryPath(_))),
                "{path}"
            );
        }
    }
}
