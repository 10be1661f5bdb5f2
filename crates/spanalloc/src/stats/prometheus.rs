//! A report in the text format of Prometheus.

use core::fmt::{Result, Write};

use super::pen::Pen;
use super::{ClassFigures, METRICS, Metric, Report};

impl Report<'_> {
    /// Writes the figures in the text exposition format of Prometheus, version 0.0.4. Allocates nothing.
    ///
    /// Their names are those of [`METRICS`], as other programs in Go have them, but for the first word:
    /// `/memory/classes/heap/free:bytes` is `spanalloc_memory_classes_heap_free_bytes`. Size
    /// classes have labels.
    ///
    /// # Errors
    /// If `out` has one.
    pub fn prometheus(&self, out: &mut (impl Write + ?Sized)) -> Result {
        let mut pen = Pen::new(out);
        for metric in METRICS {
            let kind = if metric.counts { " counter\n" } else { " gauge\n" };
            name(pen.put("# HELP "), metric).put(" ").put(metric.help);
            name(pen.put("\n# TYPE "), metric).put(kind);
            name(&mut pen, metric).put(" ").number(metric.of(self.figures())).put("\n");
        }
        self.family(&mut pen, "bytes", "Bytes of the spans of a size class.", |class| {
            [
                (",state=\"live\"", class.live),
                (",state=\"cached\"", class.cached),
                (",state=\"free\"", class.free),
                (",state=\"tail\"", class.tails),
            ]
        });
        self.family(&mut pen, "objects", "Live objects of a size class.", |class| {
            [("", class.objects)]
        });
        self.family(&mut pen, "spans", "Spans of a size class.", |class| [("", class.spans)]);
        pen.end()
    }

    /// A figure that each class has.
    fn family<const N: usize>(
        &self,
        pen: &mut Pen<'_, impl Write + ?Sized>,
        name: &str,
        help: &str,
        values: fn(&ClassFigures) -> [(&'static str, usize); N],
    ) {
        pen.put("# HELP spanalloc_class_").put(name).put(" ").put(help);
        pen.put("\n# TYPE spanalloc_class_").put(name).put(" gauge\n");
        for class in self.classes() {
            for (state, value) in values(&class) {
                pen.put("spanalloc_class_").put(name).put("{class=\"");
                pen.put(if class.tiny { "tiny" } else { "" });
                pen.number(class.slot_bytes).put("\"").put(state);
                pen.put("} ").number(value).put("\n");
            }
        }
    }
}

/// The name of a metric, in the characters that names have there.
fn name<'a, 'w, W: Write + ?Sized>(pen: &'a mut Pen<'w, W>, metric: &Metric) -> &'a mut Pen<'w, W> {
    let own = metric.name.strip_prefix("/spanalloc").unwrap_or(metric.name);
    pen.put("spanalloc");
    for part in own.split(['/', ':']).filter(|part| !part.is_empty()) {
        pen.put("_").put(part);
    }
    pen.put(if metric.counts { "_total" } else { "" })
}
