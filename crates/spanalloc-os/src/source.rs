use core::ptr::NonNull;
use core::time::Duration;

use spanalloc_sync::Wait;

use crate::{OsError, Report};

/// What a reservation is for. A source may name or place the two differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Pages for objects.
    Arena,
    /// Tables of the allocator itself, which are never released.
    Metadata,
}

/// A wish for address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes to reserve: a multiple of [`OsSource::page_bytes`].
    pub bytes: usize,
    /// Alignment of the first byte: a power of two.
    pub align: usize,
    /// Where the space would be welcome; 0 for anywhere. A source is free to ignore it.
    pub hint: usize,
    /// What the space is for.
    pub purpose: Purpose,
}

impl Request {
    /// The checks every source makes first; returns the alignment to use, which is at least
    /// `page_bytes`, the source's own.
    ///
    /// # Errors
    /// [`OsError::BadSize`] if the size is 0, no multiple of `page_bytes`, or so large that it could
    /// not be aligned; [`OsError::BadAlign`] if the alignment is not a power of two.
    pub const fn check(&self, page_bytes: usize) -> Result<usize, OsError> {
        if !self.align.is_power_of_two() {
            return Err(OsError::BadAlign { align: self.align });
        }
        let align = if self.align > page_bytes { self.align } else { page_bytes };
        // No address range is longer than isize::MAX, the slack for the alignment included.
        let too_large = match self.bytes.checked_add(align) {
            Some(sum) => sum > isize::MAX as usize,
            None => true,
        };
        if self.bytes == 0 || self.bytes & (page_bytes - 1) != 0 || too_large {
            return Err(OsError::BadSize { bytes: self.bytes });
        }
        Ok(align)
    }
}

/// A source of address space and of the memory behind it.
///
/// The verbs are the transitions between the states of a range of addresses:
///
/// | state      | addresses | memory                        | leaves it by                              |
/// |------------|-----------|-------------------------------|-------------------------------------------|
/// | None       | not ours  | -                             | `reserve` -> Reserved                     |
/// | Reserved   | ours      | may not be touched            | `commit` -> Ready, `release` -> None      |
/// | Ready      | ours      | readable and writable         | `decommit` -> Decommitted, `guard` -> Guarded, `release` -> None |
/// | Guarded    | ours      | ends who touches it           | `unguard` -> Ready, `release` -> None     |
/// | Decommitted| ours      | may not be touched; given back| `commit` -> Ready, `release` -> None      |
///
/// Memory that becomes Ready reads as zero, whether it comes from Reserved or from Decommitted; from
/// Guarded it may hold anything.
/// Every verb takes any whole number of OS pages inside ranges that this source reserved; several
/// reservations that happen to be neighbours may be named in one call of `commit` or `decommit`.
///
/// # Safety
/// An implementor promises: `reserve` returns `bytes` bytes aligned to `align` that nobody else
/// uses until they are released; Ready memory is readable, writable and zero when it becomes
/// Ready; a verb that fails leaves the state as it was (but for [`relocate`](Self::relocate)); no verb allocates from an allocator built
/// on this source, panics or unwinds; [`page_bytes`](Self::page_bytes) is a power of two that never
/// changes.
pub unsafe trait OsSource {
    /// How threads wait for each other on this system.
    type Wait: Wait;

    /// The source below, of an adapter. The methods that a source need not have are passed on to it, those apart
    /// that the adapter has itself; what is said of them below is true where there is no source below.
    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        None::<&Self>
    }

    /// Bytes of one OS page, a run-time fact: 4 KB to 64 KB and more.
    fn page_bytes(&self) -> usize;

    /// None -> Reserved.
    ///
    /// # Errors
    /// [`OsError::BadSize`] and [`OsError::BadAlign`] for a request that makes no sense,
    /// [`OsError::OutOfMemory`] when the system refuses. Nothing is reserved then.
    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError>;

    /// Reserved or Decommitted -> Ready. Committing Ready memory changes nothing.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`] when the system refuses; the range stays as it was.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole OS pages that this source has reserved.
    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError>;

    /// Ready -> Decommitted: the memory goes back to the system, its contents are lost.
    ///
    /// # Errors
    /// [`OsError::Unsupported`] from a source that cannot, [`OsError::OutOfMemory`] when the system
    /// refuses (it may need memory to split a mapping); the range is then still Ready with its
    /// contents.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Ready OS pages of this source, and nobody uses them.
    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError>;

    /// Ready -> Guarded: touching the range ends the process. Its contents are lost or not.
    ///
    /// # Errors
    /// [`OsError::Unsupported`] from a source that cannot, which is what a source does that says
    /// nothing of it; [`OsError::OutOfMemory`] when the system refuses (it may need memory to split a
    /// mapping). The range is then still Ready with its contents.
    ///
    /// # Safety
    /// As [`decommit`](Self::decommit).
    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.guard(at, bytes) },
            None => Err(OsError::Unsupported),
        }
    }

    /// Guarded -> Ready, with any contents.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`] when the system refuses; the range is then still Guarded.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Guarded OS pages of this source.
    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.unguard(at, bytes) },
            None => Err(OsError::Unsupported),
        }
    }

    /// Makes Ready memory read as zero, where there is a better way than to write zeros to all of it.
    ///
    /// # Errors
    /// [`OsError::Unsupported`] where there is none, or none is known; its contents are then as they
    /// were.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Ready OS pages of this source, and nobody else uses them.
    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.clear(at, bytes) },
            None => Err(OsError::Unsupported),
        }
    }

    /// Gives the memory behind Ready pages back; they stay Ready, and read as zero from then on. Other threads may
    /// read them meanwhile, each of their bytes then being what it was or zero.
    ///
    /// # Errors
    /// [`OsError::Unsupported`] where that cannot be; the pages are then as they were.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Ready OS pages of this source, and nobody else writes to them.
    unsafe fn empty(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.empty(at, bytes) },
            None => Err(OsError::Unsupported),
        }
    }

    /// Says that a Ready range will soon be written to from end to end, so that the system may fill it
    /// with large pages as soon as it is touched. A source is free to ignore it, and does so unless it
    /// says more.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Ready OS pages of this source.
    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        if let Some(below) = self.below() {
            // SAFETY: the caller's promise is passed on.
            unsafe { below.expect_use(at, bytes) }
        }
    }

    /// Takes [`expect_use`](Self::expect_use) back: what is not touched is to stay away. Without it the
    /// system may fill memory that was given back in again, where some of a large page is in use. A
    /// source is free to ignore it, and does so unless it says more.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole OS pages of this source, in whatever state.
    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        if let Some(below) = self.below() {
            // SAFETY: the caller's promise is passed on.
            unsafe { below.expect_gaps(at, bytes) }
        }
    }

    /// Whether most of a range is in memory, as it is once it was written to from end to end. A source that
    /// does not know says no. Any range that is or was Ready may be asked for.
    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.below().is_some_and(|below| below.is_filled(at, bytes))
    }

    /// How many bytes of a Ready range take memory now, by whole OS pages. A source that does not know
    /// says all of them, which is what it does unless it says more.
    ///
    /// # Safety
    /// `bytes` bytes from `at` are whole Ready OS pages of this source.
    unsafe fn resident(&self, at: NonNull<u8>, bytes: usize) -> usize {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.resident(at, bytes) },
            None => bytes,
        }
    }

    /// Moves the memory of one Ready range to another without copying it: `to` has the contents of
    /// `from` then, and `from` reads as zero. What `to` held is lost.
    ///
    /// # Errors
    /// [`OsError::Unsupported`] from a source that cannot, which is what a source does that says
    /// nothing of it, or that cannot move this range; both ranges are then as they were.
    /// [`OsError::OutOfMemory`] when the system refuses: `from` is then as it was, but `to` is
    /// this source's no more (None), and nobody may use it.
    ///
    /// # Safety
    /// Both are `bytes` bytes of whole Ready OS pages of this source, and do not overlap. Nobody uses
    /// `to`, and no other thread uses `from` during the call.
    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        match self.below() {
            // SAFETY: the caller's promise is passed on.
            Some(below) => unsafe { below.relocate(from, to, bytes) },
            None => Err(OsError::Unsupported),
        }
    }

    /// Any state -> None.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`] when the system refuses; [`OsError::Unsupported`] from a source
    /// that only releases what one `reserve` returned, whole. The range then stays as it was.
    ///
    /// # Safety
    /// `bytes` bytes from `at` were reserved by this source, and nobody uses them any more.
    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError>;

    /// The time since some moment, which never goes back. None from a source that has no clock: then
    /// memory is given back only on demand.
    fn now(&self) -> Option<Duration> {
        self.below().and_then(|below| below.now())
    }

    /// The time that the calling thread has been running; all time where that is not known.
    fn busy(&self) -> Option<Duration> {
        match self.below() {
            Some(below) => below.busy(),
            None => self.now(),
        }
    }

    /// A number that nobody can foresee, another one at each call. A source that knows none says 0, which is
    /// what it does unless it says more.
    fn random(&self) -> u64 {
        self.below().map_or(0, |below| below.random())
    }

    /// Makes every thread of the process pass a full fence: what each did before that is seen by the caller
    /// afterwards, and what it does later sees what the caller did before. False, and nothing is sure, from a
    /// source that cannot.
    fn fence_threads(&self) -> bool {
        self.below().is_some_and(|below| below.fence_threads())
    }

    /// Whether the thread of this process that the system knows by this number sleeps. False if that is not
    /// known; a thread may wake up at any time.
    fn is_asleep(&self, thread: u32) -> bool {
        self.below().is_some_and(|below| below.is_asleep(thread))
    }

    /// Ends the process with the report as one line on standard error.
    ///
    /// Does not return, allocate or unwind. A fake source in a test may panic instead.
    fn die(&self, report: Report) -> !;
}

// SAFETY: every verb is passed on to a source that keeps the contract.
unsafe impl<S: OsSource + ?Sized> OsSource for &S {
    type Wait = S::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(*self)
    }

    fn page_bytes(&self) -> usize {
        (**self).page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        (**self).reserve(request)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).release(at, bytes) }
    }

    fn die(&self, report: Report) -> ! {
        (**self).die(report)
    }
}
