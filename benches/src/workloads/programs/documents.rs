//! A document that is parsed into values and dropped, and a text that is searched.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

use regex::Regex;
use serde_json::Value;

use super::super::measure::computed;
use super::super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

const MB: usize = 1_000_000;

pub(super) fn all() -> Vec<Workload> {
    vec![
        Workload::new("json", Group::Programs, 1, json),
        Workload::new("regex", Group::Programs, 1, regex),
    ]
}

const WORDS: [&str; 16] = [
    "arena", "page", "span", "class", "central", "cache", "magazine", "fold", "scavenge", "slot",
    "object", "thread", "queue", "lock", "bitmap", "window",
];

fn word(random: &mut Random) -> &'static str {
    WORDS[random.below(WORDS.len() as u32) as usize]
}

/// A text of so many bytes and a little more, and how many entries it has.
fn text(bytes: usize, mut entry: impl FnMut(&mut String, &mut Random, usize)) -> (String, u64) {
    let mut random = Random::new(1);
    let mut text = String::with_capacity(bytes + 4096);
    let mut entries = 0;
    while text.len() < bytes {
        entry(&mut text, &mut random, entries);
        entries += 1;
    }
    (text, entries as u64)
}

/// Writes to a string, which never fails.
macro_rules! append {
    ($text:expr, $($format:tt)*) => { _ = write!($text, $($format)*) };
}

/// A document of 50 MB is parsed and dropped. An operation is one of its records.
fn json(scale: Scale) -> Outcome {
    let bytes = match scale {
        Scale::Test => MB / 50,
        Scale::Quick => 5 * MB,
        Scale::Full => 50 * MB,
    };
    let (mut document, records) = text(bytes, |text, random, index| {
        let separator = if index == 0 { '[' } else { ',' };
        append!(text, "{separator}{{\"id\":{index},\"name\":\"{} {index}\"", word(random));
        append!(text, ",\"ratio\":{}.{}", random.below(100), random.below(1000));
        append!(text, ",\"active\":{},\"parent\":null,\"tags\":[", random.below(2) == 0);
        for tag in 0..random.below(6) {
            append!(text, "{}\"{}\"", if tag == 0 { "" } else { "," }, word(random));
        }
        append!(text, "],\"size\":{{\"width\":{},", random.below(5000));
        append!(text, "\"depths\":[{0},{0}]}},\"text\":\"", random.below(99));
        for _ in 0..random.below(24) {
            append!(text, "{} ", word(random));
        }
        text.push_str("\"}");
    });
    document.push(']');
    let elapsed = computed(|_| {
        let value: Value = serde_json::from_str(&document).expect("the document is well-formed");
        assert_eq!(value.as_array().map(|records| records.len() as u64), Some(records));
        drop(black_box(value));
    });
    Outcome::new(records, elapsed)
}

/// What a log says is collected by user. An operation is a line of it.
fn regex(scale: Scale) -> Outcome {
    let bytes = match scale {
        Scale::Test => MB / 100,
        Scale::Quick => 2 * MB,
        Scale::Full => 16 * MB,
    };
    let (log, lines) = text(bytes, |text, random, index| {
        append!(text, "{index} {}=user{} ", word(random), random.below(1000));
        append!(text, "{} says {}\n", word(random), word(random));
    });
    let elapsed = computed(|_| {
        let line = Regex::new(r"(?m)^\d+ (\w+)=(user\d+) (\w+) says (\w+)$");
        let line = line.expect("the expression is well-formed");
        let mut said: HashMap<String, Vec<String>, BuildHasherDefault<DefaultHasher>> =
            HashMap::default();
        for found in line.captures_iter(&log) {
            let (_, [place, user, whom, what]) = found.extract();
            said.entry(user.to_owned()).or_default().push(format!("{place}: {whom} {what}"));
        }
        assert_eq!(said.values().map(|all| all.len() as u64).sum::<u64>(), lines);
    });
    Outcome::new(lines, elapsed)
}
