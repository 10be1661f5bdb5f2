use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::text::{fold, words};
use crate::{Error, workers};

/// Where a word occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Posting {
    /// Number of the file.
    pub file: u32,
    /// Number of the line, from 0.
    pub line: u32,
}

/// What the index keeps of a file.
#[derive(Clone, Debug)]
pub struct IndexedFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its lines, without their ends.
    pub lines: Vec<Box<str>>,
    /// Bytes of its text.
    pub bytes: u64,
    /// How many words it has, each occurrence counted.
    pub words: u64,
}

/// The words of one shard, and where they occur.
type Shard = HashMap<String, Vec<Posting>>;

/// Parts of the word map, each under its own lock while threads add to it.
const SHARDS: usize = 64;

fn shard_of(word: &str) -> usize {
    // FNV-1a: short, and the same in every process.
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % SHARDS as u64) as usize
}

/// An index that threads are adding files to.
#[derive(Debug)]
pub struct Builder {
    shards: Vec<Mutex<Shard>>,
    files: Mutex<BTreeMap<u32, IndexedFile>>,
}

impl Builder {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), files: Mutex::default() }
    }

    /// Adds the file with the number `file`. Each number is used once; the order does not matter.
    pub fn add(&self, file: u32, path: PathBuf, text: &str) {
        let mut lines = Vec::new();
        let mut found: HashMap<Cow<'_, str>, Vec<u32>> = HashMap::new();
        let mut count = 0;
        for (number, line) in (0..).zip(text.lines()) {
            lines.push(Box::from(line));
            for word in words(line) {
                found.entry(fold(word)).or_default().push(number);
                count += 1;
            }
        }
        self.merge(file, found);
        let entry = IndexedFile { path, lines, bytes: text.len() as u64, words: count };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file, entry);
    }

    /// Adds the words of a file, shard by shard.
    fn merge(&self, file: u32, found: HashMap<Cow<'_, str>, Vec<u32>>) {
        let mut batches: Vec<Vec<_>> = self.shards.iter().map(|_| Vec::new()).collect();
        for (word, lines) in found {
            if let Some(batch) = batches.get_mut(shard_of(&word)) {
                batch.push((word, lines));
            }
        }
        for (shard, batch) in self.shards.iter().zip(batches) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (word, lines) in batch {
                let postings = lines.into_iter().map(|line| Posting { file, line });
                match shard.get_mut(&*word) {
                    Some(known) => known.extend(postings),
                    None => {
                        shard.insert(word.into_owned(), postings.collect());
                    }
                }
            }
        }
    }

    /// The index of everything added, with its words and postings in order.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system gives no threads.
    pub fn finish(self, threads: usize) -> Result<Index, Error> {
        let shards = self.shards.into_iter();
        let mut shards: Vec<Shard> =
            shards.map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let unsorted = workers::Queue::new(shards.iter_mut());
        workers::run(threads, || {
            while let Some(shard) = unsorted.next() {
                shard.values_mut().for_each(|postings| postings.sort_unstable());
            }
        })?;
        let counts = |shard: &Shard| -> Vec<(String, usize)> {
            shard.iter().map(|(word, postings)| (word.clone(), postings.len())).collect()
        };
        let sorted = shards.iter().flat_map(counts).collect();
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Index { files, shards, sorted })
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// Which words occur where.
#[derive(Debug)]
pub struct Index {
    files: BTreeMap<u32, IndexedFile>,
    shards: Vec<Shard>,
    /// Every word and how often it occurs.
    sorted: BTreeMap<String, usize>,
}

impl Index {
    /// The files, by their numbers.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<u32, IndexedFile> {
        &self.files
    }

    /// Every word with its number of occurrences, in alphabetical order.
    #[must_use]
    pub const fn words(&self) -> &BTreeMap<String, usize> {
        &self.sorted
    }

    /// Every occurrence of `word` (folded), by file and line.
    #[must_use]
    pub fn postings(&self, word: &str) -> &[Posting] {
        let shard = self.shards.get(shard_of(word));
        shard.and_then(|shard| shard.get(word)).map_or(&[], Vec::as_slice)
    }

    /// The text of the line that `posting` names.
    #[must_use]
    pub fn line(&self, posting: Posting) -> Option<&str> {
        let file = self.files.get(&posting.file)?;
        file.lines.get(usize::try_from(posting.line).ok()?).map(|line| &**line)
    }
}
