//! From samples to the table.

use std::fmt;

/// Nanoseconds a pair took in one row, for one contender: one number a round.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    rounds: Vec<f64>,
}

impl Cell {
    /// Adds a round: the median of its samples, or nothing if there are none.
    pub fn add_round(&mut self, samples: &[f64]) {
        self.rounds.extend(median(samples));
    }

    fn median(&self) -> Option<f64> {
        median(&self.rounds)
    }
}

impl fmt::Display for Cell {
    /// Median, least and most over the rounds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(median) = self.median() else { return f.write_str("-") };
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rounds.iter().copied().fold(0.0, f64::max);
        write!(f, "{median:.2} ({least:.2}-{most:.2})")
    }
}

/// The table: a row for each workload, a column for each contender. The first contender is the one
/// whose ratios are of interest.
#[derive(Clone, Debug)]
pub struct Table {
    contenders: Vec<&'static str>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// A table without numbers.
    #[must_use]
    pub fn new(contenders: &[&'static str], workloads: impl Iterator<Item = String>) -> Self {
        let cells = vec![Cell::default(); contenders.len()];
        let rows = workloads.map(|workload| (workload, cells.clone())).collect();
        Self { contenders: contenders.into(), rows }
    }

    /// The cell of a row and a column; both count from 0.
    pub fn cell(&mut self, row: usize, column: usize) -> &mut Cell {
        &mut self.rows[row].1[column]
    }

    /// Whether there is a row with numbers for every contender.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.complete_rows().is_empty()
    }

    /// Rows that have a number for every contender.
    fn complete_rows(&self) -> Vec<(&str, Vec<f64>)> {
        let complete = self.rows.iter().filter_map(|(workload, cells)| {
            let medians: Option<Vec<f64>> = cells.iter().map(Cell::median).collect();
            Some((workload.as_str(), medians?))
        });
        complete.collect()
    }

    /// The geometric mean of one contender's times over another's.
    #[must_use]
    pub fn mean_ratio(&self, of: &str, to: &str) -> Option<f64> {
        let column = |name| self.contenders.iter().position(|contender| *contender == name);
        let (of, to) = (column(of)?, column(to)?);
        let ratios: Vec<f64> =
            self.complete_rows().iter().map(|(_, medians)| medians[of] / medians[to]).collect();
        geometric_mean(&ratios)
    }

    /// The table in Markdown; `rival` names the contender that gets a column of ratios.
    #[must_use]
    pub fn markdown(&self, rival: &str) -> String {
        let mut text =
            format!("| ns per pair: median (least-most) | {} |", self.contenders.join(" | "));
        text += &format!(
            " / {rival} | / best other |\n|---|{}\n",
            "---:|".repeat(self.contenders.len() + 2)
        );
        let rival_column = self.contenders.iter().position(|contender| *contender == rival);
        for (workload, cells) in &self.rows {
            if cells.iter().all(|cell| cell.rounds.is_empty()) {
                continue;
            }
            let cells_text: Vec<String> = cells.iter().map(Cell::to_string).collect();
            text += &format!("| {workload} | {} |", cells_text.join(" | "));
            let medians: Vec<Option<f64>> = cells.iter().map(Cell::median).collect();
            text += &self.ratios(&medians, rival_column);
        }
        let complete = self.complete_rows();
        let means: Vec<Option<f64>> = (0..self.contenders.len())
            .map(|column| {
                let times: Vec<f64> = complete.iter().map(|(_, medians)| medians[column]).collect();
                geometric_mean(&times)
            })
            .collect();
        let means_text: Vec<String> =
            means.iter().map(|mean| mean.map_or("-".into(), |mean| format!("{mean:.2}"))).collect();
        text += &format!("| **geometric mean** | {} |", means_text.join(" | "));
        text += &self.ratios(&means, rival_column);
        text
    }

    /// The last two columns of a row.
    fn ratios(&self, times: &[Option<f64>], rival: Option<usize>) -> String {
        let ratio = |column: usize| Some((*times.first()?)? / (*times.get(column)?)?);
        let own = |column: &usize| self.contenders[*column].starts_with("spanalloc");
        let others = (1..self.contenders.len()).filter(|column| !own(column));
        let best = others.filter_map(|column| Some((ratio(column)?, column)));
        let best = best.max_by(|a, b| a.0.total_cmp(&b.0));
        let rival = rival.and_then(ratio).map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let best = best.map_or("-".into(), |(ratio, column)| {
            format!("{ratio:.2} ({})", self.contenders[column])
        });
        format!(" {rival} | {best} |\n")
    }
}

fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn geometric_mean(numbers: &[f64]) -> Option<f64> {
    let sum: f64 = numbers.iter().map(|number| number.ln()).sum();
    (!numbers.is_empty()).then(|| (sum / numbers.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::{Table, geometric_mean, median};

    #[test]
    fn medians_and_means() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(geometric_mean(&[]), None);
        let mean = geometric_mean(&[2.0, 8.0]).unwrap();
        assert!((mean - 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_table_with_its_ratios() {
        let workloads = ["one", "two", "not run"].map(String::from);
        let mut table = Table::new(&["a", "b", "c"], workloads.into_iter());
        for (row, times) in [[1.0, 2.0, 4.0], [8.0, 4.0, 16.0]].iter().enumerate() {
            for (column, time) in times.iter().enumerate() {
                table.cell(row, column).add_round(&[*time, time * 3.0, time / 3.0]);
            }
        }
        table.cell(0, 0).add_round(&[]);
        table.cell(0, 0).add_round(&[5.0]);
        table.cell(0, 0).add_round(&[0.5]);
        let expected = "\
| ns per pair: median (least-most) | a | b | c | / b | / best other |
|---|---:|---:|---:|---:|---:|
| one | 1.00 (0.50-5.00) | 2.00 (2.00-2.00) | 4.00 (4.00-4.00) | 0.50 | 0.50 (b) |
| two | 8.00 (8.00-8.00) | 4.00 (4.00-4.00) | 16.00 (16.00-16.00) | 2.00 | 2.00 (b) |
| **geometric mean** | 2.83 | 2.83 | 8.00 | 1.00 | 1.00 (b) |
";
        assert_eq!(table.markdown("b"), expected);
        assert!((table.mean_ratio("a", "c").unwrap() - 8f64.sqrt() / 8.0).abs() < 1e-12);
        assert_eq!(table.mean_ratio("a", "nobody"), None);
        assert!(!table.is_empty());
        assert!(Table::new(&["a"], std::iter::once("one".into())).is_empty());
    }
}
