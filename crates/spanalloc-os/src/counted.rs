//! The adapter that counts what goes through it.

use core::ptr::NonNull;

use crate::meter::Meter;
use crate::{OsError, OsSource, Report, Request};

/// What went through a [`Counted`] source since it was made: calls that succeeded and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceCounts {
    /// Successful calls of `reserve`.
    pub reserves: usize,
    /// Bytes they reserved.
    pub reserved_bytes: usize,
    /// Successful calls of `commit`.
    pub commits: usize,
    /// Bytes they named.
    pub committed_bytes: usize,
    /// Successful calls of `decommit`.
    pub decommits: usize,
    /// Bytes they gave back.
    pub decommitted_bytes: usize,
    /// Successful calls of `release`.
    pub releases: usize,
    /// Bytes they released.
    pub released_bytes: usize,
    /// Calls of any verb that failed.
    pub failures: usize,
}

/// A source that counts the calls and bytes of another one.
///
/// [`reserved`](Self::reserved) is exact while no call is under way. [`committed`](Self::committed)
/// believes its caller, as an adapter has no table of pages: it is exact for a caller that commits
/// only what is not Ready and decommits before it releases. Memory that is Ready when it is released
/// is taken to be the rest only once `reserved` falls below it.
#[derive(Debug)]
pub struct Counted<O> {
    inner: O,
    reserve: Tally,
    commit: Tally,
    decommit: Tally,
    release: Tally,
    failures: Meter,
    reserved: Meter,
    committed: Meter,
}

/// Calls and their bytes.
#[derive(Debug)]
struct Tally {
    calls: Meter,
    bytes: Meter,
}

impl Tally {
    const fn new() -> Self {
        Self { calls: Meter::new(0), bytes: Meter::new(0) }
    }

    fn count(&self, bytes: usize) {
        self.calls.add(1);
        self.bytes.add(bytes);
    }
}

impl<O> Counted<O> {
    /// Counts what goes through `inner` from now on.
    pub const fn new(inner: O) -> Self {
        Self {
            inner,
            reserve: Tally::new(),
            commit: Tally::new(),
            decommit: Tally::new(),
            release: Tally::new(),
            failures: Meter::new(0),
            reserved: Meter::new(0),
            committed: Meter::new(0),
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

    /// Bytes Ready now, as far as the caller's calls tell; never more than are reserved.
    pub fn committed(&self) -> usize {
        self.committed.get()
    }

    /// All calls and bytes so far.
    pub fn counts(&self) -> SourceCounts {
        SourceCounts {
            reserves: self.reserve.calls.get(),
            reserved_bytes: self.reserve.bytes.get(),
            commits: self.commit.calls.get(),
            committed_bytes: self.commit.bytes.get(),
            decommits: self.decommit.calls.get(),
            decommitted_bytes: self.decommit.bytes.get(),
            releases: self.release.calls.get(),
            released_bytes: self.release.bytes.get(),
            failures: self.failures.get(),
        }
    }

    /// Counts the call in `tally`, or as a failure; returns whether it succeeded.
    fn count<T>(&self, tally: &Tally, bytes: usize, result: &Result<T, OsError>) -> bool {
        if result.is_ok() {
            tally.count(bytes);
        } else {
            self.failures.add(1);
        }
        result.is_ok()
    }
}

// SAFETY: every verb is passed on unchanged to a source that keeps the contract.
unsafe impl<O: OsSource> OsSource for Counted<O> {
    type Wait = O::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let result = self.inner.reserve(request);
        if self.count(&self.reserve, request.bytes, &result) {
            self.reserved.add(request.bytes);
        }
        result
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.commit(at, bytes) };
        if self.count(&self.commit, bytes, &result) {
            self.committed.add(bytes);
            self.committed.lower_to(self.reserved.get());
        }
        result
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.decommit(at, bytes) };
        if self.count(&self.decommit, bytes, &result) {
            self.committed.subtract(bytes);
        }
        result
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        let result = unsafe { self.inner.release(at, bytes) };
        if self.count(&self.release, bytes, &result) {
            self.reserved.subtract(bytes);
            self.committed.lower_to(self.reserved.get());
        }
        result
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}
