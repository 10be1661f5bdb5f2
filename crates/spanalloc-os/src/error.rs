use thiserror::Error;

/// Why a source of address space did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OsError {
    /// The system has no more memory or address space to give, or a limit forbids more.
    #[error("the system refused {bytes} bytes")]
    OutOfMemory {
        /// How many bytes were asked for.
        bytes: usize,
    },
    /// The size is zero, no whole number of OS pages, or so large that aligning it overflows.
    #[error("{bytes} bytes is not a size that can be reserved")]
    BadSize {
        /// The size asked for, in bytes.
        bytes: usize,
    },
    /// The alignment is not a power of two.
    #[error("{align} is not a power of two")]
    BadAlign {
        /// The alignment asked for, in bytes.
        align: usize,
    },
    /// This source cannot do this at all, and asking again will not help.
    #[error("this source cannot do that")]
    Unsupported,
}
