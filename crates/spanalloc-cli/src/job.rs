//! One run: read, index, query, check, drop.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use spanalloc::stats::snapshot;

use crate::answers::{Questions, ask_in_bulk};
use crate::args::JobArgs;
use crate::corpus::{Corpus, Skipped, read};
use crate::heap_view::HeapView;
use crate::outcome::{Heap, Memory, Outcome, Phase};
use crate::process_memory::resident;
use crate::{Builder, Choice, Error, workers};

/// A file in memory: its number, where it was read from, and its text.
type Text = (u32, PathBuf, String);

/// Runs the demo's program once, in this process, which runs on `allocator`.
pub(crate) fn run(args: &JobArgs, allocator: Choice) -> Result<Outcome, Error> {
    let at_start = snapshot();
    let threads = usize::from(args.text.threads);
    let mut clock = Clock::default();

    let corpus = Corpus::gather(&args.text)?;
    let places = corpus.no_text();
    let (texts, skipped) = read_all(corpus, threads)?;
    let text_digest = digest_of(&texts, threads)?;
    if texts.is_empty() {
        return Err(places);
    }
    clock.ends("read", "find the files and load their text");

    let builder = Builder::new();
    index_all(texts, &builder, threads, &args.label)?;
    clock.ends("index", "split into lines and words, fill the sharded maps");
    let index = builder.finish(threads)?;
    clock.ends("sort", "order the postings, build the ordered map of words");

    let (questions, digest) = ask_in_bulk(&index, threads)?;
    clock.ends("query", "pairs, prefixes and lines of the most frequent words");
    let answers = Questions::choose(&index).answers(threads)?;
    clock.ends("check", "read all lines again to confirm the answers below");

    let files = index.files().values();
    let lines = files.clone().map(|file| file.lines.len() as u64).sum();
    let (bytes, words) = files.fold((0, 0), |sum, it| (sum.0 + it.bytes, sum.1 + it.words));
    let (files, distinct) = (index.files().len() as u64, index.words().len() as u64);
    let indexed = resident();
    let before_drop = snapshot();
    clock.restart();
    drop(index);
    clock.ends("drop", "free everything, on one thread");
    let after_drop = snapshot();
    let dropped = resident();

    let memory = Memory { peak: dropped.peak, indexed: indexed.now, dropped: dropped.now };
    let heap = Heap {
        objects_at_start: at_start.live_objects(),
        before_drop: HeapView::new(&before_drop),
        after_drop: HeapView::new(&after_drop),
    };
    let phases = clock.phases;
    Ok(Outcome {
        allocator,
        files,
        bytes,
        lines,
        words,
        distinct,
        skipped,
        text_digest,
        phases,
        memory,
        answers,
        questions,
        digest,
        heap,
    })
}

fn read_all(corpus: Corpus, threads: usize) -> Result<(Vec<Text>, Skipped), Error> {
    let paths = workers::Queue::new((0..).zip(corpus.files));
    let parts = workers::run(threads, || {
        let (mut texts, mut skipped) = (Vec::new(), Skipped::default());
        while let Some((number, path)) = paths.next() {
            if let Some(text) = read(&path, &mut skipped) {
                texts.push((number, path, text));
            }
        }
        (texts, skipped)
    })?;
    let (mut texts, mut skipped) = (Vec::new(), corpus.skipped);
    for (part, more) in parts {
        texts.extend(part);
        skipped.add(more);
    }
    texts.sort_unstable_by_key(|(number, ..)| *number);
    Ok((texts, skipped))
}

/// A number that changes when a path or a text does.
fn digest_of(texts: &[Text], threads: usize) -> Result<u64, Error> {
    let queue = workers::Queue::new(texts);
    let parts = workers::run(threads, || {
        std::iter::from_fn(|| queue.next()).fold(0, |sum: u64, text| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    })?;
    Ok(parts.into_iter().fold(0, u64::wrapping_add))
}

/// Adds every text to `builder`, showing how far it is; a text is freed once it is indexed.
fn index_all(
    texts: Vec<Text>,
    builder: &Builder,
    threads: usize,
    label: &str,
) -> Result<(), Error> {
    let bytes = texts.iter().map(|(_, _, text)| text.len() as u64).sum();
    let bar = progress_bar(bytes, label);
    let texts = workers::Queue::new(texts);
    workers::run(threads, || {
        while let Some((number, path, text)) = texts.next() {
            builder.add(number, path, &text);
            bar.inc(text.len() as u64);
        }
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// A bar on the standard error, or none if that is no terminal.
fn progress_bar(bytes: u64, label: &str) -> ProgressBar {
    let style = "{prefix:>13} indexing [{bar:40}] {bytes} of {total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(style);
    ProgressBar::new(bytes)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
        .with_prefix(label.to_owned())
}

/// Times the parts of the run.
struct Clock {
    started: Instant,
    phases: Vec<Phase>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), phases: Vec::new() }
    }
}

impl Clock {
    fn ends(&mut self, name: &str, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.phases.push(Phase { name: name.to_owned(), what: what.to_owned(), seconds });
        self.restart();
    }

    fn restart(&mut self) {
        self.started = Instant::now();
    }
}
