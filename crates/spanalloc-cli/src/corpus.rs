//! The text: which files, and what is in them.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use crate::Error;
use crate::args::TextArgs;
use crate::text::Content;

/// Most bytes of text where no paths are given.
const DEFAULT_MAX_BYTES: u64 = 64 << 20;

/// Larger files are not read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What counts as source where no paths are given.
const SOURCES: [&str; 9] = ["rs", "md", "toml", "txt", "c", "h", "cc", "cpp", "S"];

/// How many of the files that could not be read are named.
const NAMED: usize = 5;

/// Files to index, in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Where the files were looked for.
    pub(crate) roots: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    /// Bytes of the files, as the file system says.
    pub(crate) bytes: u64,
    pub(crate) skipped: Skipped,
}

/// What was found and is not in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    /// Files and directories that could not be read.
    pub(crate) unreadable: u64,
    /// The first of them, with the reason.
    pub(crate) named: Vec<String>,
    /// Files that are no text.
    pub(crate) binary: u64,
    /// Files over the limit of bytes.
    pub(crate) over_limit: u64,
    /// Files in the index that are not all UTF-8; the bytes that are not were replaced.
    pub(crate) lossy: u64,
}

impl Skipped {
    fn unreadable(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.unreadable += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{}: {reason}", path.display()));
        }
    }

    /// Adds what another thread skipped.
    pub(crate) fn add(&mut self, other: Self) {
        self.unreadable += other.unreadable;
        self.named.extend(other.named);
        self.named.sort();
        self.named.truncate(NAMED);
        self.binary += other.binary;
        self.over_limit += other.over_limit;
        self.lossy += other.lossy;
    }
}

impl Corpus {
    /// Finds the files.
    ///
    /// # Errors
    /// [`Error::Path`] and [`Error::NotAFile`] for a path that was given and cannot be read;
    /// [`Error::NoText`] if there is no file at all. What cannot be read inside a directory is
    /// noted in `skipped`.
    pub(crate) fn gather(args: &TextArgs) -> Result<Self, Error> {
        let sources_only = args.paths.is_empty();
        let roots = if sources_only { default_roots() } else { args.paths.clone() };
        let limit = match args.max_bytes {
            None if sources_only => DEFAULT_MAX_BYTES,
            limit => limit.unwrap_or(u64::MAX),
        };
        let mut corpus = Self { roots, files: Vec::new(), bytes: 0, skipped: Skipped::default() };
        for root in corpus.roots.clone() {
            let failed = |source| Error::Path { path: root.clone(), source };
            let facts = fs::metadata(&root).map_err(failed)?;
            if facts.is_dir() {
                fs::read_dir(&root).map_err(failed)?;
                corpus.walk(&root, sources_only, limit);
            } else if facts.is_file() {
                File::open(&root).and_then(|mut file| file.read(&mut [0])).map_err(failed)?;
                corpus.take(root, facts.len(), limit);
            } else {
                return Err(Error::NotAFile(root));
            }
        }
        if corpus.files.is_empty() { Err(corpus.no_text()) } else { Ok(corpus) }
    }

    pub(crate) fn no_text(&self) -> Error {
        Error::NoText(self.places())
    }

    /// The roots, as one line.
    pub(crate) fn places(&self) -> String {
        let names: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
        names.join(", ")
    }

    fn walk(&mut self, root: &Path, sources_only: bool, limit: u64) {
        let wanted = |entry: &DirEntry| !sources_only || is_source(entry);
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(wanted) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_owned();
                    match error.io_error() {
                        Some(reason) => self.skipped.unreadable(&path, reason),
                        None => self.skipped.unreadable(&path, &error),
                    }
                    continue;
                }
            };
            // A symbolic link to a file is that file; one to a directory is not followed.
            match fs::metadata(entry.path()) {
                Ok(facts) if facts.is_file() => self.take(entry.into_path(), facts.len(), limit),
                Ok(_) => {}
                Err(reason) => self.skipped.unreadable(entry.path(), &reason),
            }
        }
    }

    fn take(&mut self, path: PathBuf, bytes: u64, limit: u64) {
        if self.bytes.saturating_add(bytes) > limit {
            self.skipped.over_limit += 1;
            return;
        }
        self.bytes += bytes;
        self.files.push(path);
    }
}

/// Whether the walk without given paths takes or enters `entry`.
fn is_source(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    if entry.file_type().is_dir() {
        return entry.depth() == 0 || !(name.starts_with('.') || name == "target");
    }
    entry.path().extension().is_some_and(|it| SOURCES.iter().any(|source| it == *source))
}

/// The sources of this repository, or of the current directory if they are gone, and those of the
/// crates that cargo has downloaded.
fn default_roots() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let repository = repository.filter(|it| it.join("Cargo.toml").is_file());
    let mut roots = vec![repository.unwrap_or(Path::new(".")).to_owned()];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    roots.extend(home.map(|it| it.join("registry").join("src")).filter(|it| it.is_dir()));
    roots
}

/// The text of a file; None if it cannot be had, which is noted in `skipped`.
pub(crate) fn read(path: &Path, skipped: &mut Skipped) -> Option<String> {
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(reason) => {
            skipped.unreadable(path, &reason);
            return None;
        }
    };
    match Content::of(bytes) {
        Content::Text(text) => Some(text),
        Content::Lossy(text) => {
            skipped.lossy += 1;
            Some(text)
        }
        Content::Binary => {
            skipped.binary += 1;
            None
        }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(MAX_FILE_BYTES)).unwrap_or(0));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 GB"));
    }
    Ok(bytes)
}
