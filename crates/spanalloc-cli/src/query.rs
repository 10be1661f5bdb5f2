//! What can be asked of an index.

use std::cmp::Reverse;
use std::ops::Bound;

use crate::{Index, Posting};

impl Index {
    /// The `count` most frequent words with their occurrences, the most frequent first; words that
    /// are as frequent come in alphabetical order.
    #[must_use]
    pub fn most_frequent(&self, count: usize) -> Vec<(&str, usize)> {
        let mut all: Vec<_> = self.words().iter().map(|(word, n)| (word.as_str(), *n)).collect();
        let order =
            |a: &(&str, usize), b: &(&str, usize)| (Reverse(a.1), a.0).cmp(&(Reverse(b.1), b.0));
        if count < all.len() {
            all.select_nth_unstable_by(count, order);
            all.truncate(count);
        }
        all.sort_unstable_by(order);
        all
    }

    /// The files in which `word` (folded) occurs.
    #[must_use]
    pub fn files_with(&self, word: &str) -> Vec<u32> {
        let mut files: Vec<u32> = self.postings(word).iter().map(|posting| posting.file).collect();
        files.dedup();
        files
    }

    /// The files in which both words (folded) occur.
    #[must_use]
    pub fn files_with_both(&self, one: &str, other: &str) -> Vec<u32> {
        let others = self.files_with(other);
        let mut files = self.files_with(one);
        files.retain(|file| others.binary_search(file).is_ok());
        files
    }

    /// The words that begin with `prefix` (folded), in alphabetical order, with their occurrences.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
        self.words()
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(word, _)| word.starts_with(prefix))
            .map(|(word, n)| (word.as_str(), *n))
    }

    /// A place in the form `path:line: text`, lines counted from 1.
    #[must_use]
    pub fn show(&self, place: Posting) -> Option<String> {
        let path = self.files().get(&place.file)?.path.display();
        Some(format!("{path}:{}: {}", place.line + 1, self.line(place)?.trim()))
    }
}
