use std::env;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::args::{DemoArgs, JobArgs, TextArgs};
use crate::corpus::Corpus;
use crate::format::{bytes, count, seconds};
use crate::outcome::Outcome;
use crate::{Choice, Error, compare, job, picture};

/// Makes the index, asks it and shows it, on `allocator` and on the system's.
pub(crate) fn show(args: &DemoArgs, allocator: Choice, out: &mut impl Write) -> Result<(), Error> {
    let corpus = Corpus::gather(&args.text)?;
    let (files, size) = (count(corpus.files.len() as u64), bytes(corpus.bytes));
    writeln!(out, "A word index of {files} files, {size}, made by {} threads.", args.text.threads)?;
    writeln!(out, "  from  {}\n", corpus.places())?;
    drop(corpus);
    out.flush()?;

    let (ours, theirs) = if args.no_compare {
        let label = String::from(allocator.name());
        (vec![job::run(&JobArgs { text: args.text.clone(), label }, allocator)?], Vec::new())
    } else {
        take_turns(&args.text, args.repeat)?
    };
    let middle = median_run(&ours).ok_or_else(|| Error::WrongAnswer(String::from("no run")))?;
    print_work(out, middle)?;
    print_heap(out, middle, args.all_classes)?;
    if !theirs.is_empty() {
        print_comparison(out, &ours, &theirs)?;
    }
    check(ours.iter().chain(&theirs), middle)
}

/// Runs `repeat` times on each allocator, each time in a process of its own, one at a time. The
/// order changes from turn to turn.
fn take_turns(text: &TextArgs, repeat: u16) -> Result<(Vec<Outcome>, Vec<Outcome>), Error> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 1..=repeat {
        let mut order = [Choice::Spanalloc, Choice::System];
        if turn % 2 == 0 {
            order.reverse();
        }
        for allocator in order {
            let outcome = run_process(text, allocator, &format!("{} {turn}", allocator.name()))?;
            match allocator {
                Choice::Spanalloc => ours.push(outcome),
                Choice::System => theirs.push(outcome),
            }
        }
    }
    Ok((ours, theirs))
}

/// Runs the job in another process of this program, on `allocator`.
fn run_process(text: &TextArgs, allocator: Choice, label: &str) -> Result<Outcome, Error> {
    let failed = |source| Error::Spawn { allocator: allocator.name(), source };
    let mut process = Command::new(env::current_exe().map_err(failed)?);
    // The system's malloc, and not one that was loaded in its place.
    process.env_remove("LD_PRELOAD").env(Choice::VARIABLE, allocator.name());
    process.args(["job", "--label", label, "--threads", &text.threads.to_string()]);
    if let Some(limit) = text.max_bytes {
        process.args(["--max-bytes", &limit.to_string()]);
    }
    process.arg("--").args(&text.paths);
    let output = process.stderr(Stdio::inherit()).output().map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Process { allocator: allocator.name(), status: output.status });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The run whose time is in the middle.
fn median_run(runs: &[Outcome]) -> Option<&Outcome> {
    let mut by_time: Vec<&Outcome> = runs.iter().collect();
    by_time.sort_by(|a, b| a.total_seconds().total_cmp(&b.total_seconds()));
    by_time.get((by_time.len().max(1) - 1) / 2).copied()
}

fn print_work(out: &mut impl Write, run: &Outcome) -> io::Result<()> {
    let Outcome { files, bytes: size, lines, words, distinct, skipped, .. } = run;
    writeln!(
        out,
        "indexed {} files, {} of text, {} lines, {} words, {} of them different",
        count(*files),
        bytes(*size),
        count(*lines),
        count(*words),
        count(*distinct)
    )?;
    let notes = [
        (skipped.binary, "binary, skipped"),
        (skipped.unreadable, "not readable, skipped"),
        (skipped.over_limit, "over the limit of bytes, left out"),
        (skipped.lossy, "not all UTF-8, indexed with the bad bytes replaced"),
    ];
    for (number, what) in notes.into_iter().filter(|(number, _)| *number > 0) {
        writeln!(out, "  {} {what}", count(number))?;
    }
    for name in &skipped.named {
        writeln!(out, "    {name}")?;
    }
    writeln!(out, "\nqueries ({} in bulk, {} shown)", count(run.questions), run.answers.len())?;
    for answer in &run.answers {
        let mark = if answer.confirmed { "confirmed" } else { "WRONG" };
        writeln!(out, "  {}: {}  [{mark}]", answer.question, answer.answer)?;
    }
    writeln!(out, "\ntime on {}", run.allocator.name())?;
    for phase in &run.phases {
        writeln!(out, "  {:<6} {:>8}  {}", phase.name, seconds(phase.seconds), phase.what)?;
    }
    writeln!(out, "  {:<6} {:>8}", "all", seconds(run.total_seconds()))?;
    let told = |value: Option<u64>| value.map_or_else(|| String::from("not known"), bytes);
    let memory = run.memory;
    writeln!(
        out,
        "memory: peak {}, with the index {}, after the drop {}\n",
        told(memory.peak),
        told(memory.indexed),
        told(memory.dropped)
    )
}

fn print_heap(out: &mut impl Write, run: &Outcome, all_classes: bool) -> io::Result<()> {
    if run.allocator != Choice::Spanalloc {
        return writeln!(out, "no picture: this process runs on {}\n", run.allocator.name());
    }
    let heap = &run.heap;
    picture::draw(out, "before the drop", &heap.before_drop, all_classes)?;
    writeln!(out)?;
    picture::draw(out, "after the drop", &heap.after_drop, all_classes)?;
    let left = heap.after_drop.figures.objects;
    let start = heap.objects_at_start;
    writeln!(out, "({} objects were live at the start, {} are left)\n", count(start), count(left))
}

fn print_comparison(out: &mut impl Write, ours: &[Outcome], theirs: &[Outcome]) -> io::Result<()> {
    writeln!(
        out,
        "spanalloc beside the system's malloc: medians of {} runs each, in turns, a process each;\n\
         the same program, which picks its allocator once, at its first allocation, so that both\n\
         pay the same load and compare a call. ratio: spanalloc / system, below 1 is better.\n",
        ours.len()
    )?;
    compare::print(out, ours, theirs)?;
    let mut runs = ours.iter().chain(theirs);
    let text = runs.next().map(|run| run.text_digest);
    if runs.any(|run| Some(run.text_digest) != text) {
        writeln!(out, "\nnote: the files changed in the meantime; not all runs had the same text")?;
    }
    Ok(())
}

/// Whether every run confirmed every answer, and those over the same text as `one` agree with it.
fn check<'a>(runs: impl Iterator<Item = &'a Outcome>, one: &Outcome) -> Result<(), Error> {
    let key = |run: &Outcome| (run.words, run.distinct, run.questions, run.digest);
    for run in runs {
        if let Some(wrong) = run.answers.iter().find(|answer| !answer.confirmed) {
            return Err(Error::WrongAnswer(wrong.question.clone()));
        }
        if run.text_digest == one.text_digest && key(run) != key(one) {
            return Err(Error::WrongAnswer(String::from("two runs over the same text differ")));
        }
    }
    Ok(())
}
