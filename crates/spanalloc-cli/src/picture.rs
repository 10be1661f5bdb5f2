//! The heap as text.

use std::cmp::Reverse;
use std::io::{self, Write};

use crate::format::{bar, bytes, count};
use crate::heap_view::{HeapView, PAGE_BYTES, SpanRow};

/// Characters of a bar.
const WIDTH: usize = 32;

/// Size classes shown one by one, unless all are wanted.
const SHOWN: usize = 14;

const LIVE: char = '█';
const CACHED: char = '▓';
const FREE: char = '░';

/// Draws `heap`: arenas, pages, where the bytes are, and the spans of each size class.
pub(crate) fn draw(
    out: &mut impl Write,
    title: &str,
    heap: &HeapView,
    all_classes: bool,
) -> io::Result<()> {
    writeln!(out, "heap, {title}: {} objects live", count(heap.live_objects))?;
    draw_pages(out, heap)?;
    draw_parts(out, heap)?;
    draw_spans(out, heap, all_classes)?;
    if heap.large_objects > 0 {
        let (objects, size) = (count(heap.large_objects), bytes(heap.large_bytes));
        writeln!(out, " |- large objects   {objects}, {size} in whole pages")?;
    }
    let metadata = (bytes(heap.metadata_in_use), bytes(heap.metadata_committed));
    writeln!(
        out,
        " |- metadata        {} in use of {}, beside the arenas",
        metadata.0, metadata.1
    )?;
    let locks = (count(heap.heap_locks), count(heap.central_locks));
    writeln!(
        out,
        " |- locks           taken {} times in the heap, {} in the central lists",
        locks.0, locks.1
    )?;
    writeln!(out, " `- thread caches   {}", count(heap.caches))?;
    if !heap.adds_up {
        writeln!(out, "    (another thread was allocating: the sums are not exact)")?;
    }
    Ok(())
}

fn draw_pages(out: &mut impl Write, heap: &HeapView) -> io::Result<()> {
    let in_use = heap.pages_in_use * PAGE_BYTES;
    let committed = heap.committed.saturating_sub(in_use);
    let parts = [(in_use, LIVE), (committed, FREE)];
    let drawn = bar(&parts, heap.reserved, WIDTH);
    let each = heap.reserved.checked_div(heap.arenas).unwrap_or(0);
    let (arenas, reserved) = (count(heap.arenas), bytes(heap.reserved));
    writeln!(out, " |- arenas          {arenas} of {}, {reserved} reserved", bytes(each))?;
    let pages = count(heap.pages_in_use);
    writeln!(out, " |   `- pages       |{drawn}| {pages} of 8 KB in use ({LIVE}), {FREE} free")
}

fn draw_parts(out: &mut impl Write, heap: &HeapView) -> io::Result<()> {
    let parts = heap.parts();
    writeln!(out, " |- bytes           where the {} are", bytes(heap.reserved))?;
    let rows = [
        ("live", parts.live, "slots and pages with objects in them"),
        ("cached", parts.cached, "free slots in the magazines of threads"),
        ("free slots", parts.free_slots, "in spans that hold objects, or could"),
        ("wasted", parts.wasted, "ends of spans, too short for a slot"),
        ("page caches", parts.page_caches, "free pages kept by threads"),
        ("free pages", parts.free_pages, "with memory behind them"),
        ("untouched", parts.untouched, "address space only, costs nothing"),
    ];
    for (name, part, what) in rows {
        let drawn = bar(&[(part, LIVE)], heap.reserved, WIDTH);
        writeln!(out, " |   {name:>11}    |{drawn}| {:>9}  {what}", bytes(part))?;
    }
    Ok(())
}

fn draw_spans(out: &mut impl Write, heap: &HeapView, all_classes: bool) -> io::Result<()> {
    let spans: usize = heap.rows.iter().map(|row| row.spans).sum();
    let size: usize = heap.rows.iter().map(|row| row.bytes).sum();
    let used = heap.rows.len();
    writeln!(
        out,
        " |- spans           {} in {used} size classes, {}; how full ({LIVE} live, {CACHED} cached, {FREE} free)",
        count(spans),
        bytes(size)
    )?;
    writeln!(
        out,
        " |       slot       |{:-<WIDTH$}|   spans    objects      live      free   wasted",
        ""
    )?;
    let (shown, rest) = split(&heap.rows, all_classes);
    for row in shown {
        let name = if row.tiny { "tiny" } else { "" };
        draw_row(out, &format!("{name:>4} {:>7}", bytes(row.slot_bytes)), row)?;
    }
    if rest.spans > 0 {
        draw_row(out, "all others", &rest)?;
    }
    Ok(())
}

fn draw_row(out: &mut impl Write, name: &str, row: &SpanRow) -> io::Result<()> {
    // The row of several classes counts bytes as its slots, of one byte each.
    let parts = [(row.live, LIVE), (row.cached, CACHED), (row.free, FREE)];
    writeln!(
        out,
        " |   {name:>12}   |{}| {:>7} {:>10} {:>9} {:>9} {:>8}",
        bar(&parts, row.slots, WIDTH),
        count(row.spans),
        count(row.objects),
        bytes(row.live * row.slot_bytes),
        bytes((row.cached + row.free) * row.slot_bytes),
        bytes(row.wasted()),
    )
}

/// The classes to show (the tiny one and the largest), by size, and the sum of the others in slots
/// of one byte.
fn split(rows: &[SpanRow], all: bool) -> (Vec<&SpanRow>, SpanRow) {
    let mut by_bytes: Vec<&SpanRow> = rows.iter().collect();
    by_bytes.sort_by_key(|row| (!row.tiny, Reverse(row.bytes)));
    let others = if all { Vec::new() } else { by_bytes.split_off(by_bytes.len().min(SHOWN)) };
    let mut rest = SpanRow { slot_bytes: 1, ..SpanRow::default() };
    for row in others {
        rest.spans += row.spans;
        rest.bytes += row.bytes;
        rest.objects += row.objects;
        rest.slots += row.slots * row.slot_bytes;
        rest.live += row.live * row.slot_bytes;
        rest.cached += row.cached * row.slot_bytes;
        rest.free += row.free * row.slot_bytes;
    }
    by_bytes.sort_by_key(|row| (!row.tiny, row.slot_bytes));
    (by_bytes, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keep_the_sums() {
        let row = |slot_bytes: usize| SpanRow {
            slot_bytes,
            spans: 2,
            bytes: 8192,
            slots: 8192 / slot_bytes,
            live: 3,
            free: 8192 / slot_bytes - 3,
            objects: 3,
            ..SpanRow::default()
        };
        let rows: Vec<_> = (1..=SHOWN + 6).map(|i| row(i * 48)).collect();
        let (shown, rest) = split(&rows, false);
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(rest.spans, 12);
        let live = |row: &SpanRow| row.live * row.slot_bytes;
        let sum: usize = shown.iter().map(|row| live(row)).sum();
        assert_eq!(sum + live(&rest), rows.iter().map(live).sum::<usize>());
        let wasted: usize = shown.iter().map(|row| row.wasted()).sum();
        assert_eq!(wasted + rest.wasted(), rows.iter().map(SpanRow::wasted).sum::<usize>());
        assert_eq!(split(&rows, true).1.spans, 0);
    }
}
