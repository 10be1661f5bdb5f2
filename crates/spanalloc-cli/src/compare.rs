//! Two allocators beside each other.

use std::io::{self, Write};

use crate::format::{bytes, seconds};
use crate::outcome::Outcome;

/// A ratio within this of 1 is no difference.
const EVEN: f64 = 0.05;

/// One figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    /// None if any run lacks the figure, or there is no run.
    fn of(runs: &[Outcome], figure: impl Fn(&Outcome) -> Option<f64>) -> Option<Self> {
        let mut values = runs.iter().map(figure).collect::<Option<Vec<f64>>>()?;
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }

    /// What this figure is beside `other`, where less is better.
    fn beside(self, other: Self) -> &'static str {
        let ratio = self.median / other.median;
        if (ratio - 1.0).abs() <= EVEN || ratio.is_nan() {
            "even"
        } else if self.most < other.least {
            "win"
        } else if self.least > other.most {
            "loss"
        } else {
            "runs overlap"
        }
    }
}

/// Prints the runs of spanalloc beside those of the system's allocator.
pub(crate) fn print(out: &mut impl Write, ours: &[Outcome], theirs: &[Outcome]) -> io::Result<()> {
    writeln!(
        out,
        "{:<22} {:>9} {:>19} {:>9} {:>19} {:>6}",
        "", "spanalloc", "least..most", "system", "least..most", "ratio"
    )?;
    let phases = ours.first().map_or(&[][..], |run| run.phases.as_slice());
    for (place, phase) in phases.iter().enumerate() {
        let time = |run: &Outcome| run.phases.get(place).map(|phase| phase.seconds);
        row(out, &format!("time, {}", phase.name), seconds, ours, theirs, time)?;
    }
    row(out, "time, all of it", seconds, ours, theirs, |run| Some(run.total_seconds()))?;
    let size = |value: f64| bytes(value as u64);
    let mut memory = |name: &str, figure: fn(&Outcome) -> Option<u64>| {
        row(out, name, size, ours, theirs, |run| figure(run).map(|it| it as f64))
    };
    memory("memory, peak", |run| run.memory.peak)?;
    memory("memory, index alive", |run| run.memory.indexed)?;
    memory("memory, after drop", |run| run.memory.dropped)
}

fn row(
    out: &mut impl Write,
    name: &str,
    show: impl Fn(f64) -> String,
    ours: &[Outcome],
    theirs: &[Outcome],
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> io::Result<()> {
    let (Some(ours), Some(theirs)) = (Figure::of(ours, &figure), Figure::of(theirs, &figure))
    else {
        return writeln!(out, "{name:<22} (this system does not tell)");
    };
    let range = |it: Figure| format!("{}..{}", show(it.least), show(it.most));
    writeln!(
        out,
        "{name:<22} {:>9} {:>19} {:>9} {:>19} {:>6.2}  {}",
        show(ours.median),
        range(ours),
        show(theirs.median),
        range(theirs),
        ours.median / theirs.median,
        ours.beside(theirs),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(least: f64, median: f64, most: f64) -> Figure {
        Figure { median, least, most }
    }

    #[test]
    fn a_win_is_outside_the_other_runs() {
        let other = figure(9.0, 10.0, 11.0);
        assert_eq!(figure(6.0, 7.0, 8.0).beside(other), "win");
        assert_eq!(figure(6.0, 7.0, 9.5).beside(other), "runs overlap");
        assert_eq!(figure(12.0, 13.0, 14.0).beside(other), "loss");
        assert_eq!(figure(9.9, 10.2, 10.3).beside(other), "even");
        assert_eq!(figure(0.0, 0.0, 0.0).beside(figure(0.0, 0.0, 0.0)), "even");
    }
}
