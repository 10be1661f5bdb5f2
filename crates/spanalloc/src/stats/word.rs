//! Numbers for people.

use core::fmt;

/// A number as a few characters of ASCII, made without formatting and without memory of its own.
#[derive(Clone, Copy)]
pub struct Word {
    bytes: [u8; 32],
    len: usize,
}

/// The units of [`Word::bytes`], from kilobytes on.
const UNITS: [&[u8]; 5] = [b" KB", b" MB", b" GB", b" TB", b" PB"];

impl Word {
    const EMPTY: Self = Self { bytes: [0; 32], len: 0 };

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What does not fit is dropped.
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
    #[must_use]
    pub fn number(number: usize) -> Self {
        Self::digits::<10>(number, u32::MAX)
    }

    /// `1,234,567`
    #[must_use]
    pub fn count(number: usize) -> Self {
        Self::digits::<10>(number, 3)
    }

    /// `7f12a8`
    #[must_use]
    pub fn hex(number: usize) -> Self {
        Self::digits::<16>(number, u32::MAX)
    }

    /// Bytes in the largest unit that leaves at least 1 of it, with one decimal (1 KB is 1024 bytes).
    #[must_use]
    pub fn bytes(number: usize) -> Self {
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

impl fmt::Display for Word {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: Word) -> String {
        word.to_string()
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(shown(Word::number(0)), "0");
        assert_eq!(shown(Word::number(usize::MAX)), usize::MAX.to_string());
        assert_eq!(
            [999, 1000, 1_234_567].map(|it| shown(Word::count(it))),
            ["999", "1,000", "1,234,567"]
        );
        let most = if usize::BITS == 32 { "4,294,967,295" } else { "18,446,744,073,709,551,615" };
        assert_eq!(shown(Word::count(usize::MAX)), most);
        assert_eq!([0, 15, 0xdead_beef].map(|it| shown(Word::hex(it))), ["0", "f", "deadbeef"]);
    }

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        let bytes = |number| shown(Word::bytes(number));
        assert_eq!([0, 1023, 1024, 1536].map(bytes), ["0 B", "1023 B", "1.0 KB", "1.5 KB"]);
        assert_eq!([64 << 20, (1 << 20) - 1].map(bytes), ["64.0 MB", "1.0 MB"]);
        assert_eq!([(1 << 20) - 52, 3 << 30].map(bytes), ["1023.9 KB", "3.0 GB"]);
        let most = if usize::BITS == 32 { "4.0 GB" } else { "16384.0 PB" };
        assert_eq!(bytes(usize::MAX), most);
    }
}
