//! Operations as bytes, for fuzzers.
//!
//! Every byte string is a list of operations, and a change of one byte changes one operation, which
//! is what a fuzzer needs. The first byte of an operation says which it is, its arguments follow;
//! bytes missing at the end read as zero.

use crate::Operation;

/// One more than the largest size that can be written down.
const SIZE_END: usize = 1 << 21;
/// The largest alignment that can be written down, as a power of two: 64 MB.
const MAX_ALIGN_LOG2: u8 = 26;

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn double(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn index(&mut self) -> u32 {
        self.word().into()
    }

    /// Four bytes: how many bits the size has, then those bits. So a random size is as likely to
    /// be of one order of magnitude as of another.
    fn size(&mut self) -> usize {
        let bits = u32::from(self.byte()) % (SIZE_END.ilog2() + 1);
        let raw = u32::from_le_bytes([self.byte(), self.byte(), self.byte(), 0]);
        raw as usize & ((1 << bits) - 1)
    }

    /// One byte: the power of two, or, for most values, a small one.
    fn align(&mut self) -> usize {
        match self.byte() {
            log2 @ 0..=MAX_ALIGN_LOG2 => 1 << log2,
            other => 1 << (other % 5),
        }
    }
}

/// How often each kind comes up for a random first byte, out of 64.
const KINDS: [u8; 64] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 5, 5, 6, 6, 7, 7, 0,
    10, 11, 12, 13, 14, 5, 6, 7, 8, 9, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 5, 5, 6, 6, 7,
    7, 0,
];

/// First bytes of the kinds that come behind the first ten, whose bytes are their numbers.
const ADVANCE: u8 = 32;
const SCAVENGE: u8 = 33;
const OS_FAILS: u8 = 34;
const OS_WORKS: u8 = 35;
const FORK: u8 = 36;

impl Operation {
    /// The operations that a fuzzer's bytes stand for. Any bytes do.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Vec<Self> {
        let mut bytes = Bytes(bytes);
        let mut operations = Vec::new();
        while !bytes.0.is_empty() {
            let kind = KINDS[usize::from(bytes.byte()) % KINDS.len()];
            operations.push(match kind {
                0 => Self::Alloc { size: bytes.size(), align: bytes.align() },
                1 => Self::AllocZeroed { size: bytes.size(), align: bytes.align() },
                2 => {
                    Self::AllocMany { size: bytes.size(), align: bytes.align(), more: bytes.byte() }
                }
                3 => Self::Realloc { index: bytes.index(), size: bytes.size() },
                4 => Self::Free { index: bytes.index() },
                5 => Self::FreeRemote { index: bytes.index() },
                6 => Self::FreeMany { index: bytes.index(), more: bytes.byte() },
                7 => Self::Switch { cache: bytes.byte().into() },
                8 => Self::Restart { cache: bytes.byte().into() },
                9 => Self::Release { most: bytes.word() },
                10 => Self::Advance { microseconds: bytes.double() },
                11 => Self::Scavenge { pieces: bytes.word() },
                12 => Self::OsFails {
                    verb: Self::VERBS[usize::from(bytes.byte()) % Self::VERBS.len()],
                    after: bytes.word(),
                    calls: bytes.word(),
                },
                13 => Self::OsWorks,
                _ => Self::Fork,
            });
        }
        operations
    }

    /// Bytes that [`decode`](Self::decode) makes the same operations of. Sizes of 2 MB and more,
    /// alignments above 64 MB, indices above 65,535 and caches above 255 cannot be written down; they
    /// become the largest that can.
    ///
    /// A [`Trace`](crate::Trace) has room for all of them.
    #[must_use]
    pub fn encode(operations: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for operation in operations {
            match *operation {
                Self::Alloc { size, align } => {
                    bytes.push(0);
                    push_layout(&mut bytes, size, align);
                }
                Self::AllocZeroed { size, align } => {
                    bytes.push(1);
                    push_layout(&mut bytes, size, align);
                }
                Self::AllocMany { size, align, more } => {
                    bytes.push(2);
                    push_layout(&mut bytes, size, align);
                    bytes.push(more);
                }
                Self::Realloc { index, size } => {
                    bytes.push(3);
                    push_index(&mut bytes, index);
                    push_size(&mut bytes, size);
                }
                Self::Free { index } => {
                    bytes.push(4);
                    push_index(&mut bytes, index);
                }
                Self::FreeRemote { index } => {
                    bytes.push(5);
                    push_index(&mut bytes, index);
                }
                Self::FreeMany { index, more } => {
                    bytes.push(6);
                    push_index(&mut bytes, index);
                    bytes.push(more);
                }
                Self::Switch { cache } => bytes.extend([7, low_byte(cache)]),
                Self::Restart { cache } => bytes.extend([8, low_byte(cache)]),
                Self::Release { most } => {
                    bytes.push(9);
                    bytes.extend(most.to_le_bytes());
                }
                Self::Advance { microseconds } => {
                    bytes.push(ADVANCE);
                    bytes.extend(microseconds.to_le_bytes());
                }
                Self::Scavenge { pieces } => {
                    bytes.push(SCAVENGE);
                    bytes.extend(pieces.to_le_bytes());
                }
                Self::OsFails { verb, after, calls } => {
                    let Some(verb) = Self::verb_number(verb) else { continue };
                    bytes.extend([OS_FAILS, verb]);
                    bytes.extend(after.to_le_bytes());
                    bytes.extend(calls.to_le_bytes());
                }
                Self::OsWorks => bytes.push(OS_WORKS),
                Self::Fork => bytes.push(FORK),
            }
        }
        bytes
    }
}

fn push_index(bytes: &mut Vec<u8>, index: u32) {
    bytes.extend(u16::try_from(index).unwrap_or(u16::MAX).to_le_bytes());
}

fn low_byte(cache: u16) -> u8 {
    u8::try_from(cache).unwrap_or(u8::MAX)
}

fn push_size(bytes: &mut Vec<u8>, size: usize) {
    let size = size.min(SIZE_END - 1) as u32;
    let bits = u32::BITS - size.leading_zeros();
    let [low, middle, high, _] = size.to_le_bytes();
    bytes.extend([bits as u8, low, middle, high]);
}

fn push_layout(bytes: &mut Vec<u8>, size: usize, align: usize) {
    push_size(bytes, size);
    bytes.push(align.trailing_zeros().min(u32::from(MAX_ALIGN_LOG2)) as u8);
}
