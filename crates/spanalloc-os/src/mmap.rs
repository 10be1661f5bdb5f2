//! The source that asks a unix system for address space first and for memory later.

use core::ptr::NonNull;
use core::time::Duration;

use spanalloc_sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::last_words::end_process;
use crate::system;
use crate::wait::SystemWait;
use crate::{OsError, OsSource, Purpose, Report, Request};

/// Anonymous private mappings of a unix system.
///
/// | verb       | Linux                                     | other unix                       |
/// |------------|-------------------------------------------|----------------------------------|
/// | `reserve`  | `mmap` without rights, trimmed to align   | the same                         |
/// | `commit`   | `mprotect` to read and write              | the same                         |
/// | `decommit` | `madvise(MADV_DONTNEED)`; if that is refused (locked memory), a new mapping without rights over the old | the new mapping |
/// | `guard`    | `madvise(MADV_GUARD_INSTALL)` (6.13); if that is refused, `mprotect` to no rights | the latter |
/// | `unguard`  | `madvise(MADV_GUARD_REMOVE)`, and `mprotect` if guards were made by that | the latter |
/// | `clear`    | `madvise(MADV_DONTNEED)`, if little of the range is in memory | - |
/// | `expect_use` | `madvise(MADV_HUGEPAGE)`                | -                                |
/// | `expect_gaps` | `madvise(MADV_NOHUGEPAGE)`              | -                                |
/// | `is_filled` | `mincore` of a few pages                 | no                               |
/// | `resident` | `mincore`                                 | all of it                        |
/// | `relocate` | `mremap`; as long as the kernel can (5.7 and later), and never refused | - |
/// | `release`  | `munmap`                                  | the same                         |
///
/// Reserved space has no rights, so it is neither charged (`vm.overcommit_memory=2`) nor filled in
/// (`mlockall(MCL_FUTURE)`) before it is committed. Decommitted memory on Linux keeps its rights,
/// which is cheap and splits no mapping; the kernel hands it out again as zeroes. With
/// `vm.overcommit_memory=2` it therefore stays charged. If a mapping was made too long in order to
/// align it and the system refuses to trim it, the rest stays reserved and unused.
///
/// A program that wants all its future memory locked gets that of what is committed: reserved space is
/// unlocked again, and locked as it becomes Ready, as far as its limit on locked memory goes.
///
/// Reservations lie where the system puts its mappings, or some way below. A [`scattered`](Self::scattered)
/// source puts each one for which no place is wished at random.
///
/// On Linux the mappings are called `spanalloc arena` and `spanalloc metadata` in
/// `/proc/self/maps`, if the kernel knows names. No verb changes `errno`.
#[derive(Debug)]
pub struct Mmap {
    /// The size of a page, 0 before somebody asked. Whoever finds 0 stores the same number.
    page_bytes: AtomicUsize,
    /// Whether the program wants all its memory locked, as of the last reservation.
    locks: AtomicBool,
    /// Whether memory can be moved: [`UNKNOWN`], [`YES`] or [`NO`].
    relocates: AtomicU8,
    /// How guards are made: [`UNKNOWN`], [`YES`] for without changing rights, [`NO`] for by rights.
    marks: AtomicU8,
    /// Whether any guard was made by rights.
    forbids: AtomicBool,
    /// Whether reservations lie at random places.
    scatters: bool,
}

/// How far below the program's other mappings the first arena lies: 1 TB, or 1 GB with 32 bits. The
/// arenas that follow lie behind it one by one, so that objects can grow from one into the next, and lower
/// addresses, which are used first, are those that were used before.
const ROOM_ABOVE: usize = 1 << if usize::BITS == 32 { 30 } else { 40 };

/// The places of which one is chosen for a reservation if they are scattered: 2^18, 64 MB apart, so that
/// all lie within 16 TB; with 32 bits 2^4, within 1 GB.
const PLACE_BITS: u32 = if usize::BITS == 32 { 4 } else { 18 };
/// Bytes from one place to the next: an arena of `Any64`.
const PLACE_BYTES: usize = 64 << 20;

/// Ranges shorter than this are cleared by writing zeros: 256 KB.
const CLEARED_BYTES: usize = 256 << 10;

/// Nobody tried yet.
const UNKNOWN: u8 = 0;
/// The kernel can.
const YES: u8 = 1;
/// The kernel cannot, or refused.
const NO: u8 = 2;

impl Mmap {
    /// The system as it is.
    pub const fn new() -> Self {
        Self {
            page_bytes: AtomicUsize::new(0),
            locks: AtomicBool::new(false),
            relocates: AtomicU8::new(UNKNOWN),
            marks: AtomicU8::new(UNKNOWN),
            forbids: AtomicBool::new(false),
            scatters: false,
        }
    }

    /// The system as it is, with random places: the first arena, any other for which there is no room behind
    /// those before it, and each reservation of metadata lie at one of 2^18 places, 64 MB apart, over 16 TB.
    /// Where addresses have 32 bits, at one of 2^4, over 1 GB.
    pub const fn scattered() -> Self {
        Self { scatters: true, ..Self::new() }
    }

    /// How far below the system's own choice a reservation should lie; None if that is as good as any.
    fn distance(&self, purpose: Purpose) -> Option<usize> {
        if self.scatters {
            let place = system::random() >> (u64::BITS - PLACE_BITS);
            return ROOM_ABOVE.checked_add(usize::try_from(place).ok()?.checked_mul(PLACE_BYTES)?);
        }
        (purpose == Purpose::Arena).then_some(ROOM_ABOVE)
    }

    #[cold]
    #[inline(never)]
    fn page_bytes_slow(&self) -> usize {
        let bytes = system::page_bytes();
        self.page_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Whether the kernel moves memory and leaves nothing of where it was to others.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn can_relocate(&self) -> bool {
        if self.relocates.load(Ordering::Relaxed) == UNKNOWN {
            let answer = if system::can_relocate(self.page_bytes()) { YES } else { NO };
            // Another thread may have been refused meanwhile, which stays.
            let (unknown, relaxed) = (UNKNOWN, Ordering::Relaxed);
            let _ = self.relocates.compare_exchange(unknown, answer, relaxed, relaxed);
        }
        self.relocates.load(Ordering::Relaxed) == YES
    }

    /// Maps `bytes` bytes so far below where the system put them, so that there is room for more behind them.
    /// As they are if that is not to be had.
    fn map_below(first: NonNull<u8>, distance: usize, bytes: usize, align: usize) -> NonNull<u8> {
        let Some(hint) = first.addr().get().checked_sub(distance) else {
            return first;
        };
        // The first byte of an arena of `Any64`, so that no small reservation lies in two.
        let Some(below) = system::map(hint & !(align.max(PLACE_BYTES) - 1), bytes) else {
            return first;
        };
        // SAFETY: both mappings were just made and nobody uses them. What the system does not take back
        // stays reserved and unused.
        unsafe {
            if below.addr().get() & (align - 1) == 0 && below < first {
                system::unmap(first, bytes);
                below
            } else {
                system::unmap(below, bytes);
                first
            }
        }
    }

    /// Maps `bytes` bytes aligned to `align`, which is more than a page, out of a larger mapping.
    #[cold]
    #[inline(never)]
    fn map_aligned_slow(bytes: usize, align: usize, page: usize) -> Option<NonNull<u8>> {
        let longer = bytes + (align - page);
        let start = system::map(0, longer)?;
        let head = start.addr().get().wrapping_neg() & (align - 1);
        let tail = longer - head - bytes;
        // SAFETY: both are whole pages of the mapping just made, which nobody uses, and what is
        // between them is `bytes` bytes. If the system refuses, they remain ours and unused.
        unsafe {
            if head > 0 {
                system::unmap(start, head);
            }
            let at = start.add(head);
            if tail > 0 {
                system::unmap(at.add(bytes), tail);
            }
            Some(at)
        }
    }
}

impl Default for Mmap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a mapping the kernel made without MAP_FIXED overlaps no other; pages are readable and
// writable after mprotect, and zero when first touched, after MADV_DONTNEED on Linux, and in a new
// mapping; a call the kernel refuses leaves the mapping as it was. None allocates or unwinds.
unsafe impl OsSource for Mmap {
    type Wait = SystemWait;

    #[inline]
    fn page_bytes(&self) -> usize {
        match self.page_bytes.load(Ordering::Relaxed) {
            0 => self.page_bytes_slow(),
            bytes => bytes,
        }
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let page = self.page_bytes();
        let align = request.check(page)?;
        let bytes = request.bytes;
        let refused = OsError::OutOfMemory { bytes };
        // The first answer is often aligned: after a hint, or above another arena.
        let mut first = system::map(request.hint, bytes).ok_or(refused)?;
        if request.hint == 0 {
            if let Some(distance) = self.distance(request.purpose) {
                first = Self::map_below(first, distance, bytes, align);
            }
        }
        let at = if first.addr().get() & (align - 1) == 0 {
            first
        } else {
            // SAFETY: the mapping was just made and nobody uses it. If the system will not take it
            // back, it stays reserved and unused.
            unsafe { system::unmap(first, bytes) };
            Self::map_aligned_slow(bytes, align, page).ok_or(refused)?
        };
        let name = match request.purpose {
            Purpose::Arena => c"spanalloc arena",
            Purpose::Metadata => c"spanalloc metadata",
        };
        system::name(at, bytes, name);
        let locks = system::is_locked(at, page);
        if locks {
            system::unlock(at, bytes);
        }
        self.locks.store(locks, Ordering::Relaxed);
        Ok(at)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the pages are ours, by the caller's promise.
        let done = unsafe { system::allow(at, bytes) };
        if done && self.locks.load(Ordering::Relaxed) {
            system::lock(at, bytes);
        }
        if done { Ok(()) } else { Err(OsError::OutOfMemory { bytes }) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // SAFETY: the pages are ours and nobody uses them, by the caller's promise.
            if unsafe { system::discard(at, bytes) } {
                return Ok(());
            }
        }
        // SAFETY: as above.
        let done = unsafe { system::map_again(at, bytes) };
        if done && self.locks.load(Ordering::Relaxed) {
            system::unlock(at, bytes);
        }
        if done { Ok(()) } else { Err(OsError::OutOfMemory { bytes }) }
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.marks.load(Ordering::Relaxed) != NO {
            // SAFETY: the pages are ours and nobody uses them, by the caller's promise.
            let done = unsafe { system::mark(at, bytes) };
            if done {
                self.marks.store(YES, Ordering::Relaxed);
                return Ok(());
            }
            // What another thread could do stays known.
            let _ = self.marks.compare_exchange(UNKNOWN, NO, Ordering::Relaxed, Ordering::Relaxed);
        }
        // SAFETY: the pages are ours and nobody uses them, by the caller's promise.
        let done = unsafe { system::forbid(at, bytes) };
        if done {
            self.forbids.store(true, Ordering::Relaxed);
        }
        if done { Ok(()) } else { Err(OsError::OutOfMemory { bytes }) }
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut done = true;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.marks.load(Ordering::Relaxed) == YES {
            // SAFETY: the pages are ours, by the caller's promise.
            done = unsafe { system::unmark(at, bytes) };
        }
        // Relaxed: whoever unguards a page knows of its guard, and so of how it was made.
        if done && self.forbids.load(Ordering::Relaxed) {
            // SAFETY: as above.
            done = unsafe { system::allow(at, bytes) };
        }
        if done { Ok(()) } else { Err(OsError::OutOfMemory { bytes }) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the pages are ours and nobody else uses them, by the caller's promise.
        let cleared = unsafe {
            bytes >= CLEARED_BYTES
                && system::is_sparse(at, bytes, self.page_bytes())
                && system::discard(at, bytes)
        };
        if cleared { Ok(()) } else { Err(OsError::Unsupported) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn empty(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the pages are ours and nobody else writes to them, by the caller's promise.
        if unsafe { system::discard(at, bytes) } { Ok(()) } else { Err(OsError::Unsupported) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        system::prefer_huge_pages(at, bytes, true);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        system::prefer_huge_pages(at, bytes, false);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        system::is_dense(at, bytes, self.page_bytes())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn resident(&self, at: NonNull<u8>, bytes: usize) -> usize {
        // SAFETY: the pages are ours, by the caller's promise.
        unsafe { system::resident(at, bytes, self.page_bytes()) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        // Locked memory counts at both places for a moment, which its limit may forbid. What lies in
        // several mappings some kernels refuse, and by then the pages of `to` are gone.
        let possible = !self.locks.load(Ordering::Relaxed)
            && self.can_relocate()
            // SAFETY: the pages are ours, by the caller's promise.
            && unsafe { system::is_one_mapping(from, bytes, self.page_bytes()) };
        if !possible {
            return Err(OsError::Unsupported);
        }
        // SAFETY: both ranges are ours and nobody uses `to`, by the caller's promise.
        if unsafe { system::relocate(from, to, bytes) } {
            return Ok(());
        }
        // Whether `to` was unmapped before the kernel gave up is not known, and another thread may
        // have got it: so it is given up, and no more is risked.
        self.relocates.store(NO, Ordering::Relaxed);
        Err(OsError::OutOfMemory { bytes })
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the pages are ours and nobody uses them, by the caller's promise.
        let done = unsafe { system::unmap(at, bytes) };
        if done { Ok(()) } else { Err(OsError::OutOfMemory { bytes }) }
    }

    fn now(&self) -> Option<Duration> {
        system::time(libc::CLOCK_MONOTONIC)
    }

    fn busy(&self) -> Option<Duration> {
        system::time(libc::CLOCK_THREAD_CPUTIME_ID).or_else(|| self.now())
    }

    fn random(&self) -> u64 {
        system::random()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn fence_threads(&self) -> bool {
        crate::threads::fence_threads()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn is_asleep(&self, thread: u32) -> bool {
        crate::threads::is_asleep(thread)
    }

    fn die(&self, report: Report) -> ! {
        end_process(report)
    }
}
