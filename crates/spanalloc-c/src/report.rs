//! The heap, described for people.

use spanalloc::stats::{ClassStats, PAGE_BYTES, Snapshot};

use crate::figures::{Figures, wasted};
use crate::snapshot::with_snapshot;
use crate::text::{Sink, Text, Word};
use crate::{map, system};

/// Characters of a bar.
const WIDTH: usize = 24;

const LIVE: &str = "█";
const CACHED: &str = "▓";
const FREE: &str = "░";

/// What is wanted of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stats: bool,
    pub(crate) map: bool,
}

/// Writes what the heap of this process holds now. Allocates nothing.
pub(crate) fn write(text: &mut Text<'_, impl Sink>, wanted: Wanted) {
    with_snapshot(|snapshot| write_all(text, snapshot, wanted));
}

fn write_all(text: &mut Text<'_, impl Sink>, snapshot: &Snapshot, wanted: Wanted) {
    let figures = Figures::of(snapshot);
    title(text, &figures);
    if wanted.stats {
        arenas(text, snapshot, &figures);
        parts(text, &figures);
        classes(text, snapshot);
        large(text, &figures);
        if !wanted.map {
            metadata(text, snapshot, "`");
        }
    }
    if wanted.map {
        if wanted.stats {
            metadata(text, snapshot, "|");
        }
        map::draw(text);
    }
    text.send();
}

fn title(text: &mut Text<'_, impl Sink>, figures: &Figures) {
    let name = system::thread_name();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    text.put("spanalloc: heap of ").put_bytes(name.get(..end).unwrap_or_default());
    let process = usize::try_from(system::process()).unwrap_or(0);
    text.put(" (process ").word(&Word::number(process)).put("): ");
    text.word(&Word::count(figures.objects)).put(" objects live, ");
    text.word(&Word::bytes(figures.live())).put("\n");
}

fn arenas(text: &mut Text<'_, impl Sink>, snapshot: &Snapshot, figures: &Figures) {
    let pages = &snapshot.pages;
    let in_use = pages.pages_in_use * PAGE_BYTES;
    text.put(" |- arenas          ").word(&Word::count(pages.arenas)).put(", ");
    text.word(&Word::bytes(pages.reserved)).put(" reserved, ");
    text.word(&Word::bytes(pages.committed)).put(" with memory\n");
    text.put(" |   `- pages       |");
    text.bar(WIDTH, pages.reserved, &[(in_use, LIVE), (figures.free_pages, FREE)]);
    text.put("| ").word(&Word::count(pages.pages_in_use)).put(" of 8 KB in use (");
    text.put(LIVE).put("), ").put(FREE).put(" free\n");
}

fn parts(text: &mut Text<'_, impl Sink>, figures: &Figures) {
    text.put(" |- bytes           where the ").word(&Word::bytes(figures.reserved)).put(" are\n");
    let rows = [
        ("       live", figures.live(), "objects, with what their sizes were rounded up by"),
        ("     cached", figures.cached, "free slots that threads have at hand"),
        (" free slots", figures.free, "in spans that hold objects, or could"),
        ("     wasted", figures.wasted, "ends of spans, too short for a slot"),
        ("page caches", figures.kept_pages, "free pages kept by threads"),
        (" free pages", figures.free_pages, "with memory behind them"),
        ("  untouched", figures.untouched(), "address space only, costs nothing"),
    ];
    for (name, bytes, what) in rows {
        text.put(" |   ").put(name).put("    |").bar(WIDTH, figures.reserved, &[(bytes, LIVE)]);
        text.put("| ").right(9, &Word::bytes(bytes)).put("  ").put(what).put("\n");
    }
}

fn classes(text: &mut Text<'_, impl Sink>, snapshot: &Snapshot) {
    let (mut spans, mut pages, mut used) = (0, 0, 0);
    for row in snapshot.rows() {
        (spans, pages, used) = (spans + row.spans, pages + row.pages, used + 1);
    }
    text.put(" |- spans           ").word(&Word::count(spans)).put(" in ");
    text.word(&Word::count(used)).put(" size classes, ");
    text.word(&Word::bytes(pages * PAGE_BYTES)).put("; how full (");
    text.put(LIVE).put(" live, ").put(CACHED).put(" cached, ").put(FREE).put(" free)\n");
    text.put(" |       slot       |").repeat("-", WIDTH);
    text.put("|   spans    objects      live    cached      free    wasted\n");
    for row in snapshot.rows() {
        class(text, row);
    }
}

fn class(text: &mut Text<'_, impl Sink>, row: &ClassStats) {
    let free = row.free + row.freed;
    text.put(" |   ").right(12, &Word::bytes(row.slot_bytes)).put("   |");
    text.bar(WIDTH, row.slots, &[(row.live, LIVE), (row.cached, CACHED), (free, FREE)]);
    text.put("| ").right(7, &Word::count(row.spans)).put(" ").right(10, &Word::count(row.objects));
    for slots in [row.live, row.cached, free] {
        text.put(" ").right(9, &Word::bytes(slots * row.slot_bytes));
    }
    text.put(" ").right(9, &Word::bytes(wasted(row))).put("\n");
}

fn large(text: &mut Text<'_, impl Sink>, figures: &Figures) {
    text.put(" |- large objects   ").word(&Word::count(figures.large_objects)).put(", ");
    text.word(&Word::bytes(figures.live_large)).put(" in whole pages\n");
}

fn metadata(text: &mut Text<'_, impl Sink>, snapshot: &Snapshot, corner: &str) {
    let pages = &snapshot.pages;
    text.put(" |- thread caches   ").word(&Word::count(snapshot.caches)).put("\n");
    text.put(" |- locks           taken ").word(&Word::count(pages.heap_locks));
    text.put(" times in the heap, ").word(&Word::count(snapshot.central_locks));
    text.put(" in the central lists\n");
    text.put(" ").put(corner).put("- metadata        ").word(&Word::bytes(pages.metadata_in_use));
    text.put(" in use of ").word(&Word::bytes(pages.metadata_committed));
    text.put(", beside the arenas\n");
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    struct Page<'a>(&'a mut Vec<u8>);

    impl Sink for Page<'_> {
        fn write(&mut self, text: &[u8]) {
            self.0.extend_from_slice(text);
        }
    }

    fn report(wanted: Wanted) -> String {
        let mut page = Vec::with_capacity(1 << 20);
        let mut buffer = [0; 256];
        write(&mut Text::new(&mut buffer, Page(&mut page)), wanted);
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn a_report_is_a_table_with_straight_columns() {
        let report = report(Wanted { stats: true, map: false });
        let mut lines = report.lines();
        let title = lines.next().unwrap();
        let process = std::format!("(process {})", std::process::id());
        assert!(title.starts_with("spanalloc: heap of ") && title.contains(&process), "{title}");
        let bars: Vec<_> =
            lines.filter(|line| line.ends_with(" B") || line.ends_with("KB")).collect();
        assert!(!bars.is_empty(), "{report}");
        for bar in bars {
            let columns = bar.split('|').map(|part| part.chars().count());
            assert_eq!(columns.skip(1).take(2).collect::<Vec<_>>(), [18, WIDTH], "{bar}");
        }
        assert!(report.ends_with(" beside the arenas\n"), "{report}");
    }

    #[test]
    fn a_map_has_a_letter_for_every_piece_of_the_arenas() {
        let map = report(Wanted { stats: false, map: true });
        assert!(map.lines().nth(1).unwrap().starts_with(" `- map "), "{map}");
        assert!(map.contains('█') && map.contains('·'), "{map}");
    }
}
