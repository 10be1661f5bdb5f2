//! The results of a comparison as Markdown.

use std::collections::BTreeSet;

use crate::contenders::{CHECKED, FLOOR, MIMALLOC3, SPANALLOC};
use crate::results::{Cell, Latency, Measure, Results, Row};

/// Above this ratio to the best rival of a row, the row is a loss.
const LOSS: f64 = 1.10;
/// What stands where nothing was measured.
const NOTHING: &str = "–";

const TIME: &str = "Nanoseconds an operation: computed by the thread, or on the wall if there are \
                    several threads.";
const MEMORY: &str = "Megabytes that the process held at most. The best peer is the leanest of all \
                      but the system's allocator.";
const CELLS: &str = "A cell has the median of the rounds and half the distance between the least \
                     and the most of them. A ratio above 1 is a loss.";

/// Everything a comparison found.
#[must_use]
pub fn render(results: &Results) -> String {
    let mut text = String::from("# spanalloc and its peers\n\n");
    text += &about(results);
    for (measure, title, note) in
        [(Measure::Time, "Time", TIME), (Measure::Memory, "Peak RSS", MEMORY)]
    {
        text += &format!("## {title}\n\n{note} {CELLS}\n\n");
        text += &means(results, measure);
        text += &losses(results, measure);
        text += &rows(results, measure);
    }
    text += &floor(results);
    text += &latencies(results);
    text += &figures(results);
    text += &faults(results);
    text.trim_end().to_owned() + "\n"
}

/// What ran where.
fn about(results: &Results) -> String {
    let about = &results.about;
    let machine = &about.machine;
    let mut text = format!(
        "`{}`\n\n{}; {} rounds{}; {} cores of {}, {:.0} GB; Linux {}, {}, transparent huge pages: {}; {}\n\n",
        about.command,
        about.date,
        about.rounds,
        if about.quick { " of short workloads" } else { "" },
        machine.cores,
        machine.cpu,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
        machine.libc,
        machine.transparent_huge_pages,
        about.rustc,
    );
    for contender in &results.contenders {
        let notes = if contender.notes.is_empty() { "" } else { "; " };
        text += &format!("- {}: {}{notes}{}\n", contender.name, contender.version, contender.notes);
    }
    for skipped in &results.skipped {
        let reason = skipped.reason.split_whitespace().collect::<Vec<_>>().join(" ");
        text += &format!("- **not measured: {}**: {reason}\n", skipped.name);
    }
    text + "\n"
}

/// Geometric means of ratios, over all rows and by group.
fn means(results: &Results, measure: Measure) -> String {
    let mimalloc = |_: &Row| results.contender(MIMALLOC3);
    let best = |row: &Row| results.best_rival(row, measure);
    let mut table = Table::new(["geometric means", "rows"]);
    for own in [SPANALLOC, CHECKED] {
        table.column(format!("{own} / best peer"));
    }
    let compared: Vec<usize> = (0..results.contenders.len())
        .filter(|&place| results.contenders[place].name != MIMALLOC3)
        .collect();
    for &place in &compared {
        table.column(format!("{} / {MIMALLOC3}", results.contenders[place].name));
    }
    table.column(format!("best peer / {MIMALLOC3}"));
    let groups = results.groups();
    for group in std::iter::once(None).chain(groups.into_iter().map(Some)) {
        let is_in = |row: &&Row| group.is_none_or(|group| row.group == group);
        let mut line = vec![
            group.map_or("**all**".to_owned(), str::to_owned),
            results.rows.iter().filter(is_in).count().to_string(),
        ];
        for own in [SPANALLOC, CHECKED] {
            let own = |_: &Row| results.contender(own);
            line.push(ratio(results.mean_ratio(measure, group, own, best)));
        }
        for &place in &compared {
            line.push(ratio(results.mean_ratio(measure, group, |_| Some(place), mimalloc)));
        }
        line.push(ratio(results.mean_ratio(measure, group, best, mimalloc)));
        table.line(line);
    }
    table.markdown()
}

/// The rows in which spanalloc is behind.
fn losses(results: &Results, measure: Measure) -> String {
    let mut text = String::new();
    for own in [SPANALLOC, CHECKED] {
        let Some(place) = results.contender(own) else { continue };
        let lost = |row: &Row| {
            let best = results.best_rival(row, measure)?;
            let times = row.ratio(place, best, measure).filter(|&ratio| ratio > LOSS)?;
            let name = &results.contenders[best].name;
            let (mine, its) = (row.median(place, measure)?, row.median(best, measure)?);
            let (mine, its) = (in_unit(measure, mine), in_unit(measure, its));
            Some(format!("- {}: {times:.2} x {name} ({mine} against {its})\n", row.workload))
        };
        let lines: Vec<String> = results.rows.iter().filter_map(lost).collect();
        let end = if lines.is_empty() { "." } else { ":\n\n" };
        text += &format!(
            "{own} is above {LOSS:.2} x the best peer in {} of {} rows{end}{}\n\n",
            lines.len(),
            results.rows.len(),
            lines.concat().trim_end()
        );
    }
    text
}

/// Every row with the median of every contender.
fn rows(results: &Results, measure: Measure) -> String {
    let mut table = Table::new(["workload"]);
    for contender in &results.contenders {
        table.column(contender.name.clone());
    }
    for own in [SPANALLOC, CHECKED] {
        table.column(format!("{own} / {MIMALLOC3}"));
        table.column(format!("{own} / best peer"));
    }
    table.column("best peer".to_owned());
    for row in &results.rows {
        let best = results.best_rival(row, measure);
        let mut line = vec![row.workload.clone()];
        line.extend(row.cells.iter().map(|cell| with_spread(cell, measure)));
        for own in [SPANALLOC, CHECKED] {
            let to = |other: Option<usize>| row.ratio(results.contender(own)?, other?, measure);
            line.push(ratio(to(results.contender(MIMALLOC3))));
            line.push(ratio(to(best)));
        }
        line.push(best.map_or(NOTHING, |place| &results.contenders[place].name).to_owned());
        table.line(line);
    }
    table.markdown()
}

/// How far the allocators are from one that does next to nothing.
fn floor(results: &Results) -> String {
    let note = "Time as a multiple of a bump allocator's that never frees.";
    section(results, "## Floor", note, |row, place| {
        let floor = results.contender(FLOOR)?;
        row.ratio(place, floor, Measure::Time).map(|times| format!("{times:.2}"))
    })
}

/// Percentiles of the latency, where workloads take them.
fn latencies(results: &Results) -> String {
    let note = "Nanoseconds of single operations: p50 / p99 / p99.9, medians of the rounds. The time \
                that the clock takes is in them.";
    section(results, "## Latency", note, |row, place| {
        let of = |pick: fn(Latency) -> f64| row.cells[place].median_of(|it| it.latency.map(pick));
        let three = [of(|it| it.p50)?, of(|it| it.p99)?, of(|it| it.p999)?];
        Some(three.map(number).join(" / "))
    })
}

/// What workloads measured besides.
fn figures(results: &Results) -> String {
    let cells = results.rows.iter().flat_map(|row| &row.cells);
    let samples = cells.flat_map(|cell| &cell.samples);
    let names: BTreeSet<&String> = samples.flat_map(|sample| sample.figures.keys()).collect();
    let one = |name: &String| {
        section(results, &format!("### {name}"), "", |row, place| {
            row.cells[place].median_of(|sample| sample.figures.get(name).copied()).map(number)
        })
    };
    let tables: String = names.into_iter().map(one).collect();
    if tables.is_empty() { tables } else { format!("## Figures\n\n{tables}") }
}

/// Page faults.
fn faults(results: &Results) -> String {
    let note = "Of the whole process, those that needed no disk; medians of the rounds.";
    section(results, "## Page faults", note, |row, place| {
        row.cells[place].median_of(|sample| Some(sample.minor_faults as f64)).map(number)
    })
}

/// A table with a column for each contender and a line for each row that has anything; nothing if
/// none has.
fn section(
    results: &Results,
    heading: &str,
    note: &str,
    cell: impl Fn(&Row, usize) -> Option<String>,
) -> String {
    let mut table = Table::new(["workload"]);
    results.contenders.iter().for_each(|contender| table.column(contender.name.clone()));
    for row in &results.rows {
        let cells: Vec<_> = (0..results.contenders.len()).map(|place| cell(row, place)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| NOTHING.to_owned()));
            table.line(std::iter::once(row.workload.clone()).chain(cells).collect());
        }
    }
    if table.lines.is_empty() {
        return String::new();
    }
    let note = if note.is_empty() { String::new() } else { format!("{note}\n\n") };
    format!("{heading}\n\n{note}{}", table.markdown())
}

/// A table, whose first column is text and whose others are numbers.
struct Table {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).into(), lines: Vec::new() }
    }

    fn column(&mut self, name: String) {
        self.head.push(name);
    }

    fn line(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    fn markdown(&self) -> String {
        let rule: Vec<&str> = std::iter::once("---")
            .chain(std::iter::repeat_n("---:", self.head.len() - 1))
            .collect();
        let mut text = format!("| {} |\n|{}|\n", self.head.join(" | "), rule.join("|"));
        for line in &self.lines {
            text += &format!("| {} |\n", line.join(" | "));
        }
        text + "\n"
    }
}

/// The median of a cell and its spread.
fn with_spread(cell: &Cell, measure: Measure) -> String {
    let (Some(median), Some(spread)) = (cell.median(measure), cell.spread(measure)) else {
        return NOTHING.to_owned();
    };
    let shown = in_unit(measure, median);
    if cell.samples.len() == 1 { shown } else { format!("{shown} ±{:.0} %", spread * 100.0) }
}

/// A median in the unit of the tables.
fn in_unit(measure: Measure, median: f64) -> String {
    match measure {
        Measure::Time => number(median),
        Measure::Memory => number(median / 1e6),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or(NOTHING.to_owned(), |value| format!("{value:.2}"))
}

/// A number with about three digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let zeros = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    if text.contains('.') { zeros(&text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::{number, render};
    use crate::results::{Skipped, tests::two_rows};

    #[test]
    fn tables_show_medians_ratios_and_losses() {
        let mut results = two_rows();
        results.skipped.push(Skipped { name: "snmalloc".into(), reason: "no\n  compiler".into() });
        let text = render(&results);
        for part in [
            "\n- **not measured: snmalloc**: no compiler\n",
            // Medians, spread, ratios of both, the best peer.
            "\n| pair-64 | 5 ±20 % | 6 | 20 | 10 ±105 % | 1 | 0.50 | 0.50 | 0.60 | 0.60 | mimalloc v3 |\n",
            "\n| larson-8 | 80 | 100 | 20 | 40 | – | 2.00 | 4.00 | 2.50 | 5.00 | system |\n",
            "\n| pair-64 | 1 ±0 % | 2 | 1 | 4 ±0 % | 1 | 0.25 | 0.25 | 0.50 | 0.50 | mimalloc v3 |\n",
            // Means: both to the best peer, all to mimalloc, the best peer to mimalloc.
            "\n| **all** | 2 | 1.41 | 1.73 | 1.00 | 1.22 | 1.00 | 0.10 | 0.71 |\n",
            "\n| Threads | 1 | 4.00 | 5.00 | 2.00 | 2.50 | 0.50 | – | 0.50 |\n",
            "spanalloc is above 1.10 x the best peer in 1 of 2 rows:\n\n\
             - larson-8: 4.00 x system (80 against 20)\n",
            "- larson-8: 2.00 x mimalloc v3 (8 against 4)\n",
            "\n| pair-64 | 5.00 | 6.00 | 20.00 | 10.00 | 1.00 |\n",
            "\n| pair-64 | – | – | – | 20 / 45 / 1234 | – |\n",
            "\n### bytes an object\n",
            "\n| pair-64 | 9.75 | – | – | – | – |\n",
            "\n| larson-8 | 250 | 250 | 250 | 250 | – |\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let mut results = two_rows();
        results.rows.remove(0);
        let text = render(&results);
        assert!(!text.contains("## Latency") && !text.contains("## Figures"));
        assert!(!text.contains("## Floor") && text.contains("## Page faults"));
    }

    #[test]
    fn numbers_have_about_three_digits() {
        let texts = [0.126, 9.5, 12.34, 100.0, 99.96, 12345.6].map(number);
        assert_eq!(texts, ["0.13", "9.5", "12.3", "100", "100", "12346"]);
    }
}
