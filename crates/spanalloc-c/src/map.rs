//! The heap, drawn: one character for a piece of the arenas.

use crate::heap::{self, Use};
use spanalloc::stats::PAGE_BYTES;

use crate::text::{Sink, Text, Word};

/// Characters of a line.
const LINE: usize = 64;
/// The most lines a map should have; a larger heap is drawn in larger pieces.
const LINES: usize = 64;
/// Digits of the longest address of a program.
const DIGITS: usize = 12;
/// Pages of the smallest piece that is drawn.
const LEAST: usize = 16;

/// The characters, and what they stand for.
const MARKS: [(Use, &str, &str); 5] = [
    (Use::Small, "█", " small objects, "),
    (Use::Large, "▒", " large objects, "),
    (Use::Kept, "+", " kept by threads, "),
    (Use::Free, "░", " free, "),
    (Use::Untouched, "·", " untouched\n"),
];

/// Draws the arenas. Of the uses of a piece, the one that most of its pages have is shown.
pub(crate) fn draw(text: &mut Text<'_, impl Sink>) {
    let mut pages = 0_usize;
    heap::for_each_run(|_, more, _| pages += more);
    let mut piece = LEAST;
    while pages / LEAST > LINE * LINES * (piece / LEAST) {
        piece *= 2;
    }
    let line = LINE * piece * PAGE_BYTES;
    text.put(" `- map             a character for ").word(&Word::bytes(piece * PAGE_BYTES));
    text.put(", a line for ").word(&Word::bytes(line)).put("\n    ");
    for (_, mark, name) in MARKS {
        text.put(" ").put(mark).put(name);
    }
    let mut pen = Pen { text, at: None, piece_bytes: piece * PAGE_BYTES, counts: [0; MARKS.len()] };
    heap::for_each_run(|address, pages, used| {
        for page in 0..pages {
            pen.page(address + page * PAGE_BYTES, used);
        }
    });
    pen.end_line();
}

/// Where the drawing is.
struct Pen<'t, 'b, S: Sink> {
    text: &'t mut Text<'b, S>,
    /// Address of the piece that pages are counted of.
    at: Option<usize>,
    piece_bytes: usize,
    /// Its pages by use, in the order of `MARKS`.
    counts: [usize; MARKS.len()],
}

impl<S: Sink> Pen<'_, '_, S> {
    fn page(&mut self, address: usize, used: Use) {
        let piece = address & !(self.piece_bytes - 1);
        if self.at != Some(piece) {
            self.go_to(piece);
        }
        for (count, (marked, ..)) in self.counts.iter_mut().zip(MARKS) {
            *count += usize::from(marked == used);
        }
    }

    /// Draws the piece that is done, and goes on with another.
    fn go_to(&mut self, piece: usize) {
        let line_bytes = LINE * self.piece_bytes;
        let line = |address: usize| address & !(line_bytes - 1);
        let next = match self.at {
            Some(at) if line(at) == line(piece) => at + self.piece_bytes,
            _ => {
                self.end_line();
                let begin = line(piece);
                let digits = Word::hex(begin);
                let before = DIGITS.saturating_sub(digits.as_str().len());
                self.text.spaces(5 + before).put("0x").word(&digits).put(" ");
                begin
            }
        };
        self.draw_piece();
        // What lies between belongs to somebody else.
        self.text.spaces(piece.saturating_sub(next).checked_div(self.piece_bytes).unwrap_or(0));
        self.at = Some(piece);
    }

    fn end_line(&mut self) {
        self.draw_piece();
        if self.at.take().is_some() {
            self.text.put("\n");
        }
    }

    fn draw_piece(&mut self) {
        let (mut most, mut shown) = (0, None);
        for (count, (_, mark, _)) in self.counts.iter_mut().zip(MARKS) {
            if *count > most {
                (most, shown) = (*count, Some(mark));
            }
            *count = 0;
        }
        if let Some(mark) = shown {
            self.text.put(mark);
        }
    }
}
