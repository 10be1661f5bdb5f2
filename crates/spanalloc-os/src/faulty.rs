//! The adapter that fails when it is told to.

use core::ptr::NonNull;

use crate::meter::Meter;
use crate::{OsError, OsSource, Report, Request};

/// A call of an [`OsSource`] that may fail: each verb, and each kind of question and of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// None -> Reserved.
    Reserve,
    /// Reserved or Decommitted -> Ready.
    Commit,
    /// Ready -> Decommitted.
    Decommit,
    /// The memory of one range becomes that of another.
    Relocate,
    /// Any state -> None.
    Release,
    /// Ready -> Guarded.
    Guard,
    /// Guarded -> Ready.
    Unguard,
    /// Ready memory reads as zero. Fails with [`OsError::Unsupported`].
    Clear,
    /// The memory behind Ready pages goes back. Fails with [`OsError::Unsupported`].
    Empty,
    /// What is said of use to come: [`expect_use`](OsSource::expect_use) and
    /// [`expect_gaps`](OsSource::expect_gaps). One that fails is not heard.
    Advise,
    /// What is asked of memory: [`is_filled`](OsSource::is_filled) and [`resident`](OsSource::resident). One
    /// that fails is answered as by a source that does not know.
    Inspect,
}

impl Verb {
    /// Every one of them.
    pub const ALL: [Self; 11] = [
        Self::Reserve,
        Self::Commit,
        Self::Decommit,
        Self::Relocate,
        Self::Release,
        Self::Guard,
        Self::Unguard,
        Self::Clear,
        Self::Empty,
        Self::Advise,
        Self::Inspect,
    ];
}

/// A source whose verbs fail when they are told to, with [`OsError::OutOfMemory`] unless [`Verb`] says
/// otherwise, and otherwise do what the source below does. For tests; a call that fails does not reach the
/// source below.
#[derive(Debug)]
pub struct Faulty<O> {
    inner: O,
    reserve: Plan,
    commit: Plan,
    decommit: Plan,
    relocate: Plan,
    release: Plan,
    guard: Plan,
    unguard: Plan,
    clear: Plan,
    empty: Plan,
    advise: Plan,
    inspect: Plan,
}

/// Which calls of one verb fail: those numbered `from..until`, the first call being number 1.
#[derive(Debug)]
struct Plan {
    calls: Meter,
    failures: Meter,
    from: Meter,
    until: Meter,
}

impl Plan {
    const fn new() -> Self {
        Self {
            calls: Meter::new(0),
            failures: Meter::new(0),
            from: Meter::new(0),
            until: Meter::new(0),
        }
    }

    /// Counts a call; an error if it is one that fails.
    fn call(&self, bytes: usize) -> Result<(), OsError> {
        let number = self.calls.add(1);
        if self.from.get() <= number && number < self.until.get() {
            self.failures.add(1);
            return Err(OsError::OutOfMemory { bytes });
        }
        Ok(())
    }

    fn fail(&self, from: usize, calls: usize) {
        let from = self.calls.get().saturating_add(from);
        self.until.set(0);
        self.from.set(from);
        self.until.set(from.saturating_add(calls));
    }
}

impl<O> Faulty<O> {
    /// `inner`, with no fault planned.
    pub const fn new(inner: O) -> Self {
        Self {
            inner,
            reserve: Plan::new(),
            commit: Plan::new(),
            decommit: Plan::new(),
            relocate: Plan::new(),
            release: Plan::new(),
            guard: Plan::new(),
            unguard: Plan::new(),
            clear: Plan::new(),
            empty: Plan::new(),
            advise: Plan::new(),
            inspect: Plan::new(),
        }
    }

    /// The source below.
    pub const fn inner(&self) -> &O {
        &self.inner
    }

    const fn plan(&self, verb: Verb) -> &Plan {
        match verb {
            Verb::Reserve => &self.reserve,
            Verb::Commit => &self.commit,
            Verb::Decommit => &self.decommit,
            Verb::Relocate => &self.relocate,
            Verb::Release => &self.release,
            Verb::Guard => &self.guard,
            Verb::Unguard => &self.unguard,
            Verb::Clear => &self.clear,
            Verb::Empty => &self.empty,
            Verb::Advise => &self.advise,
            Verb::Inspect => &self.inspect,
        }
    }

    /// The `nth` call of `verb` from now fails, only that; 1 is the next one. Replaces what was
    /// planned for the verb.
    pub fn fail_nth(&self, verb: Verb, nth: usize) {
        self.plan(verb).fail(nth, 1);
    }

    /// The `nth` call of `verb` from now fails, and every call after it; 1 is the next one. Replaces
    /// what was planned for the verb.
    pub fn fail_from(&self, verb: Verb, nth: usize) {
        self.plan(verb).fail(nth, usize::MAX);
    }

    /// The `nth` call of `verb` from now fails, and those after it up to `calls` in all; 1 is the next
    /// one. Replaces what was planned for the verb.
    pub fn fail_calls(&self, verb: Verb, nth: usize, calls: usize) {
        self.plan(verb).fail(nth, calls);
    }

    /// No call fails any more, until a fault is planned again.
    pub fn heal(&self) {
        for verb in Verb::ALL {
            self.plan(verb).until.set(0);
        }
    }

    /// Calls of `verb` so far, those that failed included.
    pub fn calls(&self, verb: Verb) -> usize {
        self.plan(verb).calls.get()
    }

    /// Calls of `verb` that failed as planned.
    pub fn failures(&self, verb: Verb) -> usize {
        self.plan(verb).failures.get()
    }
}

// SAFETY: a verb is passed on unchanged to a source that keeps the contract, or fails before
// anything was changed.
unsafe impl<O: OsSource> OsSource for Faulty<O> {
    type Wait = O::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        self.reserve.call(request.bytes)?;
        self.inner.reserve(request)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.commit.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.decommit.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.guard.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.guard(at, bytes) }
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.unguard.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.unguard(at, bytes) }
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.clear.call(bytes).map_err(|_| OsError::Unsupported)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.clear(at, bytes) }
    }

    unsafe fn empty(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.empty.call(bytes).map_err(|_| OsError::Unsupported)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.empty(at, bytes) }
    }

    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        if self.advise.call(bytes).is_ok() {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.inner.expect_use(at, bytes) }
        }
    }

    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        if self.advise.call(bytes).is_ok() {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.inner.expect_gaps(at, bytes) }
        }
    }

    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.inspect.call(bytes).is_ok() && self.inner.is_filled(at, bytes)
    }

    unsafe fn resident(&self, at: NonNull<u8>, bytes: usize) -> usize {
        if self.inspect.call(bytes).is_err() {
            return bytes;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.resident(at, bytes) }
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        self.relocate.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.relocate(from, to, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.release.call(bytes)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes) }
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}
