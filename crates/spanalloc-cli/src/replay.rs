//! `spanalloc replay`: does what a trace says to an allocator put together for it, and measures it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::ptr::NonNull;
use std::time::Instant;

use serde::Serialize;
use spanalloc_cache::{Checked, Fast, Policy};
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Fine72, Go67};
use spanalloc_os::{Fixed, Mmap, OsError, OsSource, Purpose, Report, Request};
use spanalloc_pages::PageHeap;
use spanalloc_testkit::{Effect, Operation, Playback, Replay, Returning, Trace};

use crate::args::{PolicyChoice, ReplayArgs, SourceChoice, TableChoice};
use crate::composition::Composition;
use crate::format::{bar, bytes, count, seconds};
use crate::residence::Residence;
use crate::{Error, curve};

/// Points of the curve, at most.
const POINTS: usize = 1000;
/// Lines of the curve as a table.
const LINES: usize = 10;
/// How often the operations are timed; the shortest time counts.
const TIMES: usize = 3;

/// What a replay came to. All but `replay_seconds` is the same in every run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    policy: &'static str,
    table: &'static str,
    source: String,
    operations: usize,
    allocations: usize,
    caches: u16,
    /// Requests for which the source had no memory.
    refused: usize,
    /// When most bytes were live.
    peak_live: Moment,
    /// When most bytes were resident.
    peak_resident: Moment,
    end: Moment,
    /// The most that was resident, as a multiple of the most that was live.
    peak_fragmentation: Option<f64>,
    /// What is resident at the end, as a multiple of what is live.
    end_fragmentation: Option<f64>,
    /// What the operations took, without looking at anything.
    replay_seconds: f64,
    curve: Vec<Moment>,
}

/// How things are after an operation.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Moment {
    /// Operations done.
    operation: usize,
    /// The clock of the trace.
    pub(crate) microseconds: u64,
    live_objects: usize,
    /// The sum of the sizes asked for.
    pub(crate) live_bytes: usize,
    /// Pages in memory, and metadata.
    pub(crate) resident_bytes: usize,
    /// The metadata alone.
    metadata_bytes: usize,
}

impl Moment {
    fn fragmentation(&self) -> Option<f64> {
        ratio(self.resident_bytes, self.live_bytes)
    }
}

fn ratio(resident: usize, live: usize) -> Option<f64> {
    // Thousandths, so that it reads as it is.
    (live > 0).then(|| (resident as f64 / live as f64 * 1e3).round() / 1e3)
}

/// Replays the trace and prints what came of it.
pub(crate) fn run(args: &ReplayArgs, out: &mut impl Write) -> Result<(), Error> {
    let trace = read(&args.trace)?;
    let outcome = match args.table {
        TableChoice::Go67 => with_table::<Go67>(args, &trace),
        TableChoice::Fine72 => with_table::<Fine72>(args, &trace),
    }?;
    if let Some(path) = &args.svg {
        let title = format!("{} on {}, {}", name_of(&args.trace), outcome.policy, outcome.table);
        let drawn = curve::draw(&title, &outcome.curve)
            .map_err(|error| Error::Drawing(error.to_string()))?;
        fs::write(path, drawn).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    if args.json {
        serde_json::to_writer(&mut *out, &outcome)?;
        return Ok(writeln!(out)?);
    }
    print(out, &name_of(&args.trace), &outcome, args.verify)?;
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).display().to_string()
}

fn read(path: &Path) -> Result<Trace, Error> {
    let unreadable = |source| Error::Path { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(Error::NotATraceFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Trace::decode(&bytes).map_err(|source| Error::Trace { path: path.to_owned(), source })
}

fn with_table<T: ClassTable>(args: &ReplayArgs, trace: &Trace) -> Result<Outcome, Error> {
    match args.policy {
        PolicyChoice::Fast => with_policy::<T, Fast>(args, trace),
        PolicyChoice::Checked => with_policy::<T, Checked>(args, trace),
    }
}

fn with_policy<T: ClassTable, P: Policy>(
    args: &ReplayArgs,
    trace: &Trace,
) -> Result<Outcome, Error> {
    match args.source {
        SourceChoice::Mmap => {
            // SAFETY: each source is dropped after the allocator that is put together on it.
            let source = || Ok(Residence::roomy(unsafe { Returning::new(Mmap::new()) }));
            replay::<T, P, _>(args, trace, source)
        }
        SourceChoice::Fixed(bytes) => {
            let source = || {
                // SAFETY: as above.
                let system = unsafe { Returning::new(Mmap::new()) };
                Ok(Residence::tight(Buffer::new(system, bytes)?))
            };
            replay::<T, P, _>(args, trace, source)
        }
    }
}

/// Does the operations with an allocator over a source of its own each time: to check it, to measure
/// it, to time it.
fn replay<T: ClassTable, P: Policy, O: OsSource>(
    args: &ReplayArgs,
    trace: &Trace,
    source: impl Fn() -> Result<Residence<O>, Error>,
) -> Result<Outcome, Error> {
    if args.verify {
        verify::<T, P, O>(&source()?, trace)?;
    }
    let mut outcome = measure::<T, P, O>(&source()?, trace);
    outcome.replay_seconds = f64::INFINITY;
    for _ in 0..TIMES {
        let seconds = time::<T, P, O>(&source()?.honest(), trace);
        outcome.replay_seconds = outcome.replay_seconds.min(seconds);
    }
    let (policy, table) = match (args.policy, args.table) {
        (PolicyChoice::Fast, TableChoice::Go67) => ("fast", "go67"),
        (PolicyChoice::Fast, TableChoice::Fine72) => ("fast", "fine72"),
        (PolicyChoice::Checked, TableChoice::Go67) => ("checked", "go67"),
        (PolicyChoice::Checked, TableChoice::Fine72) => ("checked", "fine72"),
    };
    (outcome.policy, outcome.table) = (policy, table);
    outcome.source = match args.source {
        SourceChoice::Mmap => String::from("mmap"),
        SourceChoice::Fixed(bytes) => format!("fixed:{bytes}"),
    };
    Ok(outcome)
}

fn verify<T: ClassTable, P: Policy, O: OsSource>(
    source: &Residence<O>,
    trace: &Trace,
) -> Result<(), Error> {
    let heap = PageHeap::new(source);
    let central = CentralLists::<T, _>::new(&heap);
    let subject = Composition::<T, O, P>::new(&heap, &central, trace.caches().into());
    let mut replay = Replay::with_budget(subject, usize::MAX);
    for operation in trace.operations() {
        replay.apply(operation)?;
    }
    Ok(replay.finish()?)
}

fn time<T: ClassTable, P: Policy, O: OsSource>(source: &Residence<O>, trace: &Trace) -> f64 {
    let heap = PageHeap::new(source);
    let central = CentralLists::<T, _>::new(&heap);
    let subject = Composition::<T, O, P>::new(&heap, &central, trace.caches().into());
    let mut playback = Playback::new(subject);
    let started = Instant::now();
    for operation in trace.operations() {
        playback.apply(operation);
    }
    started.elapsed().as_secs_f64()
}

fn measure<T: ClassTable, P: Policy, O: OsSource>(source: &Residence<O>, trace: &Trace) -> Outcome {
    let heap = PageHeap::new(source);
    let central = CentralLists::<T, _>::new(&heap);
    let subject = Composition::<T, O, P>::new(&heap, &central, trace.caches().into());
    let mut playback = Playback::new(subject);
    let operations = trace.operations();
    let every = operations.len().div_ceil(POINTS).max(1);
    let (mut refused, mut allocations) = (0, 0);
    let (mut now, mut curve) = (Moment::default(), vec![Moment::default()]);
    let (mut peak_live, mut peak_resident) = (now, now);
    for (operation, number) in operations.iter().zip(1..) {
        match playback.apply(operation) {
            Effect::Placed(at, bytes) => source.touch(at, bytes),
            Effect::Refused => refused += 1,
            Effect::None => {}
        }
        let allocates =
            matches!(operation, Operation::Alloc { .. } | Operation::AllocZeroed { .. });
        allocations += usize::from(allocates);
        let tally = playback.tally();
        let metadata_bytes = playback.subject().metadata();
        now = Moment {
            operation: number,
            microseconds: playback.subject().microseconds(),
            live_objects: tally.objects,
            live_bytes: tally.bytes,
            resident_bytes: source.bytes() + metadata_bytes,
            metadata_bytes,
        };
        if now.live_bytes > peak_live.live_bytes {
            peak_live = now;
        }
        if now.resident_bytes > peak_resident.resident_bytes {
            peak_resident = now;
        }
        if number % every == 0 || number == operations.len() {
            curve.push(now);
        }
    }
    Outcome {
        policy: "",
        table: "",
        source: String::new(),
        operations: operations.len(),
        allocations,
        caches: trace.caches(),
        refused,
        peak_live,
        peak_resident,
        end: now,
        peak_fragmentation: ratio(peak_resident.resident_bytes, peak_live.live_bytes),
        end_fragmentation: now.fragmentation(),
        replay_seconds: 0.0,
        curve,
    }
}

fn print(out: &mut impl Write, name: &str, it: &Outcome, verified: bool) -> io::Result<()> {
    let Outcome { operations, allocations, caches, policy, table, source, .. } = it;
    writeln!(
        out,
        "{name}: {} operations, {} allocations, {caches} cache{}, {} of the program's time",
        count(*operations),
        count(*allocations),
        if *caches == 1 { "" } else { "s" },
        seconds(it.end.microseconds as f64 / 1e6)
    )?;
    writeln!(out, "on: source {source}, classes {table}, caches {policy}\n")?;
    let times =
        |ratio: Option<f64>| ratio.map_or_else(|| String::from("-"), |it| format!("{it:.2}"));
    writeln!(
        out,
        "{:14} {:>12} {:>10} {:>10} {:>10}",
        "", "operation", "live", "resident", "ratio"
    )?;
    let moments =
        [("most live", &it.peak_live), ("most resident", &it.peak_resident), ("end", &it.end)];
    for (what, moment) in moments {
        writeln!(
            out,
            "{what:14} {:>12} {:>10} {:>10} {:>10}",
            count(moment.operation),
            bytes(moment.live_bytes),
            bytes(moment.resident_bytes),
            times(moment.fragmentation())
        )?;
    }
    writeln!(
        out,
        "fragmentation  {} at the peak (most resident / most live), {} at the end",
        times(it.peak_fragmentation),
        times(it.end_fragmentation)
    )?;
    writeln!(
        out,
        "metadata       {} of what is resident at the end",
        bytes(it.end.metadata_bytes)
    )?;
    let each = it.replay_seconds * 1e9 / (*operations).max(1) as f64;
    writeln!(out, "time           {}, {each:.0} ns an operation", seconds(it.replay_seconds))?;
    if it.refused > 0 {
        writeln!(out, "refused        {} requests", count(it.refused))?;
    }
    if verified {
        writeln!(out, "verified       every object was its own")?;
    }
    print_curve(out, it)
}

fn print_curve(out: &mut impl Write, it: &Outcome) -> io::Result<()> {
    writeln!(out, "\n{:>10}  memory (█ live, ░ resident)", "time")?;
    let most = it.peak_resident.resident_bytes;
    let step = it.curve.len().div_ceil(LINES).max(1);
    for moment in it.curve.iter().skip(step - 1).step_by(step) {
        let rest = moment.resident_bytes.saturating_sub(moment.live_bytes);
        writeln!(
            out,
            "{:>10}  |{}| {}",
            seconds(moment.microseconds as f64 / 1e6),
            bar(&[(moment.live_bytes, '█'), (rest, '░')], most, 48),
            bytes(moment.resident_bytes)
        )?;
    }
    Ok(())
}

/// A buffer as a source, and the memory that it is in.
#[derive(Debug)]
struct Buffer {
    fixed: Fixed<'static>,
    /// Dropped last.
    _memory: Returning<Mmap>,
}

impl Buffer {
    fn new(system: Returning<Mmap>, bytes: usize) -> Result<Self, Error> {
        let refused = |_| Error::NoBuffer { bytes };
        let page = system.page_bytes();
        let whole = bytes.next_multiple_of(page);
        // As arenas are aligned, so that a heap looks the same in every buffer.
        let align = 64 << 20;
        let request = Request { bytes: whole, align, hint: 0, purpose: Purpose::Arena };
        let at = system.reserve(request).map_err(refused)?;
        // SAFETY: so many bytes were reserved just now.
        unsafe { system.commit(at, whole) }.map_err(refused)?;
        // SAFETY: the memory is Ready and nobody else's as long as `system` is there, which the
        // buffer keeps.
        let fixed = unsafe { Fixed::from_raw(at.as_ptr(), bytes) };
        Ok(Self { fixed, _memory: system })
    }
}

// SAFETY: every verb is passed on unchanged to a source that keeps the contract.
unsafe impl OsSource for Buffer {
    type Wait = <Fixed<'static> as OsSource>::Wait;

    fn page_bytes(&self) -> usize {
        self.fixed.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        self.fixed.reserve(request)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.fixed.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.fixed.decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.fixed.release(at, bytes) }
    }

    fn die(&self, report: Report) -> ! {
        self.fixed.die(report)
    }
}
