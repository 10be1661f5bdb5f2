use core::fmt;

use spanalloc_cache::Snapshot;

use super::figures::{ClassFigures, Figures, classes};

/// A snapshot, told: [`Display`](fmt::Display) is a table for people, [`json`](Self::json),
/// [`prometheus`](Self::prometheus) and [`xml`](Self::xml) are for programs. With the feature `serde`
/// it can be serialized; that gives what `json` does.
///
/// All of them tell the same [`Figures`].
#[derive(Clone, Copy, Debug)]
pub struct Report<'s> {
    snapshot: &'s Snapshot,
    figures: Figures,
}

impl<'s> Report<'s> {
    /// Of this snapshot.
    #[must_use]
    pub fn of(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, figures: Figures::of(snapshot) }
    }

    /// The sums.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The size classes that have spans, the tiny slots first.
    pub fn classes(&self) -> impl Iterator<Item = ClassFigures> + 's {
        classes(self.snapshot)
    }

    pub(super) fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.title(out, "heap: ")?;
        self.table(out, false)
    }
}

impl ClassFigures {
    /// The figures by the names that JSON has for them.
    pub(super) fn named(&self) -> [(&'static str, usize); 8] {
        [
            ("slot_bytes", self.slot_bytes),
            ("spans", self.spans),
            ("bytes", self.bytes),
            ("objects", self.objects),
            ("live", self.live),
            ("cached", self.cached),
            ("free", self.free),
            ("tails", self.tails),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::METRICS;
    use super::super::figures::tests::busy;
    use super::*;

    fn text(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut text = String::new();
        write(&mut text).unwrap();
        text
    }

    #[test]
    fn a_table_has_straight_columns() {
        let table = Report::of(&busy()).to_string();
        assert!(table.starts_with("heap: 132 objects live, "), "{table}");
        let bars: Vec<_> = table
            .lines()
            .filter(|line| line.contains(" |   ") && line.matches('|').count() == 3)
            .collect();
        assert!(bars.len() > 8, "{table}");
        for bar in bars {
            let columns = bar.split('|').map(|part| part.chars().count());
            assert_eq!(columns.skip(1).take(2).collect::<Vec<_>>(), [18, 24], "{bar}");
        }
        assert!(table.ends_with(" beside the arenas\n"), "{table}");
    }

    #[test]
    fn every_format_tells_every_figure() {
        let snapshot = busy();
        let report = Report::of(&snapshot);
        let json = text(|out| report.json(out));
        let xml = text(|out| report.xml(out));
        let prometheus = text(|out| report.prometheus(out));
        for metric in METRICS {
            let value = metric.of(report.figures());
            let pair = format!("\"{}\":{value},", metric.name);
            assert!(json.contains(&pair), "{pair} is not in {json}");
            let element = format!("<metric name=\"{}\" value=\"{value}\"/>\n", metric.name);
            assert!(xml.contains(&element), "{element} is not in {xml}");
            let path = metric.name.strip_prefix("/spanalloc").unwrap_or(metric.name);
            let total = if metric.counts { "_total" } else { "" };
            let name = format!("spanalloc{}{total}", path.replace(['/', ':'], "_"));
            let sample = format!("\n{name} {value}\n");
            assert!(prometheus.contains(&sample), "{sample} is not in {prometheus}");
        }
    }

    #[test]
    fn json_has_the_classes() {
        let json = text(|out| Report::of(&busy()).json(out));
        let classes = "\"classes\":[{\"tiny\":true,\"slot_bytes\":16,\"spans\":1,\"bytes\":8192,\
            \"objects\":30,\"live\":192,\"cached\":0,\"free\":8000,\"tails\":0},\
            {\"tiny\":false,\"slot_bytes\":48,\"spans\":1,\"bytes\":8192,\
            \"objects\":100,\"live\":4800,\"cached\":960,\"free\":2400,\"tails\":32}]}\n";
        assert!(json.ends_with(classes), "{json}");
        let empty = text(|out| Report::of(&Snapshot::EMPTY).json(out));
        assert!(empty.ends_with("\"classes\":[]}\n"), "{empty}");
    }

    #[test]
    fn prometheus_has_a_type_before_each_family_and_no_sample_twice() {
        let text = text(|out| Report::of(&busy()).prometheus(out));
        let mut seen = std::collections::HashSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} comes twice");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next(), Some(family), "{line}");
            assert!(seen.insert(sample) || sample == family, "{line} comes twice");
            value.parse::<usize>().unwrap();
        }
        assert!(text.contains("\nspanalloc_class_bytes{class=\"48\",state=\"free\"} 2400\n"));
        assert!(text.contains("\nspanalloc_class_objects{class=\"tiny16\"} 30\n"), "{text}");
    }

    #[test]
    fn xml_is_in_the_form_of_glibc() {
        let xml = text(|out| Report::of(&busy()).xml(out));
        assert!(xml.starts_with("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n"), "{xml}");
        assert!(xml.contains("\" to=\"48\" total=\"3360\" count=\"70\"/>\n"), "{xml}");
        assert!(xml.contains("<total type=\"mmap\" count=\"2\" size=\"147456\"/>\n"), "{xml}");
        assert!(xml.ends_with("/>\n</malloc>\n"), "{xml}");
    }
}
