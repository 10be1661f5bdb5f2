//! The heap as text.

use std::cmp::Reverse;
use std::io::{self, Write};

use spanalloc::stats::{ClassFigures, Figures};

use crate::format::{bar, bytes, count};
use crate::heap_view::{HeapView, PAGE_BYTES};

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
    let figures = &heap.figures;
    writeln!(out, "heap, {title}: {} objects live", count(figures.objects))?;
    draw_pages(out, figures)?;
    draw_parts(out, figures)?;
    draw_spans(out, heap, all_classes)?;
    if figures.large_objects > 0 {
        let (objects, size) = (count(figures.large_objects), bytes(figures.live_large));
        writeln!(out, " |- large objects   {objects}, {size} in whole pages")?;
    }
    let metadata = (bytes(figures.metadata_in_use), bytes(figures.metadata));
    writeln!(
        out,
        " |- metadata        {} in use of {}, beside the arenas",
        metadata.0, metadata.1
    )?;
    let locks = (count(figures.heap_locks), count(figures.central_locks));
    writeln!(
        out,
        " |- locks           taken {} times in the heap, {} in the central lists",
        locks.0, locks.1
    )?;
    writeln!(out, " `- thread caches   {}", count(figures.threads))?;
    if !heap.adds_up {
        writeln!(out, "    (another thread was allocating: the numbers are not exact)")?;
    }
    Ok(())
}

fn draw_pages(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    let in_use = figures.in_use();
    let parts = [(in_use, LIVE), (figures.free_pages, FREE)];
    let drawn = bar(&parts, figures.reserved, WIDTH);
    let each = figures.reserved.checked_div(figures.arenas).unwrap_or(0);
    let (arenas, reserved) = (count(figures.arenas), bytes(figures.reserved));
    writeln!(out, " |- arenas          {arenas} of {}, {reserved} reserved", bytes(each))?;
    let pages = count(in_use / PAGE_BYTES);
    writeln!(out, " |   `- pages       |{drawn}| {pages} of 8 KB in use ({LIVE}), {FREE} free")
}

fn draw_parts(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, " |- bytes           where the {} are", bytes(figures.reserved))?;
    for part in figures.parts() {
        let drawn = bar(&[(part.bytes, LIVE)], figures.reserved, WIDTH);
        let (name, size, what) = (part.name, bytes(part.bytes), part.what);
        writeln!(out, " |   {name:>11}    |{drawn}| {size:>9}  {what}")?;
    }
    Ok(())
}

fn draw_spans(out: &mut impl Write, heap: &HeapView, all_classes: bool) -> io::Result<()> {
    let size: usize = heap.rows.iter().map(|row| row.bytes).sum();
    let used = heap.rows.len();
    writeln!(
        out,
        " |- spans           {} in {used} size classes, {}; how full ({LIVE} live, {CACHED} cached, {FREE} free)",
        count(heap.figures.spans),
        bytes(size)
    )?;
    writeln!(
        out,
        " |       slot       |{:-<WIDTH$}|   spans    objects      live      free    tails",
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

fn draw_row(out: &mut impl Write, name: &str, row: &ClassFigures) -> io::Result<()> {
    let parts = [(row.live, LIVE), (row.cached, CACHED), (row.free, FREE)];
    writeln!(
        out,
        " |   {name:>12}   |{}| {:>7} {:>10} {:>9} {:>9} {:>8}",
        bar(&parts, row.bytes - row.tails, WIDTH),
        count(row.spans),
        count(row.objects),
        bytes(row.live),
        bytes(row.cached + row.free),
        bytes(row.tails),
    )
}

/// The classes to show (the tiny one and the largest), by size, and the sum of the others.
fn split(rows: &[ClassFigures], all: bool) -> (Vec<&ClassFigures>, ClassFigures) {
    let mut by_bytes: Vec<&ClassFigures> = rows.iter().collect();
    by_bytes.sort_by_key(|row| (!row.tiny, Reverse(row.bytes)));
    let others = if all { Vec::new() } else { by_bytes.split_off(by_bytes.len().min(SHOWN)) };
    let mut rest = ClassFigures::default();
    for row in others {
        rest.spans += row.spans;
        rest.bytes += row.bytes;
        rest.objects += row.objects;
        rest.live += row.live;
        rest.cached += row.cached;
        rest.free += row.free;
        rest.tails += row.tails;
    }
    by_bytes.sort_by_key(|row| (!row.tiny, row.slot_bytes));
    (by_bytes, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keep_the_sums() {
        let row = |slot_bytes: usize| {
            let mut row = ClassFigures::default();
            row.slot_bytes = slot_bytes;
            (row.spans, row.objects, row.bytes) = (2, 3, 8192);
            row.tails = 8192 % slot_bytes;
            row.live = 3 * slot_bytes;
            row.free = 8192 - row.tails - row.live;
            row
        };
        let rows: Vec<_> = (1..=SHOWN + 6).map(|i| row(i * 48)).collect();
        let (shown, rest) = split(&rows, false);
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(rest.spans, 12);
        let parts: [fn(&ClassFigures) -> usize; 3] =
            [|row| row.live, |row| row.free, |row| row.tails];
        for part in parts {
            let sum: usize = shown.iter().map(|row| part(row)).sum();
            assert_eq!(sum + part(&rest), rows.iter().map(part).sum::<usize>());
        }
        assert_eq!(split(&rows, true).1.spans, 0);
    }
}
