//! Text, made without `core::fmt` and without memory of its own.

/// Where text goes.
pub(crate) trait Sink {
    /// Takes the next part of the text, as far as that is possible.
    fn write(&mut self, text: &[u8]);
}

impl<S: Sink> Sink for &mut S {
    fn write(&mut self, text: &[u8]) {
        (**self).write(text);
    }
}

/// Text on its way to a sink, through a buffer.
pub(crate) struct Text<'a, S: Sink> {
    buffer: &'a mut [u8],
    len: usize,
    sink: S,
}

impl<'a, S: Sink> Text<'a, S> {
    pub(crate) fn new(buffer: &'a mut [u8], sink: S) -> Self {
        Self { buffer, len: 0, sink }
    }

    /// Sends all that was put so far to the sink.
    pub(crate) fn send(&mut self) {
        self.send_part(self.len);
    }

    pub(crate) fn put(&mut self, text: &str) -> &mut Self {
        self.put_bytes(text.as_bytes())
    }

    pub(crate) fn put_bytes(&mut self, text: &[u8]) -> &mut Self {
        for byte in text {
            if self.len >= self.buffer.len() {
                self.make_room();
            }
            if let Some(place) = self.buffer.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
        self
    }

    pub(crate) fn word(&mut self, word: &Word) -> &mut Self {
        self.put_bytes(word.as_bytes())
    }

    /// The word at the right end of `width` places.
    pub(crate) fn right(&mut self, width: usize, word: &Word) -> &mut Self {
        self.spaces(width.saturating_sub(word.len)).word(word)
    }

    pub(crate) fn spaces(&mut self, count: usize) -> &mut Self {
        self.repeat(" ", count)
    }

    pub(crate) fn repeat(&mut self, text: &str, count: usize) -> &mut Self {
        for _ in 0..count {
            self.put(text);
        }
        self
    }

    /// `parts` of `total` as a bar of `width` characters, each part drawn with its own. What is left
    /// is blank.
    pub(crate) fn bar(&mut self, width: usize, total: usize, parts: &[(usize, &str)]) -> &mut Self {
        let (mut sum, mut drawn) = (0_usize, 0);
        for (part, mark) in parts {
            sum = sum.saturating_add(*part);
            let end = scaled(sum, total, width);
            self.repeat(mark, end.saturating_sub(drawn));
            drawn = end.max(drawn);
        }
        self.spaces(width.saturating_sub(drawn))
    }

    /// Sends whole lines, if there are any: others may write to the same file between two parts.
    #[cold]
    fn make_room(&mut self) {
        let lines = self.buffer.iter().rposition(|byte| *byte == b'\n');
        self.send_part(lines.map_or(self.len, |last| last + 1));
    }

    /// Sends the first `len` bytes; the rest moves to their place.
    fn send_part(&mut self, len: usize) {
        let part = self.buffer.get(..len).unwrap_or_default();
        if !part.is_empty() {
            self.sink.write(part);
        }
        let rest = self.len.saturating_sub(len);
        for at in 0..rest {
            let byte = self.buffer.get(len + at).copied().unwrap_or_default();
            if let Some(place) = self.buffer.get_mut(at) {
                *place = byte;
            }
        }
        self.len = rest;
    }
}

/// How many of `width` cells `part` of `total` fills, to the nearest.
fn scaled(part: usize, total: usize, width: usize) -> usize {
    let total = total.max(1) as u128;
    let cells = (part as u128 * width as u128 + total / 2).checked_div(total).unwrap_or(0);
    (cells as usize).min(width)
}

/// A few characters of ASCII. What does not fit is dropped.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    bytes: [u8; 32],
    len: usize,
}

/// The units of [`Word::bytes`], from kilobytes on.
const UNITS: [&[u8]; 5] = [b" KB", b" MB", b" GB", b" TB", b" PB"];

impl Word {
    const EMPTY: Self = Self { bytes: [0; 32], len: 0 };

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// A number in `BASE` (10 or 16), in groups of `group` digits with commas between them.
    fn digits<const BASE: usize>(number: usize, group: u32) -> Self {
        // The last digit first, from the end of the most that there can be.
        let mut text = [0_u8; 32];
        let (mut first, mut rest, mut count) = (text.len(), number, 0);
        let mut places = text.iter_mut().rev();
        let mut put = |byte| {
            if let Some(place) = places.next() {
                *place = byte;
                first -= 1;
            }
        };
        loop {
            if count == group {
                put(b',');
                count = 0;
            }
            let digit = (rest % BASE) as u8;
            put(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            (rest, count) = (rest / BASE, count + 1);
            if rest == 0 {
                break;
            }
        }
        let mut word = Self::EMPTY;
        word.push(text.get(first..).unwrap_or_default());
        word
    }

    /// `1234567`
    pub(crate) fn number(number: usize) -> Self {
        Self::digits::<10>(number, u32::MAX)
    }

    /// `1,234,567`
    pub(crate) fn count(number: usize) -> Self {
        Self::digits::<10>(number, 3)
    }

    /// `7f12a8`
    pub(crate) fn hex(number: usize) -> Self {
        Self::digits::<16>(number, u32::MAX)
    }

    /// Bytes in the largest unit that leaves at least 1 of it, with one decimal (1 KB is 1024 bytes).
    pub(crate) fn bytes(number: usize) -> Self {
        if number < 1024 {
            let mut word = Self::number(number);
            word.push(b" B");
            return word;
        }
        let mut word = Self::EMPTY;
        // In units of 1/1024 of the unit.
        let mut rest = number;
        for (place, unit) in UNITS.iter().enumerate() {
            // 1023.95 and more would read as 1024.0 of the unit.
            if rest < (1024 << 10) - 51 || place + 1 == UNITS.len() {
                let tenths = (rest as u128 * 10 + 512) >> 10;
                word.push(Self::number((tenths / 10) as usize).as_bytes());
                word.push(b".");
                word.push(Self::number((tenths % 10) as usize).as_bytes());
                word.push(unit);
                break;
            }
            rest >>= 10;
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    struct Parts<'a>(&'a mut Vec<String>);

    impl Sink for Parts<'_> {
        fn write(&mut self, text: &[u8]) {
            self.0.push(String::from_utf8(text.to_vec()).unwrap());
        }
    }

    fn text(word: Word) -> String {
        String::from_utf8(word.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(text(Word::number(0)), "0");
        assert_eq!(text(Word::number(usize::MAX)), usize::MAX.to_string());
        assert_eq!(
            [999, 1000, 1_234_567].map(|it| text(Word::count(it))),
            ["999", "1,000", "1,234,567"]
        );
        assert_eq!(text(Word::count(usize::MAX)), "18,446,744,073,709,551,615");
        assert_eq!([0, 15, 0xdead_beef].map(|it| text(Word::hex(it))), ["0", "f", "deadbeef"]);
    }

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        let bytes = |number| text(Word::bytes(number));
        assert_eq!([0, 1023, 1024, 1536].map(bytes), ["0 B", "1023 B", "1.0 KB", "1.5 KB"]);
        assert_eq!([64 << 20, (1 << 20) - 1].map(bytes), ["64.0 MB", "1.0 MB"]);
        assert_eq!([(1 << 20) - 52, 3 << 30].map(bytes), ["1023.9 KB", "3.0 GB"]);
        assert_eq!(bytes(usize::MAX), "16384.0 PB");
    }

    #[test]
    fn bars_keep_their_width() {
        let bar = |width, total, parts: &[(usize, &str)]| {
            let (mut drawn, mut buffer) = (Vec::new(), [0; 100]);
            let mut text = Text::new(&mut buffer, Parts(&mut drawn));
            text.bar(width, total, parts).put("|").send();
            drawn.concat()
        };
        assert_eq!(bar(10, 10, &[(5, "#"), (2, "+"), (3, ".")]), "#####++...|");
        assert_eq!(bar(6, 3, &[(1, "#")]), "##    |");
        assert_eq!(bar(3, 0, &[]), "   |");
        assert_eq!(bar(2, 3, &[(1, "#"), (1, "+"), (1, ".")]), "#.|");
        assert_eq!(bar(4, 3, &[(9, "#"), (usize::MAX, "+")]), "####|");
    }

    #[test]
    fn a_full_buffer_sends_whole_lines() {
        let (mut parts, mut buffer) = (Vec::new(), [0; 8]);
        let mut text = Text::new(&mut buffer, Parts(&mut parts));
        text.put("one\ntwo\nthree\n").put("a very long line\n");
        text.right(6, &Word::number(42)).put("\n").send();
        text.send();
        assert_eq!(parts[..2], ["one\ntwo\n", "three\n"]);
        assert_eq!(parts.concat(), "one\ntwo\nthree\na very long line\n    42\n");
    }
}
