//! The source that needs nothing but memmap2: Linux, macOS and Windows.

use core::hash::{BuildHasher, Hasher};
use core::ptr::{self, NonNull};
use std::hash::RandomState;

use memmap2::{MmapMut, MmapOptions};
use spanalloc_sync::atomic::{AtomicUsize, Ordering};
use spanalloc_sync::{Lock, rank};

use crate::last_words::end_process;
use crate::wait::SystemWait;
use crate::{OsError, OsSource, Report, Request};

/// One mapping of memmap2. It lies in the mapping itself, just before the aligned bytes that were
/// handed out.
struct Header {
    /// The whole mapping, this header included.
    mapping: MmapMut,
    /// What was handed out.
    at: NonNull<u8>,
    bytes: usize,
    /// The mapping made before this one.
    next: *mut Header,
}

/// All mappings, the newest first.
struct Mappings(*mut Header);

// SAFETY: the headers are reached only through the list, and the list only under its lock.
unsafe impl Send for Mappings {}

impl Mappings {
    /// The link to the mapping whose handed-out bytes include `address`; null if there is none.
    fn find(&mut self, address: usize) -> *mut *mut Header {
        let mut link = ptr::from_mut(&mut self.0);
        // SAFETY: every link is null or names a header, which lives until it is unlinked; the list
        // is borrowed mutably, so nobody else follows it.
        unsafe {
            while let Some(header) = (*link).as_mut() {
                if address.wrapping_sub(header.at.addr().get()) < header.bytes {
                    return link;
                }
                link = &raw mut header.next;
            }
        }
        ptr::null_mut()
    }
}

/// Anonymous mappings made by memmap2, readable and writable from the start.
///
/// Reserved and Ready are one state to the system: memory is filled in when it is first touched, but
/// it is charged when it is reserved where the system charges (`vm.overcommit_memory=2`, Windows),
/// and filled in at once after `mlockall(MCL_FUTURE)`. The address space that alignment takes is
/// kept. Where that matters, `Mmap` is the better source.
///
/// `decommit` gives memory back on Linux and is [`OsError::Unsupported`] elsewhere, because only
/// Linux promises that such memory then reads as zero. `release` takes back what one `reserve`
/// returned, whole. Hints and purposes are ignored. Each reservation costs one page for its header,
/// and `decommit` and `release` walk the list of reservations under a lock.
#[derive(Debug)]
pub struct Portable {
    mappings: Lock<Mappings, SystemWait, { rank::OS }>,
    /// The size of a page, 0 before somebody asked. Whoever finds 0 stores the same number.
    page_bytes: AtomicUsize,
}

impl core::fmt::Debug for Mappings {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("Mappings")
    }
}

impl Portable {
    /// A source with no reservation. Dropping it leaves its reservations in place.
    pub const fn new() -> Self {
        Self { mappings: Lock::new(Mappings(ptr::null_mut())), page_bytes: AtomicUsize::new(0) }
    }

    /// As [`new`](Self::new): where mappings lie is the system's affair.
    pub const fn scattered() -> Self {
        Self::new()
    }
}

impl Default for Portable {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `call` and leaves the thread's error number as it was, where there is one.
fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
    #[cfg(unix)]
    {
        crate::errno::keep(call)
    }
    #[cfg(not(unix))]
    {
        call()
    }
}

/// The unit of the verbs: a page, or on Windows the granularity of mappings, a multiple of a page.
fn system_page_bytes() -> usize {
    #[cfg(unix)]
    {
        crate::system::page_bytes()
    }
    #[cfg(not(unix))]
    {
        64 << 10
    }
}

// SAFETY: a mapping of memmap2 is fresh, zero and ours alone until its handle is dropped, which
// happens in `release` only; on Linux MADV_DONTNEED makes anonymous memory read as zero. memmap2
// allocates for no error of the system's, and refuses nothing else that passes `Request::check`.
unsafe impl OsSource for Portable {
    type Wait = SystemWait;

    fn page_bytes(&self) -> usize {
        match self.page_bytes.load(Ordering::Relaxed) {
            0 => {
                let bytes = system_page_bytes();
                self.page_bytes.store(bytes, Ordering::Relaxed);
                bytes
            }
            bytes => bytes,
        }
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        const { assert!(size_of::<Header>() <= 4096 && align_of::<Header>() <= 16) };
        let align = request.check(self.page_bytes())?;
        let bytes = request.bytes;
        let refused = OsError::OutOfMemory { bytes };
        // Space to align to, at least one page of it before the aligned address for the header.
        let longer = bytes.checked_add(align).filter(|sum| *sum <= isize::MAX as usize);
        let longer = longer.ok_or(OsError::BadSize { bytes })?;
        let mapped = keep_errno(|| MmapOptions::new().len(longer).no_reserve_swap().map_anon());
        let mut mapping = mapped.map_err(|_| refused)?;
        let start = NonNull::new(mapping.as_mut_ptr()).ok_or(refused)?;
        // The first multiple of `align` above the start, `align` itself away if that is aligned.
        let head = align - (start.addr().get() & (align - 1));
        // SAFETY: the mapping has `bytes + align` bytes and `head` is at most `align` and at least
        // a page, as both the start and `align` are multiples of one; so the header fits before
        // `at`, is aligned, and is in no part that is handed out.
        let at = unsafe { start.add(head) };
        let mut mappings = self.mappings.lock();
        // SAFETY: as above.
        unsafe {
            let header = at.cast::<Header>().sub(1);
            header.write(Header { mapping, at, bytes, next: mappings.0 });
            mappings.0 = header.as_ptr();
        }
        Ok(at)
    }

    unsafe fn commit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        // The pages are readable, writable and, unless they are Ready already, zero.
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let refused = OsError::OutOfMemory { bytes };
        let mut mappings = self.mappings.lock();
        // SAFETY: a link that is found names a live header, and the lock is held.
        let header =
            unsafe { mappings.find(at.addr().get()).as_ref().and_then(|link| link.as_ref()) };
        let header = header.ok_or(refused)?;
        let offset = at.addr().get() - header.mapping.as_ptr().addr();
        // No two reservations are neighbours, as there is a header before each.
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the pages are Ready pages of this mapping and nobody uses them, by the caller's
        // promise, so their contents are the caller's to lose.
        let done =
            keep_errno(|| unsafe { header.mapping.unchecked_advise_range(advice, offset, bytes) });
        done.map_err(|_| refused)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    unsafe fn decommit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Err(OsError::Unsupported)
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut mappings = self.mappings.lock();
        let link = mappings.find(at.addr().get());
        // SAFETY: a link that is found names a live header, and the lock is held. The header is
        // moved out of the mapping before it is unmapped, and nothing names it afterwards.
        let mapping = unsafe {
            let header = link.as_ref().and_then(|link| NonNull::new(*link));
            let header = header.ok_or(OsError::Unsupported)?;
            if header.as_ref().at != at || header.as_ref().bytes != bytes {
                return Err(OsError::Unsupported);
            }
            let header = header.read();
            *link = header.next;
            header.mapping
        };
        keep_errno(|| drop(mapping));
        Ok(())
    }

    fn random(&self) -> u64 {
        // The keys of a new one come from the system, and it allocates nothing.
        RandomState::new().build_hasher().finish()
    }

    fn die(&self, report: Report) -> ! {
        end_process(report)
    }
}
