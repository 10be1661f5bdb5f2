//! What a comparison measured, as it is kept in JSON, and the figures that follow from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contenders;

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// When, where and how it ran.
    pub about: About,
    /// The contenders, in the order of the cells of a row.
    pub contenders: Vec<ContenderInfo>,
    /// Contenders that did not take part.
    pub skipped: Vec<Skipped>,
    /// The workloads.
    pub rows: Vec<Row>,
}

/// When, where and how a comparison ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// When it ended, in UTC.
    pub date: String,
    /// The command line.
    pub command: String,
    /// Rounds that were run.
    pub rounds: usize,
    /// Whether the workloads were the short ones.
    pub quick: bool,
    /// The machine.
    pub machine: Machine,
    /// The compiler.
    pub rustc: String,
    /// The version of spanalloc.
    pub spanalloc: String,
}

/// The machine of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its processor.
    pub cpu: String,
    /// Cores a program can use.
    pub cores: usize,
    /// Its memory.
    pub memory_bytes: u64,
    /// The version of the kernel.
    pub kernel: String,
    /// The C library.
    pub libc: String,
    /// When the kernel gives out huge pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: String,
}

/// An allocator that took part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContenderInfo {
    /// Its name in the tables.
    pub name: String,
    /// Which version of it ran.
    pub version: String,
    /// How it was built and run, where that is not plain.
    pub notes: String,
}

/// An allocator that did not take part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name in the tables.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A workload on every contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The name of the workload.
    pub workload: String,
    /// The group it belongs to.
    pub group: String,
    /// How many threads it runs.
    pub threads: usize,
    /// One cell for each contender, in their order.
    pub cells: Vec<Cell>,
}

/// A workload on a contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// One sample of each round that ended well.
    pub samples: Vec<Sample>,
}

/// One run of a workload, in a process of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time of an operation: of the thread if there is one, else on the wall.
    pub nanoseconds: f64,
    /// Time that all threads and the system computed for the process, its start and end included,
    /// for each operation.
    pub cpu_nanoseconds: f64,
    /// The most memory the process held at a time.
    pub peak_rss_bytes: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Latencies of single operations, where the workload takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// What else the workload measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Percentiles of the latency of an operation, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the operations took no longer.
    pub p50: f64,
    /// One of 100 took longer.
    pub p99: f64,
    /// One of 1000 took longer.
    pub p999: f64,
}

/// What a table or a chart shows of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Time of an operation, in nanoseconds.
    Time,
    /// Peak RSS, in bytes.
    Memory,
}

impl Measure {
    /// Whom spanalloc has to beat: in time all peers; in memory those that are built for speed.
    #[must_use]
    pub fn rivals(self) -> fn(&str) -> bool {
        match self {
            Self::Time => contenders::is_peer,
            Self::Memory => contenders::is_fast_peer,
        }
    }

    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Time => sample.nanoseconds,
            Self::Memory => sample.peak_rss_bytes as f64,
        }
    }
}

impl Cell {
    /// The median over the rounds.
    #[must_use]
    pub fn median(&self, measure: Measure) -> Option<f64> {
        self.median_of(|sample| Some(measure.of(sample)))
    }

    /// The median of anything over the samples that have it.
    #[must_use]
    pub fn median_of(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(of).collect())
    }

    /// Half the distance between the least and the most, as a part of the median.
    #[must_use]
    pub fn spread(&self, measure: Measure) -> Option<f64> {
        let values = || self.samples.iter().map(|sample| measure.of(sample));
        let least = values().reduce(f64::min)?;
        let most = values().reduce(f64::max)?;
        Some((most - least) / 2.0 / self.median(measure)?)
    }
}

/// The middle value, or the mean of the two in the middle.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

/// The geometric mean.
#[must_use]
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values {
        sum += value.ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

impl Row {
    /// The median of a contender over the rounds.
    #[must_use]
    pub fn median(&self, contender: usize, measure: Measure) -> Option<f64> {
        self.cells.get(contender)?.median(measure)
    }

    /// A contender's median as a part of another's.
    #[must_use]
    pub fn ratio(&self, contender: usize, other: usize, measure: Measure) -> Option<f64> {
        Some(self.median(contender, measure)? / self.median(other, measure)?)
    }
}

impl Results {
    /// The place of a contender.
    #[must_use]
    pub fn contender(&self, name: &str) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.name == name)
    }

    /// The groups, in the order in which they first come.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group.as_str()) {
                groups.push(&row.group);
            }
        }
        groups
    }
}

impl Results {
    /// The best of spanalloc's rivals in a row.
    #[must_use]
    pub fn best_rival(&self, row: &Row, measure: Measure) -> Option<usize> {
        let among = measure.rivals();
        let medians = (0..self.contenders.len())
            .filter(|&place| among(&self.contenders[place].name))
            .filter_map(|place| Some((place, row.median(place, measure)?)));
        medians.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
    }

    /// The geometric mean over the rows of one group, or of all, of the ratio of two contenders,
    /// each of which may be another one in each row. Rows that lack one of the two do not count.
    #[must_use]
    pub fn mean_ratio(
        &self,
        measure: Measure,
        group: Option<&str>,
        contender: impl Fn(&Row) -> Option<usize>,
        other: impl Fn(&Row) -> Option<usize>,
    ) -> Option<f64> {
        let rows = self.rows.iter().filter(|row| group.is_none_or(|group| row.group == group));
        geometric_mean(rows.filter_map(|row| row.ratio(contender(row)?, other(row)?, measure)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{
        About, Cell, ContenderInfo, Latency, Machine, Measure, Results, Row, Sample,
        geometric_mean, median,
    };

    fn cell(times: &[f64], megabytes: u64) -> Cell {
        let sample = |&nanoseconds: &f64| Sample {
            nanoseconds,
            peak_rss_bytes: megabytes * 1_000_000,
            minor_faults: 250,
            ..Sample::default()
        };
        Cell { samples: times.iter().map(sample).collect() }
    }

    fn row(workload: &str, group: &str, cells: Vec<Cell>) -> Row {
        Row { workload: workload.into(), group: group.into(), threads: 1, cells }
    }

    /// Two rows on five contenders: spanalloc wins one of them and loses the other.
    pub(crate) fn two_rows() -> Results {
        let names = ["spanalloc", "spanalloc checked", "system", "mimalloc v3", "floor"];
        let contender = |name: &str| ContenderInfo {
            name: name.into(),
            version: "1.2.3".into(),
            notes: String::new(),
        };
        let mut won = vec![
            cell(&[5.0, 4.0, 6.0], 1),
            cell(&[6.0], 2),
            cell(&[20.0], 1),
            cell(&[10.0, 30.0, 9.0], 4),
            cell(&[1.0], 1),
        ];
        won[0].samples[0].figures = BTreeMap::from([("bytes an object".to_owned(), 9.75)]);
        won[3].samples[0].latency = Some(Latency { p50: 20.0, p99: 45.0, p999: 1234.0 });
        let lost = vec![
            cell(&[80.0], 8),
            cell(&[100.0], 16),
            cell(&[20.0], 3),
            cell(&[40.0], 4),
            Cell::default(),
        ];
        Results {
            about: About {
                date: "2000-01-01T00:00:00Z".into(),
                command: "compare".into(),
                rounds: 3,
                quick: false,
                machine: Machine {
                    cpu: "abacus".into(),
                    cores: 2,
                    memory_bytes: 24_000_000_000,
                    kernel: "6.1".into(),
                    libc: "glibc 2.36".into(),
                    transparent_huge_pages: "madvise".into(),
                },
                rustc: "rustc 1.95.0".into(),
                spanalloc: "0.1.0".into(),
            },
            contenders: names.map(contender).into(),
            skipped: Vec::new(),
            rows: vec![row("pair-64", "Pairs", won), row("larson-8", "Threads", lost)],
        }
    }

    #[test]
    fn medians_means_and_spreads() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        assert!((geometric_mean([0.5, 8.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
        let cell = cell(&[10.0, 30.0, 9.0], 1);
        assert_eq!(cell.median(Measure::Time), Some(10.0));
        assert!((cell.spread(Measure::Time).unwrap() - 1.05).abs() < 1e-12);
        assert_eq!(cell.spread(Measure::Memory), Some(0.0));
        assert_eq!(Cell::default().spread(Measure::Time), None);
    }

    #[test]
    fn the_floor_is_no_rival_and_the_system_none_in_memory() {
        let results = two_rows();
        let rivals = |measure| {
            let best = results.rows.iter().map(|row| results.best_rival(row, measure));
            best.map(|best| best.map(|place| results.contenders[place].name.as_str()))
                .collect::<Vec<_>>()
        };
        assert_eq!(rivals(Measure::Time), [Some("mimalloc v3"), Some("system")]);
        assert_eq!(rivals(Measure::Memory), [Some("mimalloc v3"), Some("mimalloc v3")]);
    }

    #[test]
    fn ratios_are_those_of_medians() {
        let results = two_rows();
        let mimalloc = |_: &Row| results.contender("mimalloc v3");
        let own = |_: &Row| results.contender("spanalloc");
        let best = |row: &Row| results.best_rival(row, Measure::Time);
        let near = |ratio: Option<f64>, expected: f64| (ratio.unwrap() - expected).abs() < 1e-12;
        let time = Measure::Time;
        assert!(near(results.rows[0].ratio(0, 3, time), 0.5));
        assert!(near(results.mean_ratio(time, None, own, mimalloc), 1.0));
        assert!(near(results.mean_ratio(time, Some("Threads"), own, mimalloc), 2.0));
        assert!(near(results.mean_ratio(time, None, own, best), 2f64.sqrt()));
        assert!(near(results.mean_ratio(Measure::Memory, None, own, mimalloc), 0.5f64.sqrt()));
        // The floor has no cell in the second row.
        assert!(near(results.mean_ratio(time, None, |_| Some(4), mimalloc), 0.1));
        assert_eq!(results.mean_ratio(time, Some("Threads"), |_| Some(4), mimalloc), None);
        assert_eq!(results.groups(), ["Pairs", "Threads"]);
    }

    #[test]
    fn json_keeps_everything() {
        let results = two_rows();
        let json = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), results);
    }
}
