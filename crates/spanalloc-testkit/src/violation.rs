use thiserror::Error;

use crate::Operation;

/// A promise of allocators that one did not keep.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// An object lies at an address that its Layout does not allow.
    #[error("{address:#x} is not aligned to {align}")]
    Misaligned {
        /// Address of the object.
        address: usize,
        /// The alignment asked for.
        align: usize,
    },
    /// An object goes on behind the end of the address space.
    #[error("{size} bytes from {address:#x} do not fit the address space")]
    Wraps {
        /// Address of the object.
        address: usize,
        /// The size asked for.
        size: usize,
    },
    /// Two live objects share a byte.
    #[error("{address:#x} (size {size}) overlaps {other:#x} (size {other_size})")]
    Overlap {
        /// Address of the object handed out last.
        address: usize,
        /// Its size.
        size: usize,
        /// Address of an object that lived already.
        other: usize,
        /// Its size.
        other_size: usize,
    },
    /// A byte of a live object changed.
    #[error("byte {offset} of {address:#x} (size {size}) is {found:#04x}, not {expected:#04x}")]
    Corrupted {
        /// Address of the object.
        address: usize,
        /// Its size.
        size: usize,
        /// Which byte.
        offset: usize,
        /// What was written there.
        expected: u8,
        /// What is there.
        found: u8,
    },
    /// Memory that was asked to be zero is not.
    #[error("byte {offset} of zeroed {address:#x} (size {size}) is {found:#04x}")]
    NotZero {
        /// Address of the object.
        address: usize,
        /// Its size.
        size: usize,
        /// Which byte.
        offset: usize,
        /// What is there.
        found: u8,
    },
    /// The subject's own accounts disagree with the shadow, or with themselves.
    #[error("the accounts are wrong: {0}")]
    Accounts(String),
    /// The child of a fork found something wrong, or died.
    #[error("in the child of a fork: {0}")]
    Child(String),
}

/// Where in a list of operations a [`Violation`] came to light.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("operation {step} ({operation:?}): {violation}")]
#[non_exhaustive]
pub struct Failure {
    /// The number of the operation, from 0.
    pub step: usize,
    /// The operation; None while everything is freed at the end.
    pub operation: Option<Operation>,
    /// What came to light.
    #[source]
    pub violation: Violation,
}
