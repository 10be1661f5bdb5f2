//! A report for `serde`: what [`Report::json`] writes.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{METRICS, Report};

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(METRICS.len() + 1))?;
        for metric in METRICS {
            map.serialize_entry(metric.name, &metric.of(self.figures()))?;
        }
        map.serialize_entry("classes", &Classes(self))?;
        map.end()
    }
}

struct Classes<'r, 's>(&'r Report<'s>);

impl Serialize for Classes<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.classes().count()))?;
        for class in self.0.classes() {
            sequence.serialize_element(&class)?;
        }
        sequence.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::busy;
    use super::super::{ClassFigures, Figures};
    use super::*;

    #[test]
    fn it_is_what_json_writes() {
        let snapshot = busy();
        let report = Report::of(&snapshot);
        let mut written = String::new();
        report.json(&mut written).unwrap();
        assert_eq!(written, serde_json::to_string(&report).unwrap() + "\n");
    }

    #[test]
    fn the_parts_can_be_read_again() {
        let snapshot = busy();
        let report = Report::of(&snapshot);
        let text = serde_json::to_string(report.figures()).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), *report.figures());
        for class in report.classes() {
            let text = serde_json::to_string(&class).unwrap();
            assert_eq!(serde_json::from_str::<ClassFigures>(&text).unwrap(), class);
        }
    }
}
