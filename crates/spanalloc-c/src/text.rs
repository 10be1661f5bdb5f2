//! Text, made without formatting and without memory of its own.

use core::fmt;

pub(crate) use spanalloc::stats::Word;

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
        self.put(word.as_str())
    }

    pub(crate) fn spaces(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            self.put(" ");
        }
        self
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

impl<S: Sink> fmt::Write for Text<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    struct Parts<'a>(&'a mut Vec<String>);

    impl Sink for Parts<'_> {
        fn write(&mut self, text: &[u8]) {
            self.0.push(String::from_utf8(text.to_vec()).unwrap());
        }
    }

    #[test]
    fn a_full_buffer_sends_whole_lines() {
        let (mut parts, mut buffer) = (Vec::new(), [0; 8]);
        let mut text = Text::new(&mut buffer, Parts(&mut parts));
        text.put("one\ntwo\nthree\n").put("a very long line\n");
        text.spaces(4).word(&Word::number(42)).put("\n").send();
        text.send();
        assert_eq!(parts[..2], ["one\ntwo\n", "three\n"]);
        assert_eq!(parts.concat(), "one\ntwo\nthree\na very long line\n    42\n");
    }
}
