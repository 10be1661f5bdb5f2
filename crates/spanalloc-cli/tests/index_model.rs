//! The index against a naive one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;
use spanalloc_cli::{Builder, Index, Posting};

/// Where each word occurs, found character by character.
fn naive(files: &[String]) -> BTreeMap<String, Vec<Posting>> {
    let mut words: BTreeMap<String, Vec<Posting>> = BTreeMap::new();
    for (file, text) in (0..).zip(files) {
        let (mut line, mut word) = (0, String::new());
        for c in text.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                let word = std::mem::take(&mut word).to_lowercase();
                words.entry(word).or_default().push(Posting { file, line });
            }
            line += u32::from(c == '\n');
        }
    }
    words
}

/// Indexes with several threads, which take the files in turns.
fn index(files: &[String], threads: usize) -> Index {
    let builder = Builder::new();
    std::thread::scope(|scope| {
        for first in 0..threads {
            let builder = &builder;
            scope.spawn(move || {
                for (number, text) in files.iter().enumerate().skip(first).step_by(threads) {
                    let path = PathBuf::from(format!("file{number}"));
                    builder.add(u32::try_from(number).unwrap(), path, text);
                }
            });
        }
    });
    builder.finish(threads).unwrap()
}

fn files_of(postings: &[Posting]) -> BTreeSet<u32> {
    postings.iter().map(|posting| posting.file).collect()
}

proptest! {
    #[test]
    fn the_index_is_the_naive_one(
        files in prop::collection::vec("([a-cA-C]{1,3}|é|_|[ .,]|\n|\r\n){0,40}", 0..8),
        threads in 1..4usize,
    ) {
        let model = naive(&files);
        let index = index(&files, threads);
        let counts: BTreeMap<String, usize> =
            model.iter().map(|(word, postings)| (word.clone(), postings.len())).collect();
        prop_assert_eq!(index.words(), &counts);
        for (word, postings) in &model {
            prop_assert_eq!(index.postings(word), &postings[..]);
        }
        prop_assert_eq!(index.postings("not there"), &[]);
        prop_assert_eq!(index.files().len(), files.len());
        for (file, text) in index.files().values().zip(&files) {
            prop_assert_eq!(file.bytes, text.len() as u64);
            prop_assert!(file.lines.iter().map(|line| &**line).eq(text.lines()));
        }
        let words: u64 = index.files().values().map(|file| file.words).sum();
        prop_assert_eq!(words, counts.values().sum::<usize>() as u64);
    }

    #[test]
    fn queries_are_those_of_the_naive_index(
        files in prop::collection::vec("([ab]{1,3}[ \n]){0,20}", 1..6),
        count in 0..6usize,
        prefix in "[ab]{0,2}",
    ) {
        let model = naive(&files);
        let index = index(&files, 2);

        let mut frequent: Vec<_> = model.iter().map(|(word, at)| (word.as_str(), at.len())).collect();
        frequent.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        frequent.truncate(count);
        prop_assert_eq!(index.most_frequent(count), frequent);

        for (one, here) in &model {
            for (other, there) in &model {
                let both: Vec<u32> = files_of(here).intersection(&files_of(there)).copied().collect();
                prop_assert_eq!(index.files_with_both(one, other), both);
            }
            for place in here {
                let shown = index.show(*place).unwrap();
                let start = format!("file{}:{}: ", place.file, place.line + 1);
                prop_assert!(shown.starts_with(&start) && shown.contains(one.as_str()));
            }
        }

        let begin: Vec<_> = model.iter().filter(|(word, _)| word.starts_with(&prefix)).collect();
        let found: Vec<_> = index.with_prefix(&prefix).collect();
        prop_assert_eq!(found.len(), begin.len());
        prop_assert!(found.iter().zip(begin).all(|(a, b)| a.0 == b.0 && a.1 == b.1.len()));
    }
}

#[test]
fn places_outside_the_index_are_none() {
    let index = index(&[String::from("one line")], 1);
    assert_eq!(index.line(Posting { file: 0, line: 0 }), Some("one line"));
    assert_eq!(index.line(Posting { file: 0, line: 1 }), None);
    assert_eq!(index.show(Posting { file: 1, line: 0 }), None);
}
