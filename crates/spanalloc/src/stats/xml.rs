//! A report as XML, in the form of glibc's `malloc_info`.

use core::fmt::{Result, Write};

use super::pen::Pen;
use super::{METRICS, Report};

impl Report<'_> {
    /// Writes what `malloc_info` of glibc does: free slots by size, and sums. All figures follow by their names
    /// in [`METRICS`], as `<metric name="..." value="..."/>`. Allocates nothing.
    ///
    /// # Errors
    /// If `out` has one.
    pub fn xml(&self, out: &mut (impl Write + ?Sized)) -> Result {
        let figures = self.figures();
        let mut pen = Pen::new(out);
        pen.put("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n");
        // A slot of a class holds what is larger than the slots of the class before.
        let mut below = 0;
        for row in &self.snapshot().classes {
            let free = row.free + row.freed + row.cached;
            if free > 0 {
                pen.put("  <size from=\"").number(below + 1);
                pen.put("\" to=\"").number(row.slot_bytes);
                pen.put("\" total=\"").number(free * row.slot_bytes);
                pen.put("\" count=\"").number(free).put("\"/>\n");
            }
            below = row.slot_bytes;
        }
        pen.put("</sizes>\n");
        let rest = figures.idle() + figures.free;
        let arena = figures.ready.saturating_sub(figures.live_large);
        for (end, reserved) in [("</heap>\n", arena), ("</malloc>\n", figures.reserved)] {
            total(&mut pen, "fast", figures.cached_slots, figures.cached);
            total(&mut pen, "rest", figures.free_slots, rest);
            if end == "</malloc>\n" {
                total(&mut pen, "mmap", figures.large_objects, figures.live_large);
            }
            size(&mut pen, "system", "current", arena);
            size(&mut pen, "aspace", "total", reserved);
            size(&mut pen, "aspace", "mprotect", arena);
            if end == "</malloc>\n" {
                for metric in METRICS {
                    pen.put("<metric name=\"").put(metric.name).put("\" value=\"");
                    pen.number(metric.of(figures)).put("\"/>\n");
                }
            }
            pen.put(end);
        }
        pen.end()
    }
}

fn total(pen: &mut Pen<'_, impl Write + ?Sized>, kind: &str, count: usize, bytes: usize) {
    pen.put("<total type=\"").put(kind).put("\" count=\"").number(count);
    pen.put("\" size=\"").number(bytes).put("\"/>\n");
}

fn size(pen: &mut Pen<'_, impl Write + ?Sized>, name: &str, kind: &str, bytes: usize) {
    pen.put("<").put(name).put(" type=\"").put(kind);
    pen.put("\" size=\"").number(bytes).put("\"/>\n");
}
