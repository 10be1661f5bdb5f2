//! Text on its way to whoever wants it, made without formatting.

use core::fmt::{Result, Write};

use super::Word;

/// Writes to `out` until that fails.
pub(super) struct Pen<'w, W: Write + ?Sized> {
    out: &'w mut W,
    result: Result,
}

impl<'w, W: Write + ?Sized> Pen<'w, W> {
    pub(super) fn new(out: &'w mut W) -> Self {
        Self { out, result: Ok(()) }
    }

    /// Whether all of it was written.
    pub(super) fn end(self) -> Result {
        self.result
    }

    pub(super) fn put(&mut self, text: &str) -> &mut Self {
        if self.result.is_ok() {
            self.result = self.out.write_str(text);
        }
        self
    }

    pub(super) fn word(&mut self, word: &Word) -> &mut Self {
        self.put(word.as_str())
    }

    pub(super) fn number(&mut self, number: usize) -> &mut Self {
        self.word(&Word::number(number))
    }

    /// The word at the right end of `width` places.
    pub(super) fn right(&mut self, width: usize, word: &Word) -> &mut Self {
        self.text_right(width, word.as_str())
    }

    /// As [`right`](Self::right), of ASCII.
    pub(super) fn text_right(&mut self, width: usize, text: &str) -> &mut Self {
        self.repeat(" ", width.saturating_sub(text.len())).put(text)
    }

    pub(super) fn repeat(&mut self, text: &str, count: usize) -> &mut Self {
        for _ in 0..count {
            self.put(text);
        }
        self
    }

    /// `parts` of `total` as a bar of `width` characters, each part drawn with its own. What is left
    /// is blank.
    pub(super) fn bar(&mut self, width: usize, total: usize, parts: &[(usize, &str)]) -> &mut Self {
        let (mut sum, mut drawn) = (0_usize, 0);
        for (part, mark) in parts {
            sum = sum.saturating_add(*part);
            let end = scaled(sum, total, width);
            self.repeat(mark, end.saturating_sub(drawn));
            drawn = end.max(drawn);
        }
        self.repeat(" ", width.saturating_sub(drawn))
    }
}

/// How many of `width` cells `part` of `total` fills, to the nearest.
fn scaled(part: usize, total: usize, width: usize) -> usize {
    let total = total.max(1) as u128;
    let cells = (part as u128 * width as u128 + total / 2).checked_div(total).unwrap_or(0);
    (cells as usize).min(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_keep_their_width() {
        let bar = |width, total, parts: &[(usize, &str)]| {
            let mut drawn = String::new();
            let mut pen = Pen::new(&mut drawn);
            pen.bar(width, total, parts).put("|");
            pen.end().unwrap();
            drawn
        };
        assert_eq!(bar(10, 10, &[(5, "#"), (2, "+"), (3, ".")]), "#####++...|");
        assert_eq!(bar(6, 3, &[(1, "#")]), "##    |");
        assert_eq!(bar(3, 0, &[]), "   |");
        assert_eq!(bar(2, 3, &[(1, "#"), (1, "+"), (1, ".")]), "#.|");
        assert_eq!(bar(4, 3, &[(9, "#"), (usize::MAX, "+")]), "####|");
    }

    #[test]
    fn nothing_is_written_after_a_failure() {
        struct Short(usize);
        impl Write for Short {
            fn write_str(&mut self, _: &str) -> Result {
                self.0 += 1;
                if self.0 > 2 { Err(core::fmt::Error) } else { Ok(()) }
            }
        }
        let mut short = Short(0);
        let mut pen = Pen::new(&mut short);
        pen.number(1).right(5, &Word::number(1)).put("more");
        assert!(pen.end().is_err());
        assert_eq!(short.0, 3);
    }
}
