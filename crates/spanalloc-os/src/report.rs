/// What a program did that no allocator can go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// An object was freed that is free already.
    DoubleFree,
    /// The address lies in no span of this allocator.
    ForeignPointer,
    /// The address lies in a span, but no object starts there.
    NotAnObjectStart,
    /// The size or alignment given back is not the one the object was allocated with.
    SizeMismatch,
    /// What lies behind the object was overwritten.
    HeapOverflow,
    /// A free object was written to.
    WriteAfterFree,
}

impl Misuse {
    /// The words before the address in a report.
    const fn words(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free of",
            Self::ForeignPointer => "foreign pointer",
            Self::NotAnObjectStart => "not an object start",
            Self::SizeMismatch => "size mismatch at",
            Self::HeapOverflow => "heap overflow of",
            Self::WriteAfterFree => "write after free of",
        }
    }
}

/// A misuse, where it happened and to an object of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub misuse: Misuse,
    /// The address the program passed.
    pub address: usize,
    /// Bytes of the span's size class; 0 where the address has none.
    pub class_bytes: usize,
}

impl Report {
    /// The report as one line of ASCII, newline included, made without `core::fmt` or allocation:
    /// `spanalloc: double free of 0x7f12 (class 64)`, without the parenthesis if there is no class.
    pub fn line(&self) -> ReportLine {
        let mut line = ReportLine { bytes: [0; LONGEST], len: 0 };
        line.push(b"spanalloc: ");
        line.push(self.misuse.words().as_bytes());
        line.push(b" 0x");
        line.push_number::<16>(self.address);
        if self.class_bytes != 0 {
            line.push(b" (class ");
            line.push_number::<10>(self.class_bytes);
            line.push(b")");
        }
        line.push(b"\n");
        line
    }
}

/// Bytes a line may have. The longest is 79: the frame (`spanalloc: `, ` 0x`, ` (class `, `)` and
/// the newline) 24, the words 19, an address 16 and a class 20.
const LONGEST: usize = 80;

/// The digits of all bases used.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The line a process ends with.
#[derive(Clone, Copy, Debug)]
pub struct ReportLine {
    bytes: [u8; LONGEST],
    len: usize,
}

impl ReportLine {
    /// The line, newline included.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Appends `text`; what does not fit is dropped.
    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// Appends `number` in `BASE` (10 or 16) without leading zeroes.
    fn push_number<const BASE: usize>(&mut self, number: usize) {
        // The last digit first, from the end of the most digits there can be.
        let mut digits = [0; 20];
        let mut first = digits.len();
        let mut rest = number;
        for place in digits.iter_mut().rev() {
            *place = DIGITS.get(rest % BASE).copied().unwrap_or_default();
            first -= 1;
            rest /= BASE;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(misuse: Misuse, address: usize, class_bytes: usize) -> [u8; LONGEST] {
        let line = Report { misuse, address, class_bytes }.line();
        let mut bytes = [0; LONGEST];
        bytes[..line.as_bytes().len()].copy_from_slice(line.as_bytes());
        bytes
    }

    fn padded(text: &str) -> [u8; LONGEST] {
        let mut bytes = [0; LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn every_misuse_has_its_exact_line() {
        let line = padded("spanalloc: double free of 0x7f12 (class 64)\n");
        assert_eq!(text(Misuse::DoubleFree, 0x7f12, 64), line);
        let line = padded("spanalloc: foreign pointer 0xdeadbeef\n");
        assert_eq!(text(Misuse::ForeignPointer, 0xdead_beef, 0), line);
        let line = padded("spanalloc: not an object start 0x1000 (class 32768)\n");
        assert_eq!(text(Misuse::NotAnObjectStart, 0x1000, 32768), line);
        let line = padded("spanalloc: size mismatch at 0x10 (class 8)\n");
        assert_eq!(text(Misuse::SizeMismatch, 0x10, 8), line);
        let line = padded("spanalloc: heap overflow of 0x7f10 (class 48)\n");
        assert_eq!(text(Misuse::HeapOverflow, 0x7f10, 48), line);
        let line = padded("spanalloc: write after free of 0x7f10 (class 16)\n");
        assert_eq!(text(Misuse::WriteAfterFree, 0x7f10, 16), line);
    }

    #[test]
    fn the_smallest_and_the_largest_numbers_fit() {
        let line = padded("spanalloc: foreign pointer 0x0\n");
        assert_eq!(text(Misuse::ForeignPointer, 0, 0), line);
        let longest = Report {
            misuse: Misuse::NotAnObjectStart,
            address: usize::MAX,
            class_bytes: usize::MAX,
        };
        let line = longest.line();
        assert!(line.as_bytes().len() < LONGEST);
        assert!(line.as_bytes().ends_with(b")\n"));
        #[cfg(target_pointer_width = "64")]
        assert_eq!(
            line.as_bytes(),
            b"spanalloc: not an object start 0xffffffffffffffff (class 18446744073709551615)\n"
        );
    }
}
