//! The source that has no system below it: a buffer of the caller's.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use spanalloc_sync::{Lock, Spin, rank};

use crate::{OsError, OsSource, Report, Request};

/// Bytes of what this source calls a page.
const PAGE_BYTES: usize = 4096;

/// Address space out of a buffer, from its front to its end.
///
/// The buffer's first pages hold one bit a page, which says whether it is Ready; so a page is cleared
/// when it becomes Ready and only then. `decommit` gives nothing back to anybody, it only makes the
/// next `commit` clear the pages. `release` takes back the end of what was handed out last, and
/// refuses everything else with [`OsError::Unsupported`]; the space that alignment skips is lost.
/// Hints and purposes are ignored.
///
/// Threads that wait for a lock over this source spin. `die` calls the function given to
/// [`on_misuse`](Self::on_misuse); without one, the process writes the line and aborts if the crate
/// has the feature `mmap`, and otherwise enters the program's panic handler, which it does not
/// come back from.
pub struct Fixed<'a> {
    buffer: Lock<Buffer, Spin, { rank::OS }>,
    die: fn(Report) -> !,
    lifetime: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

/// The buffer, and how much of it is handed out.
struct Buffer {
    /// Start and length as given; not aligned to anything.
    start: *mut u8,
    bytes: usize,
    /// Offset of the first page. Until the first reservation, 0 pages.
    first: usize,
    /// Whole pages from `first` on; the Ready bits are in the first of them.
    pages: usize,
    /// Pages that are not free any more, those of the Ready bits included.
    used: usize,
}

// SAFETY: the buffer belongs to the source alone, and moving the source moves only the pointer.
unsafe impl Send for Buffer {}

impl<'a> Fixed<'a> {
    /// Hands out `buffer`. It need not be aligned; what is before its first 4 KB boundary and after
    /// its last one is not used.
    pub const fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        // SAFETY: the buffer is borrowed for as long as the source lives.
        unsafe { Self::from_raw(buffer.as_mut_ptr().cast(), buffer.len()) }
    }

    /// Hands out `bytes` bytes from `start`.
    ///
    /// # Safety
    /// They are one object that may be written and that nobody else uses while the source, or
    /// anything made of its memory, is used.
    pub const unsafe fn from_raw(start: *mut u8, bytes: usize) -> Self {
        let buffer = Buffer { start, bytes, first: 0, pages: 0, used: 0 };
        Self { buffer: Lock::new(buffer), die, lifetime: PhantomData }
    }

    /// Makes `die` what ends the program. It may not allocate from an allocator over this source.
    #[must_use]
    pub const fn on_misuse(mut self, die: fn(Report) -> !) -> Self {
        self.die = die;
        self
    }

    /// Bytes that are not handed out yet; a reservation of so many may still fail for its alignment.
    pub fn available(&self) -> usize {
        let mut buffer = self.buffer.lock();
        buffer.prepare();
        (buffer.pages - buffer.used) * PAGE_BYTES
    }
}

impl fmt::Debug for Fixed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Fixed").field("available", &self.available()).finish()
    }
}

impl Buffer {
    /// Finds the pages of the buffer and clears the Ready bits, once.
    fn prepare(&mut self) {
        if self.used > 0 {
            return;
        }
        let first = self.start.addr().wrapping_neg() & (PAGE_BYTES - 1);
        let pages = self.bytes.saturating_sub(first) / PAGE_BYTES;
        let bit_pages = pages.div_ceil(8 * PAGE_BYTES);
        if pages > bit_pages {
            self.first = first;
            self.pages = pages;
            self.used = bit_pages;
            // SAFETY: the first pages of the buffer are ours and handed out to nobody.
            unsafe { ptr::write_bytes(self.start.add(first), 0, bit_pages * PAGE_BYTES) };
        }
    }

    /// The first byte of a page.
    ///
    /// # Safety
    /// `page <= self.pages`.
    unsafe fn page(&self, page: usize) -> *mut u8 {
        // SAFETY: inside the buffer or just behind it.
        unsafe { self.start.add(self.first + page * PAGE_BYTES) }
    }

    /// The page that starts at `at`.
    fn page_of(&self, at: NonNull<u8>) -> usize {
        at.addr().get().wrapping_sub(self.start.addr().wrapping_add(self.first)) / PAGE_BYTES
    }

    /// Marks a page as Ready or not; returns whether it was.
    ///
    /// # Safety
    /// `page < self.pages`.
    unsafe fn set_ready(&mut self, page: usize, ready: bool) -> bool {
        let bit = 1_u8 << (page % 8);
        // SAFETY: there is one bit for each page, in the first pages, which are ours.
        let byte = unsafe { &mut *self.page(0).add(page / 8) };
        let was = *byte & bit != 0;
        *byte = if ready { *byte | bit } else { *byte & !bit };
        was
    }
}

// SAFETY: pages are handed out once until they are released, lie inside the buffer, and are cleared
// when their Ready bit rises. Nothing allocates or unwinds.
unsafe impl OsSource for Fixed<'_> {
    type Wait = Spin;

    fn page_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let align = request.check(PAGE_BYTES)?;
        let refused = OsError::OutOfMemory { bytes: request.bytes };
        let mut buffer = self.buffer.lock();
        buffer.prepare();
        // SAFETY: no more pages are used than there are.
        let free = unsafe { buffer.page(buffer.used) };
        let skipped = (free.addr().wrapping_neg() & (align - 1)) / PAGE_BYTES;
        let page = buffer.used.checked_add(skipped).ok_or(refused)?;
        let used = page.checked_add(request.bytes / PAGE_BYTES).ok_or(refused)?;
        if used > buffer.pages {
            return Err(refused);
        }
        buffer.used = used;
        // SAFETY: `page < used <= pages`.
        NonNull::new(unsafe { buffer.page(page) }).ok_or(refused)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut buffer = self.buffer.lock();
        let first = buffer.page_of(at);
        for page in first..first + bytes / PAGE_BYTES {
            // SAFETY: the page is handed out, by the caller's promise, and nobody may touch it
            // before it is Ready.
            unsafe {
                if !buffer.set_ready(page, true) {
                    ptr::write_bytes(buffer.page(page), 0, PAGE_BYTES);
                }
            }
        }
        Ok(())
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut buffer = self.buffer.lock();
        let first = buffer.page_of(at);
        for page in first..first + bytes / PAGE_BYTES {
            // SAFETY: the page is handed out, by the caller's promise.
            unsafe { buffer.set_ready(page, false) };
        }
        Ok(())
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut buffer = self.buffer.lock();
        let first = buffer.page_of(at);
        if first + bytes / PAGE_BYTES != buffer.used {
            return Err(OsError::Unsupported);
        }
        for page in first..buffer.used {
            // SAFETY: the page is handed out, by the caller's promise.
            unsafe { buffer.set_ready(page, false) };
        }
        buffer.used = first;
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        (self.die)(report)
    }
}

/// Ends the process with the report.
#[cfg(feature = "mmap")]
fn die(report: Report) -> ! {
    crate::last_words::end_process(report)
}

/// Enters the panic handler, and nothing unwinds out of it: `stop` cannot.
#[cfg(not(feature = "mmap"))]
#[allow(clippy::panic, reason = "there is no other way to stop without a system")]
fn die(_report: Report) -> ! {
    extern "C" fn stop() -> ! {
        panic!("spanalloc: the program misused its allocator")
    }
    stop()
}
