use thiserror::Error;

/// Why bytes are no trace. Operations are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The bytes begin as no trace does.
    #[error("not a trace")]
    NotATrace,
    /// A trace of another version.
    #[error("version {found} of traces is not known")]
    UnknownVersion {
        /// What the file says.
        found: u8,
    },
    /// The bytes end too early.
    #[error("cut off: {found} of {expected} operations are there")]
    Truncated {
        /// Whole operations that are there.
        found: u64,
        /// How many the header promises.
        expected: u64,
    },
    /// The bytes end inside of the header.
    #[error("cut off inside of the header")]
    NoHeader,
    /// The header names no cache, or more than there can be.
    #[error("{caches} caches cannot be")]
    BadCaches {
        /// What the header says.
        caches: u64,
    },
    /// A number that does not fit its place.
    #[error("operation {operation}: a number does not fit")]
    BadNumber {
        /// Which operation.
        operation: u64,
    },
    /// An operation that no trace has.
    #[error("operation {operation}: kind {kind} is not known")]
    UnknownOperation {
        /// Which operation.
        operation: u64,
        /// What it says that it is.
        kind: u64,
    },
    /// An operation on an object that never was, or was freed before.
    #[error("operation {operation}: the object {back} allocations back is not live")]
    NotLive {
        /// Which operation.
        operation: u64,
        /// How many objects were allocated after it.
        back: u64,
    },
    /// A size or alignment that nobody can ask for.
    #[error("operation {operation}: {size} bytes aligned to 2^{align_log2} cannot be asked for")]
    BadLayout {
        /// Which operation.
        operation: u64,
        /// Bytes.
        size: u64,
        /// The alignment's logarithm.
        align_log2: u64,
    },
    /// A cache that the header does not count.
    #[error("operation {operation}: there is no cache {cache}")]
    NoSuchCache {
        /// Which operation.
        operation: u64,
        /// The number of the cache, from 0.
        cache: u64,
    },
    /// Bytes behind the last operation.
    #[error("{bytes} bytes follow the last operation")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}
