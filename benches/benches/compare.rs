//! The comparison: rounds, in each of which every workload runs on every allocator. Criterion
//! measures and prints each of these runs; the table at the end has the medians over the rounds.
#![allow(missing_docs, reason = "a program")]

use std::env;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use spanalloc_bench::clock::thread_time;
use spanalloc_bench::table::Table;
use spanalloc_bench::{Entry, Plan, Workload, contenders};

/// Samples of a run.
const SAMPLES: usize = 10;
const WARM_UP: Duration = Duration::from_millis(60);
/// Pairs that are run before Criterion's own warm-up.
const WARM_UP_PAIRS: u64 = 50_000;
const MEASUREMENT: Duration = Duration::from_millis(150);
/// Resamples of Criterion's own statistics; the table does not use them.
const RESAMPLES: usize = 1000;
/// Rounds, unless the environment says otherwise.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
const ROUNDS_VARIABLE: &str = "SPANALLOC_BENCH_ROUNDS";

fn main() -> ExitCode {
    let has = |flag: &str| env::args().any(|argument| argument == flag);
    // As Criterion decides it: without `--bench` it is `cargo test` that runs this program.
    let measuring = has("--bench") && !has("--test") && !has("--list");
    let (rounds, samples) = match (measuring, has("--quick")) {
        (false, _) => (1, 1),
        // Criterion's quick mode keeps its last two runs.
        (true, true) => (rounds().unwrap_or(QUICK_ROUNDS), 2),
        (true, false) => (rounds().unwrap_or(ROUNDS), SAMPLES),
    };
    let contenders = contenders();
    if measuring {
        for entry in &contenders {
            if let Some(flaw) = (entry.flaw)() {
                eprintln!("{} cannot be compared: {flaw}", entry.name);
                eprintln!("Build the peers without debug info: see the README of this crate.");
                return ExitCode::FAILURE;
            }
            println!("{}: {}", entry.name, (entry.version)());
        }
    }

    let mut criterion = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT)
        .nresamples(RESAMPLES)
        .without_plots()
        .configure_from_args();
    let plans: Vec<Rc<Plan>> = Workload::all().into_iter().map(Plan::new).collect();
    let names: Vec<&str> = contenders.iter().map(|entry| entry.name).collect();
    let mut table = Table::new(&names, plans.iter().map(|plan| plan.workload().to_string()));
    for round in 0..rounds {
        for (row, plan) in plans.iter().enumerate() {
            for turn in 0..contenders.len() {
                let column = (turn + round + row) % contenders.len();
                let times = measure(&mut criterion, plan, contenders[column], round, measuring);
                let kept = times.len().saturating_sub(samples);
                table.cell(row, column).add_round(&times[kept..]);
            }
        }
    }
    criterion.final_summary();
    if measuring && !table.is_empty() {
        print_table(&table, &contenders, rounds);
    }
    ExitCode::SUCCESS
}

fn rounds() -> Option<usize> {
    env::var(ROUNDS_VARIABLE).ok()?.parse().ok().filter(|rounds| *rounds > 0)
}

/// One run: nanoseconds a pair took in each of Criterion's samples, those of the warm-up first.
fn measure(
    criterion: &mut Criterion,
    plan: &Rc<Plan>,
    entry: Entry,
    round: usize,
    warm: bool,
) -> Vec<f64> {
    let pairs_per_unit = plan.workload().pairs_per_unit();
    let id = BenchmarkId::new(entry.name, format!("round {}", round + 1));
    let group_name = plan.workload().to_string();
    let open = || {
        let mut session = (entry.open)(plan);
        if warm {
            session.run(WARM_UP_PAIRS.div_ceil(pairs_per_unit));
        }
        session
    };
    // Criterion's quick mode counts the time, and warms nothing up.
    let mut session = asked_for(&format!("{group_name}/{}", entry.name)).then(open);
    let mut times = Vec::new();
    let mut group = criterion.benchmark_group(group_name);
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(pairs_per_unit));
    group.bench_function(id, |bencher| {
        let session = session.get_or_insert_with(open);
        bencher.iter_custom(|units| {
            let start = thread_time();
            session.run(units);
            let elapsed = thread_time() - start;
            times.push(elapsed.as_secs_f64() * 1e9 / (units * pairs_per_unit) as f64);
            elapsed
        });
    });
    group.finish();
    times
}

/// Whether Criterion will probably not skip this run. It decides by itself; this saves time.
fn asked_for(name: &str) -> bool {
    let mut filters = env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

fn print_table(table: &Table, contenders: &[Entry], rounds: usize) {
    println!("\n## spanalloc and its peers, {rounds} interleaved rounds\n");
    for entry in contenders {
        println!("- {}: {}", entry.name, (entry.version)());
    }
    // Without the peers, the system's malloc comes second.
    let rival = contenders.get(1).map_or("system", |entry| entry.name);
    println!("\n{}", table.markdown(rival));
    for own in contenders.iter().filter(|entry| entry.name.starts_with("spanalloc")) {
        if let Some(ratio) = table.mean_ratio(own.name, rival) {
            println!("{} takes {ratio:.3} times the time of {rival} (geometric mean).", own.name);
        }
    }
}
