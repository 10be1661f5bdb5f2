//! The questions the demo asks, and the check of the answers by reading every line again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::format::count;
use crate::text::{fold, words};
use crate::{Error, Index, IndexedFile, Posting, workers};

/// Words that the bulk of questions is about.
const ASKED: usize = 20_000;

/// Lines shown for each of those words.
const LINES: usize = 20;

/// Words in the answer to the first question.
const TOP: usize = 10;

/// A question, and what the index says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) question: String,
    pub(crate) answer: String,
    /// Whether a plain reading of all lines says the same.
    pub(crate) confirmed: bool,
}

/// Asks about the most frequent words with several threads: their lines, the files they share with
/// the next word, the words with the same beginning. Returns the number of questions and a digest
/// of all answers, the same for the same text.
pub(crate) fn ask_in_bulk(index: &Index, threads: usize) -> Result<(u64, u64), Error> {
    let asked = index.most_frequent(ASKED);
    let next = asked.iter().cycle().skip(1);
    let pairs = workers::Queue::new(asked.iter().zip(next));
    let answers = workers::run(threads, || {
        let (mut questions, mut digest) = (0, 0u64);
        while let Some(((word, _), (next, _))) = pairs.next() {
            let mut hasher = DefaultHasher::new();
            index.files_with_both(word, next).hash(&mut hasher);
            let prefix = beginning(word, 3);
            index.with_prefix(&prefix).collect::<Vec<_>>().hash(&mut hasher);
            let places = index.postings(word).iter().take(LINES);
            places.filter_map(|place| index.show(*place)).collect::<Vec<_>>().hash(&mut hasher);
            digest = digest.wrapping_add(hasher.finish());
            questions += 3;
        }
        (questions, digest)
    })?;
    Ok(answers.into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1.wrapping_add(it.1))))
}

fn beginning(word: &str, letters: usize) -> String {
    word.chars().take(letters).collect()
}

/// What the demo shows of the index: words chosen from it, and what it says of them.
pub(crate) struct Questions<'a> {
    index: &'a Index,
    top: Vec<(&'a str, usize)>,
    pair: Option<(&'a str, &'a str)>,
    prefix: Option<String>,
    once: Option<&'a str>,
}

impl<'a> Questions<'a> {
    pub(crate) fn choose(index: &'a Index) -> Self {
        let frequent = index.most_frequent(200);
        let telling =
            |word: &&str| word.chars().count() >= 4 && !word.starts_with(char::is_numeric);
        // Two words that do not stand in every file, or any two if all do.
        let everywhere = index.files().len();
        let rare = |word: &&str| telling(word) && index.files_with(word).len() < everywhere;
        let all = || frequent.iter().map(|(word, _)| *word);
        let mut some = all().filter(rare).chain(all());
        let pair = some.next().zip(some.last());
        let once = index.words().iter().filter(|(word, n)| **n == 1 && word.len() <= 24);
        let once = once.map(|(word, _)| word.as_str()).filter(telling).max_by_key(|it| it.len());
        Self {
            index,
            top: index.most_frequent(TOP),
            pair,
            prefix: all().find(telling).map(|word| beginning(word, 4)),
            once,
        }
    }

    /// The answers of the index, each compared with a plain reading of all lines.
    pub(crate) fn answers(&self, threads: usize) -> Result<Vec<Answer>, Error> {
        let read = self.read_everything(threads)?;
        let mut answers = vec![self.how_many(&read), self.most_frequent(&read)];
        answers.extend(self.pair.map(|pair| self.both(pair, &read)));
        answers.extend(self.prefix.as_deref().map(|prefix| self.begin_with(prefix, &read)));
        answers.extend(self.once.map(|word| self.only_place(word, &read)));
        Ok(answers)
    }

    fn how_many(&self, read: &Reading) -> Answer {
        let indexed: usize = self.index.words().values().sum();
        Answer {
            question: String::from("how many words"),
            answer: format!(
                "{}, {} of them different",
                count(indexed),
                count(self.index.words().len())
            ),
            confirmed: indexed == read.words,
        }
    }

    fn most_frequent(&self, read: &Reading) -> Answer {
        let list: Vec<_> =
            self.top.iter().map(|(word, n)| format!("{word} {}", count(*n))).collect();
        let same = |(word, n): &(&str, usize)| read.counts.get(*word) == Some(n);
        Answer {
            question: String::from("most frequent"),
            answer: list.join(", "),
            confirmed: self.top.iter().all(same),
        }
    }

    fn both(&self, (one, other): (&str, &str), read: &Reading) -> Answer {
        let files = self.index.files_with_both(one, other);
        Answer {
            question: format!("files with both {one} and {other}"),
            answer: format!("{} of {}", count(files.len()), count(self.index.files().len())),
            confirmed: files == read.both,
        }
    }

    fn begin_with(&self, prefix: &str, read: &Reading) -> Answer {
        let found: Vec<_> = self.index.with_prefix(prefix).collect();
        let occurrences: usize = found.iter().map(|(_, n)| n).sum();
        Answer {
            question: format!("words that begin with {prefix}"),
            answer: format!("{}, occurring {} times", count(found.len()), count(occurrences)),
            confirmed: occurrences == read.with_prefix,
        }
    }

    fn only_place(&self, word: &str, read: &Reading) -> Answer {
        let place = self.index.postings(word).first();
        Answer {
            question: format!("the only {word}"),
            answer: place.and_then(|place| self.index.show(*place)).unwrap_or_default(),
            confirmed: place.copied() == read.only && read.counts.get(word) == Some(&1),
        }
    }

    /// Reads every line of the index again.
    fn read_everything(&self, threads: usize) -> Result<Reading, Error> {
        let files = workers::Queue::new(self.index.files());
        let parts = workers::run(threads, || {
            let mut reading = self.nothing_read();
            while let Some((number, file)) = files.next() {
                self.read_file(*number, file, &mut reading);
            }
            reading
        })?;
        let mut all = self.nothing_read();
        parts.into_iter().for_each(|part| all.add(part));
        all.both.sort_unstable();
        Ok(all)
    }

    fn nothing_read(&self) -> Reading {
        let counted = self.top.iter().map(|(word, _)| *word).chain(self.once);
        Reading { counts: counted.map(|word| (word.to_owned(), 0)).collect(), ..Reading::default() }
    }

    fn read_file(&self, number: u32, file: &IndexedFile, reading: &mut Reading) {
        let mut seen = (false, false);
        for (line, text) in (0..).zip(&file.lines) {
            for word in words(text) {
                let word = fold(word);
                reading.words += 1;
                if let Some(count) = reading.counts.get_mut(&*word) {
                    *count += 1;
                }
                if self.once == Some(&*word) {
                    reading.only = Some(Posting { file: number, line });
                }
                if let Some((one, other)) = self.pair {
                    seen = (seen.0 || *word == *one, seen.1 || *word == *other);
                }
                reading.with_prefix +=
                    usize::from(self.prefix.as_deref().is_some_and(|it| word.starts_with(it)));
            }
        }
        if seen == (true, true) {
            reading.both.push(number);
        }
    }
}

/// What a plain reading of the lines found.
#[derive(Default)]
struct Reading {
    words: usize,
    counts: HashMap<String, usize>,
    both: Vec<u32>,
    with_prefix: usize,
    only: Option<Posting>,
}

impl Reading {
    fn add(&mut self, other: Self) {
        self.words += other.words;
        self.both.extend(other.both);
        self.with_prefix += other.with_prefix;
        self.only = self.only.or(other.only);
        for (word, n) in other.counts {
            *self.counts.entry(word).or_default() += n;
        }
    }
}
