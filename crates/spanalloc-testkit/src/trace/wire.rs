//! The bytes of a trace; `docs/traces.md` describes them.
//!
//! Objects are numbered in the order they are allocated, and named by how many were allocated since:
//! most frees are of young objects, so that most take two bytes.

use super::plain::is_sound;
use super::{Trace, TraceError};
use crate::Operation;

const MAGIC: &[u8; 16] = b"spanalloc trace\n";
const VERSION: u8 = 1;

/// The low bits of the first number of an operation, which say what it is.
const KIND_BITS: u32 = 3;
const ALLOC: u64 = 0;
const ALLOC_ZEROED: u64 = 1;
const ALLOC_ALIGNED: u64 = 2;
const FREE: u64 = 3;
const REALLOC: u64 = 4;
const SWITCH: u64 = 5;
const ADVANCE: u64 = 6;
const OTHER: u64 = 7;
/// What follows [`OTHER`].
const RESTART: u64 = 0;
const RELEASE: u64 = 1;
const SCAVENGE: u64 = 2;
const OS_FAILS: u64 = 3;
const OS_WORKS: u64 = 4;
const FORK: u64 = 5;

/// The alignment of C's `malloc`, which is not written down: 16.
const USUAL_ALIGN_LOG2: u32 = 4;

/// A live object that freed ones have taken the place of.
const GONE: u32 = u32::MAX;

pub(super) fn encode(trace: &Trace) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    push(&mut bytes, trace.caches.into());
    push(&mut bytes, trace.operations.len() as u64);
    // The numbers of the live objects, in their order.
    let (mut live, mut born) = (Vec::new(), 0_u64);
    for operation in &trace.operations {
        let back = |live: &[u64], index: u32| born - 1 - live[index as usize];
        match *operation {
            Operation::Alloc { size, align } => {
                push_alloc(&mut bytes, size, align, false);
                live.push(born);
                born += 1;
            }
            Operation::AllocZeroed { size, align } => {
                push_alloc(&mut bytes, size, align, true);
                live.push(born);
                born += 1;
            }
            Operation::Free { index } => {
                push_operation(&mut bytes, FREE, back(&live, index));
                live.swap_remove(index as usize);
            }
            Operation::Realloc { index, size } => {
                push_operation(&mut bytes, REALLOC, back(&live, index));
                push(&mut bytes, size as u64);
            }
            Operation::Switch { cache } => push_operation(&mut bytes, SWITCH, cache.into()),
            Operation::Advance { microseconds } => {
                push_operation(&mut bytes, ADVANCE, microseconds.into());
            }
            Operation::Restart { cache } => {
                push_operation(&mut bytes, OTHER, RESTART);
                push(&mut bytes, cache.into());
            }
            Operation::Release { most } => {
                push_operation(&mut bytes, OTHER, RELEASE);
                push(&mut bytes, most.into());
            }
            Operation::Scavenge { pieces } => {
                push_operation(&mut bytes, OTHER, SCAVENGE);
                push(&mut bytes, pieces.into());
            }
            Operation::OsFails { verb, after, calls } => {
                // The plain form has no others.
                let Some(verb) = Operation::verb_number(verb) else { continue };
                push_operation(&mut bytes, OTHER, OS_FAILS);
                push(&mut bytes, verb.into());
                push(&mut bytes, after.into());
                push(&mut bytes, calls.into());
            }
            Operation::OsWorks => push_operation(&mut bytes, OTHER, OS_WORKS),
            Operation::Fork => push_operation(&mut bytes, OTHER, FORK),
            // Not in the plain form.
            Operation::AllocMany { .. }
            | Operation::FreeMany { .. }
            | Operation::FreeRemote { .. } => {}
        }
    }
    bytes
}

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit set.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// What an operation begins with. No payload needs the bits of the kind: sizes end at 64 GB.
fn push_operation(bytes: &mut Vec<u8>, kind: u64, payload: u64) {
    push(bytes, payload << KIND_BITS | kind);
}

fn push_alloc(bytes: &mut Vec<u8>, size: usize, align: usize, zeroed: bool) {
    let align_log2 = align.trailing_zeros();
    if align_log2 == USUAL_ALIGN_LOG2 {
        let kind = if zeroed { ALLOC_ZEROED } else { ALLOC };
        return push_operation(bytes, kind, size as u64);
    }
    push_operation(bytes, ALLOC_ALIGNED, size as u64);
    push(bytes, u64::from(align_log2 << 1) | u64::from(zeroed));
}

/// Why a number could not be read.
enum NoNumber {
    End,
    TooLarge,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&mut self) -> Result<u64, NoNumber> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let (byte, rest) = self.0.split_first().ok_or(NoNumber::End)?;
            let bits = u64::from(byte & 0x7f);
            if shift >= u64::BITS || bits << shift >> shift != bits {
                return Err(NoNumber::TooLarge);
            }
            self.0 = rest;
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Trace, TraceError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| match MAGIC.starts_with(bytes) {
        true if !bytes.is_empty() => TraceError::NoHeader,
        _ => TraceError::NotATrace,
    })?;
    let (version, rest) = rest.split_first().ok_or(TraceError::NoHeader)?;
    if *version != VERSION {
        return Err(TraceError::UnknownVersion { found: *version });
    }
    let mut bytes = Bytes(rest);
    let header = |number| match number {
        Err(NoNumber::End) => Err(TraceError::NoHeader),
        Err(NoNumber::TooLarge) => Err(TraceError::BadNumber { operation: 0 }),
        Ok(number) => Ok(number),
    };
    let caches = header(bytes.number())?;
    let count = header(bytes.number())?;
    let caches = match u16::try_from(caches) {
        Ok(caches) if caches > 0 => caches,
        _ => return Err(TraceError::BadCaches { caches }),
    };
    // What the header promises is not believed: an operation has a byte at least.
    let room = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.0.len());
    let mut reader = Reader {
        bytes,
        caches,
        number: 0,
        count,
        places: Vec::new(),
        live: Vec::new(),
        aligns: Vec::new(),
        operations: Vec::with_capacity(room),
    };
    while reader.number < count {
        reader.read()?;
        reader.number += 1;
    }
    match reader.bytes.0.len() {
        0 => Ok(Trace { caches, operations: reader.operations }),
        bytes => Err(TraceError::TrailingBytes { bytes }),
    }
}

struct Reader<'a> {
    bytes: Bytes<'a>,
    caches: u16,
    /// Of the operation that is being read.
    number: u64,
    /// How many there must be.
    count: u64,
    /// Where each object is in `live`, or [`GONE`].
    places: Vec<u32>,
    /// The numbers of the live objects, in their order.
    live: Vec<u32>,
    /// Logarithms of their alignments.
    aligns: Vec<u8>,
    operations: Vec<Operation>,
}

impl Reader<'_> {
    fn number(&mut self) -> Result<u64, TraceError> {
        let operation = self.number;
        self.bytes.number().map_err(|why| match why {
            NoNumber::End => TraceError::Truncated { found: operation, expected: self.count },
            NoNumber::TooLarge => TraceError::BadNumber { operation },
        })
    }

    fn read(&mut self) -> Result<(), TraceError> {
        let first = self.number()?;
        let (kind, payload) = (first & ((1 << KIND_BITS) - 1), first >> KIND_BITS);
        let operation = match kind {
            ALLOC => self.alloc(payload, USUAL_ALIGN_LOG2.into(), false)?,
            ALLOC_ZEROED => self.alloc(payload, USUAL_ALIGN_LOG2.into(), true)?,
            ALLOC_ALIGNED => {
                let how = self.number()?;
                self.alloc(payload, how >> 1, how & 1 != 0)?
            }
            FREE => {
                let index = self.find(payload)?;
                self.remove(index);
                Operation::Free { index }
            }
            REALLOC => {
                let index = self.find(payload)?;
                let align_log2 = self.aligns[index as usize].into();
                let size = self.number()?;
                Operation::Realloc { index, size: self.layout(size, align_log2)?.0 }
            }
            SWITCH => Operation::Switch { cache: self.cache(payload)? },
            ADVANCE => Operation::Advance { microseconds: self.fitting(payload)? },
            _ => match payload {
                RESTART => {
                    let cache = self.number()?;
                    Operation::Restart { cache: self.cache(cache)? }
                }
                RELEASE => {
                    let most = self.number()?;
                    Operation::Release { most: self.fitting(most)? }
                }
                SCAVENGE => {
                    let pieces = self.number()?;
                    Operation::Scavenge { pieces: self.fitting(pieces)? }
                }
                OS_FAILS => self.os_fails()?,
                OS_WORKS => Operation::OsWorks,
                FORK => Operation::Fork,
                kind => {
                    return Err(TraceError::UnknownOperation { operation: self.number, kind });
                }
            },
        };
        self.operations.push(operation);
        Ok(())
    }

    fn alloc(&mut self, size: u64, log2: u64, zeroed: bool) -> Result<Operation, TraceError> {
        let (size, align) = self.layout(size, log2)?;
        // There are fewer objects than bytes in memory, and 4 GB of them are not read.
        let (number, place) = (self.fitting(self.places.len() as u64)?, self.live.len() as u32);
        if number == GONE {
            return Err(TraceError::BadNumber { operation: self.number });
        }
        self.places.push(place);
        self.live.push(number);
        self.aligns.push(log2 as u8);
        Ok(match zeroed {
            true => Operation::AllocZeroed { size, align },
            false => Operation::Alloc { size, align },
        })
    }

    fn os_fails(&mut self) -> Result<Operation, TraceError> {
        let (verb, after, calls) = (self.number()?, self.number()?, self.number()?);
        let verb = usize::try_from(verb).ok().and_then(|verb| Operation::VERBS.get(verb));
        let verb = *verb.ok_or(TraceError::BadNumber { operation: self.number })?;
        Ok(Operation::OsFails { verb, after: self.fitting(after)?, calls: self.fitting(calls)? })
    }

    /// The index of the object that `back` others were allocated after.
    fn find(&self, back: u64) -> Result<u32, TraceError> {
        let object = (self.places.len() as u64).checked_sub(1).and_then(|it| it.checked_sub(back));
        let place = object.and_then(|object| self.places.get(usize::try_from(object).ok()?));
        match place {
            Some(place) if *place != GONE => Ok(*place),
            _ => Err(TraceError::NotLive { operation: self.number, back }),
        }
    }

    /// The last object takes the index of the one that goes.
    fn remove(&mut self, index: u32) {
        let gone = self.live.swap_remove(index as usize);
        self.aligns.swap_remove(index as usize);
        self.places[gone as usize] = GONE;
        if let Some(moved) = self.live.get(index as usize) {
            self.places[*moved as usize] = index;
        }
    }

    fn layout(&self, size: u64, align_log2: u64) -> Result<(usize, usize), TraceError> {
        let bad = TraceError::BadLayout { operation: self.number, size, align_log2 };
        let align = u32::try_from(align_log2).ok().and_then(|log2| 1_usize.checked_shl(log2));
        match (usize::try_from(size), align) {
            (Ok(size), Some(align)) if is_sound(size, align) => Ok((size, align)),
            _ => Err(bad),
        }
    }

    fn cache(&self, cache: u64) -> Result<u16, TraceError> {
        match u16::try_from(cache) {
            Ok(cache) if cache < self.caches => Ok(cache),
            _ => Err(TraceError::NoSuchCache { operation: self.number, cache }),
        }
    }

    fn fitting<T: TryFrom<u64>>(&self, number: u64) -> Result<T, TraceError> {
        T::try_from(number).map_err(|_| TraceError::BadNumber { operation: self.number })
    }
}
