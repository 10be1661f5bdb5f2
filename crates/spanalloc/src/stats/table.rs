//! A report for people.

use core::fmt::{Result, Write};

use super::pen::Pen;
use super::{ClassFigures, PAGE_BYTES, Report, Word};

/// Characters of a bar.
const WIDTH: usize = 24;

const LIVE: &str = "█";
const CACHED: &str = "▓";
const FREE: &str = "░";

impl Report<'_> {
    /// Writes one line: `name`, and how much is live.
    ///
    /// # Errors
    /// If `out` has one.
    pub fn title(&self, out: &mut (impl Write + ?Sized), name: &str) -> Result {
        let mut pen = Pen::new(out);
        pen.put(name).word(&Word::count(self.figures().objects)).put(" objects live, ");
        pen.word(&Word::bytes(self.figures().live())).put("\n");
        pen.end()
    }

    /// Writes the table that belongs below the title. Allocates nothing. `more` says whether the caller has
    /// another branch for the tree.
    ///
    /// # Errors
    /// If `out` has one.
    pub fn table(&self, out: &mut (impl Write + ?Sized), more: bool) -> Result {
        let mut pen = Pen::new(out);
        self.arenas(&mut pen);
        self.parts(&mut pen);
        self.spans(&mut pen);
        let figures = self.figures();
        pen.put(" |- large objects   ").word(&Word::count(figures.large_objects)).put(", ");
        pen.word(&Word::bytes(figures.live_large)).put(" in whole pages\n");
        pen.put(" |- thread caches   ").word(&Word::count(figures.threads)).put("\n");
        pen.put(" |- locks           taken ").word(&Word::count(figures.heap_locks));
        pen.put(" times in the heap, ").word(&Word::count(figures.central_locks));
        pen.put(" in the central lists\n");
        pen.put(" |- in memory       ").word(&Word::bytes(figures.resident()));
        pen.put(" with metadata, as far as it was touched\n");
        pen.put(if more { " |" } else { " `" }).put("- metadata        ");
        pen.word(&Word::bytes(figures.metadata_in_use)).put(" in use of ");
        pen.word(&Word::bytes(figures.metadata)).put(", beside the arenas\n");
        pen.end()
    }

    fn arenas(&self, pen: &mut Pen<'_, impl Write + ?Sized>) {
        let figures = self.figures();
        let in_use = figures.in_use();
        pen.put(" |- arenas          ").word(&Word::count(figures.arenas)).put(", ");
        pen.word(&Word::bytes(figures.reserved)).put(" reserved, ");
        pen.word(&Word::bytes(figures.ready)).put(" with memory\n");
        pen.put(" |   `- pages       |");
        pen.bar(WIDTH, figures.reserved, &[(in_use, LIVE), (figures.free_pages, FREE)]);
        pen.put("| ").word(&Word::count(in_use / PAGE_BYTES));
        pen.put(" of 8 KB in use (").put(LIVE).put("), ").put(FREE).put(" free\n");
    }

    fn parts(&self, pen: &mut Pen<'_, impl Write + ?Sized>) {
        let figures = self.figures();
        pen.put(" |- bytes           where the ").word(&Word::bytes(figures.reserved));
        pen.put(" are\n");
        for part in figures.parts() {
            pen.put(" |   ").text_right(11, part.name).put("    |");
            pen.bar(WIDTH, figures.reserved, &[(part.bytes, LIVE)]);
            pen.put("| ").right(9, &Word::bytes(part.bytes)).put("  ").put(part.what).put("\n");
        }
    }

    fn spans(&self, pen: &mut Pen<'_, impl Write + ?Sized>) {
        let (mut bytes, mut used) = (0, 0);
        for class in self.classes() {
            (bytes, used) = (bytes + class.bytes, used + 1);
        }
        pen.put(" |- spans           ").word(&Word::count(self.figures().spans)).put(" in ");
        pen.word(&Word::count(used)).put(" size classes, ").word(&Word::bytes(bytes));
        pen.put("; how full (").put(LIVE).put(" live, ").put(CACHED).put(" cached, ");
        pen.put(FREE).put(" free)\n");
        pen.put(" |       slot       |").repeat("-", WIDTH);
        pen.put("|   spans    objects      live    cached      free     tails\n");
        for class in self.classes() {
            row(pen, &class);
        }
    }
}

fn row(pen: &mut Pen<'_, impl Write + ?Sized>, class: &ClassFigures) {
    pen.put(" |   ").right(12, &Word::bytes(class.slot_bytes)).put("   |");
    let slots = class.bytes - class.tails;
    pen.bar(WIDTH, slots, &[(class.live, LIVE), (class.cached, CACHED), (class.free, FREE)]);
    pen.put("| ").right(7, &Word::count(class.spans)).put(" ");
    pen.right(10, &Word::count(class.objects));
    for bytes in [class.live, class.cached, class.free, class.tails] {
        pen.put(" ").right(9, &Word::bytes(bytes));
    }
    pen.put("\n");
}
