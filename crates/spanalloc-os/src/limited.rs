//! The adapter that gives no more than it is allowed to.

use core::ptr::NonNull;

use crate::meter::Meter;
use crate::{OsError, OsSource, Report, Request};

/// A source with a budget: it refuses with [`OsError::OutOfMemory`] what would exceed it.
///
/// Two budgets in bytes, both changeable at run time: on address space reserved, and on memory
/// committed. A budget below what is in use refuses everything until enough is given back. Committed
/// bytes are counted as [`Counted`](crate::Counted) counts them, by what the caller's calls tell.
#[derive(Debug)]
pub struct Limited<O> {
    inner: O,
    reserved: Meter,
    reserved_limit: Meter,
    refusals: Meter,
    committed: Meter,
    committed_limit: Meter,
}

impl<O> Limited<O> {
    /// At most `reserved` bytes of address space from `inner`, and as much of it committed as it
    /// allows.
    pub const fn new(inner: O, reserved: usize) -> Self {
        Self::with_committed(inner, reserved, usize::MAX)
    }

    /// At most `reserved` bytes of address space from `inner`, and at most `committed` of them Ready.
    pub const fn with_committed(inner: O, reserved: usize, committed: usize) -> Self {
        Self {
            inner,
            reserved: Meter::new(0),
            reserved_limit: Meter::new(reserved),
            refusals: Meter::new(0),
            committed: Meter::new(0),
            committed_limit: Meter::new(committed),
        }
    }

    /// The source below.
    pub const fn inner(&self) -> &O {
        &self.inner
    }

    /// Bytes reserved and not released.
    pub fn reserved(&self) -> usize {
        self.reserved.get()
    }

    /// How often address space was refused, by this source or the one below.
    pub fn refused_reservations(&self) -> usize {
        self.refusals.get()
    }

    /// Bytes Ready now, as far as the caller's calls tell.
    pub fn committed(&self) -> usize {
        self.committed.get()
    }

    /// The budget of memory.
    pub fn committed_limit(&self) -> usize {
        self.committed_limit.get()
    }

    /// Takes note of memory that was lost: Ready until a call failed that left it with the system.
    pub fn forget_committed(&self, bytes: usize) {
        self.committed.subtract(bytes);
    }

    /// Changes the budget of address space.
    pub fn set_reserved_limit(&self, bytes: usize) {
        self.reserved_limit.set(bytes);
    }

    /// Changes the budget of memory.
    pub fn set_committed_limit(&self, bytes: usize) {
        self.committed_limit.set(bytes);
    }
}

// SAFETY: every verb is passed on unchanged to a source that keeps the contract, or refused before
// anything was changed.
unsafe impl<O: OsSource> OsSource for Limited<O> {
    type Wait = O::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        // A request that makes no sense gets its own error, whatever the budget.
        request.check(self.inner.page_bytes())?;
        let bytes = request.bytes;
        if !self.reserved.add_within(bytes, self.reserved_limit.get()) {
            self.refusals.add(1);
            return Err(OsError::OutOfMemory { bytes });
        }
        let result = self.inner.reserve(request);
        if result.is_err() {
            self.reserved.subtract(bytes);
            self.refusals.add(1);
        }
        result
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        if !self.committed.add_within(bytes, self.committed_limit.get()) {
            return Err(OsError::OutOfMemory { bytes });
        }
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.commit(at, bytes) };
        if result.is_err() {
            self.committed.subtract(bytes);
        }
        result
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.decommit(at, bytes) };
        if result.is_ok() {
            self.committed.subtract(bytes);
        }
        result
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.release(at, bytes) };
        if result.is_ok() {
            self.reserved.subtract(bytes);
            self.committed.lower_to(self.reserved.get());
        }
        result
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}
