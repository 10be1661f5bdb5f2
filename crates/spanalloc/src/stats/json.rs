//! A report as JSON.

use core::fmt::{Result, Write};

use super::pen::Pen;
use super::{METRICS, Report};

impl Report<'_> {
    /// Writes an object on one line: the figures by their names in [`METRICS`], and `classes`, an
    /// array with an object for each size class that has spans. Allocates nothing.
    ///
    /// # Errors
    /// If `out` has one.
    pub fn json(&self, out: &mut (impl Write + ?Sized)) -> Result {
        let mut pen = Pen::new(out);
        let mut before = "{\"";
        for metric in METRICS {
            pen.put(before).put(metric.name).put("\":").number(metric.of(self.figures()));
            before = ",\"";
        }
        pen.put(",\"classes\":[");
        before = "";
        for class in self.classes() {
            pen.put(before).put("{\"tiny\":").put(if class.tiny { "true" } else { "false" });
            for (name, value) in class.named() {
                pen.put(",\"").put(name).put("\":").number(value);
            }
            pen.put("}");
            before = ",";
        }
        pen.put("]}\n");
        pen.end()
    }
}
