//! Operations as a file: what a program did to its allocator, from its start to its end.

mod error;
mod plain;
mod wire;

pub use error::TraceError;

use crate::Operation;

/// A list of operations in its plain form, as it is kept in files.
///
/// In the plain form every operation does something and does one thing: indices are below the number
/// of live objects and caches below [`caches`](Self::caches), and there are no operations on many
/// objects or through another cache. So a trace means the same whatever replays it, as long as no
/// request is refused; who refuses one keeps the place of the object (see [`Playback`](crate::Playback)).
///
/// `docs/traces.md` describes the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    caches: u16,
    operations: Vec<Operation>,
}

impl Trace {
    /// The plain form of `operations` on `caches` caches, at least 1. What does nothing is left out, and
    /// so is what cannot be asked for (a size that makes no Layout, or is above
    /// [`MOST_BYTES`](Self::MOST_BYTES)).
    #[must_use]
    pub fn new(caches: u16, operations: &[Operation]) -> Self {
        let caches = caches.max(1);
        Self { caches, operations: plain::plain(caches, operations) }
    }

    /// The largest object that a trace may hold: 64 GB.
    pub const MOST_BYTES: usize = if usize::BITS == 32 { isize::MAX as usize } else { 1 << 36 };

    /// How many caches it takes to replay the operations.
    #[must_use]
    pub fn caches(&self) -> u16 {
        self.caches
    }

    /// The operations.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The bytes of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// What the bytes of a file stand for.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, TraceError> {
        wire::decode(bytes)
    }
}
