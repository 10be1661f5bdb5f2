//! The calls to a unix system that `Mmap` is made of, each one leaving `errno` as it was.
//!
//! On Linux they go to the kernel directly: another preloaded library may have its own `mmap`, which
//! may allocate, and `write` of the C library is a cancellation point.

use core::ffi::{CStr, c_int, c_void};
use core::ptr::{self, NonNull};
use core::time::Duration;

use crate::errno;

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const NO_RESERVE: c_int = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const NO_RESERVE: c_int = 0;

/// Flags of every mapping made here: private, of no file, and charged to nobody until it is used.
const FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;

#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(target_arch = "s390x"))))]
use libc::{madvise, mmap, mprotect, munmap, poll, write};

/// The kernel's own calls, in the form of the C library's functions of the same names.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(target_arch = "s390x")))]
mod raw {
    use super::{c_int, c_void};

    /// With 32-bit words the offset of the call is in units of 4 KB; it is 0 here.
    #[cfg(target_pointer_width = "32")]
    const MMAP: libc::c_long = libc::SYS_mmap2;
    #[cfg(not(target_pointer_width = "32"))]
    const MMAP: libc::c_long = libc::SYS_mmap;

    /// # Safety
    /// As `mmap`.
    pub(super) unsafe fn mmap(
        at: *mut c_void,
        bytes: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        _offset: libc::off_t,
    ) -> *mut c_void {
        // SAFETY: the caller's promise; every argument is a whole register.
        let result = unsafe {
            libc::syscall(
                MMAP,
                at,
                bytes,
                protection as libc::c_long,
                flags as libc::c_long,
                file as libc::c_long,
                0 as libc::c_long,
            )
        };
        core::ptr::with_exposed_provenance_mut(result as usize)
    }

    /// # Safety
    /// As `munmap`.
    pub(super) unsafe fn munmap(at: *mut c_void, bytes: usize) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { libc::syscall(libc::SYS_munmap, at, bytes) as c_int }
    }

    /// # Safety
    /// As `mprotect`.
    pub(super) unsafe fn mprotect(at: *mut c_void, bytes: usize, protection: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { libc::syscall(libc::SYS_mprotect, at, bytes, protection as libc::c_long) as c_int }
    }

    /// # Safety
    /// As `madvise`.
    pub(super) unsafe fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { libc::syscall(libc::SYS_madvise, at, bytes, advice as libc::c_long) as c_int }
    }

    /// # Safety
    /// As `poll`, with a timeout that is not negative.
    pub(super) unsafe fn poll(files: *mut libc::pollfd, count: libc::nfds_t, ms: c_int) -> c_int {
        let time =
            libc::timespec { tv_sec: (ms / 1000).into(), tv_nsec: (ms % 1000 * 1_000_000).into() };
        let no_mask = core::ptr::null::<libc::sigset_t>();
        // SAFETY: the caller's promise; the kernel reads the time and ignores the size of no mask.
        unsafe {
            libc::syscall(libc::SYS_ppoll, files, count, &raw const time, no_mask, 0_usize) as c_int
        }
    }

    /// # Safety
    /// As `write`.
    pub(super) unsafe fn write(file: c_int, bytes: *const c_void, len: usize) -> isize {
        // SAFETY: the caller's promise.
        unsafe { libc::syscall(libc::SYS_write, file as libc::c_long, bytes, len) as isize }
    }
}
#[cfg(all(any(target_os = "linux", target_os = "android"), not(target_arch = "s390x")))]
use raw::{madvise, mmap, mprotect, munmap, poll, write};

/// Bytes of a page; 4096 if the system does not say.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: asks for a number.
    let bytes = errno::keep(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
    match usize::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() => bytes,
        _ => 4096,
    }
}

/// What a clock shows; None if the system has no such clock.
pub(crate) fn time(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place may be written to.
    if errno::keep(|| unsafe { libc::clock_gettime(clock, &raw mut time) }) != 0 {
        return None;
    }
    // Neither is negative on these clocks.
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).ok()?);
    Some(seconds.saturating_add(Duration::from_nanos(u64::try_from(time.tv_nsec).ok()?)))
}

/// A number from the kernel that nobody can foresee. Where the kernel has none yet, or there is no such
/// call, it is made of what differs between processes and moments: better than none.
pub(crate) fn random() -> u64 {
    let mut number = 0_u64;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let bytes = size_of::<u64>();
        let (place, flags) = ((&raw mut number).cast::<c_void>(), libc::GRND_NONBLOCK);
        // SAFETY: the kernel writes to these 8 bytes.
        let got = errno::keep(|| unsafe {
            libc::syscall(libc::SYS_getrandom, place, bytes, flags as libc::c_long)
        });
        if usize::try_from(got) == Ok(bytes) {
            return number;
        }
    }
    let time = time(libc::CLOCK_MONOTONIC).unwrap_or_default().as_nanos() as u64;
    number ^= (&raw const number).addr() as u64 ^ time.rotate_left(32);
    // An odd factor that spreads what there is over all bits.
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Maps `bytes` bytes that may not be touched, at `hint` if the system likes that.
pub(crate) fn map(hint: usize, bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: without MAP_FIXED a new mapping replaces no other.
    let at = errno::keep(|| unsafe {
        mmap(ptr::without_provenance_mut(hint), bytes, libc::PROT_NONE, FLAGS, -1, 0)
    });
    if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) }
}

/// Replaces mappings of ours by one that may not be touched and has no memory.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours, and nobody uses them.
pub(crate) unsafe fn map_again(at: NonNull<u8>, bytes: usize) -> bool {
    let flags = FLAGS | libc::MAP_FIXED;
    // SAFETY: MAP_FIXED only replaces pages that are ours and unused, by the caller's promise.
    let result =
        errno::keep(|| unsafe { mmap(at.as_ptr().cast(), bytes, libc::PROT_NONE, flags, -1, 0) });
    result != libc::MAP_FAILED
}

/// Makes mapped pages readable and writable.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours.
pub(crate) unsafe fn allow(at: NonNull<u8>, bytes: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: more rights on pages of ours take nothing from anybody.
    errno::keep(|| unsafe { mprotect(at.as_ptr().cast(), bytes, protection) == 0 })
}

/// Makes mapped pages such that may not be touched.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours, and nobody uses them.
pub(crate) unsafe fn forbid(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the pages are ours and unused.
    errno::keep(|| unsafe { mprotect(at.as_ptr().cast(), bytes, libc::PROT_NONE) == 0 })
}

/// Gives the memory behind mapped pages back; on Linux they read as zero from then on, which POSIX
/// does not promise of the same call (`man 2 madvise`, MADV_DONTNEED).
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours, and nobody uses them.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "only Linux promises zeroes")
)]
pub(crate) unsafe fn discard(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the contents are the caller's to lose.
    errno::keep(|| unsafe { madvise(at.as_ptr().cast(), bytes, libc::MADV_DONTNEED) == 0 })
}

/// Whether pages that may not be touched yet are locked in memory all the same, because the program
/// wants that of all its memory (`man 2 mlockall`, MCL_FUTURE). Discarding locked memory is EINVAL.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_locked(at: NonNull<u8>, page: usize) -> bool {
    // SAFETY: the page was mapped just now and has no contents.
    errno::keep(|| unsafe {
        madvise(at.as_ptr().cast(), page, libc::MADV_DONTNEED) != 0 && errno::get() == libc::EINVAL
    })
}

/// Locked memory is not treated apart here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_locked(_at: NonNull<u8>, _page: usize) -> bool {
    false
}

/// Locks pages in memory, and fills them in, if the limit on locked memory allows.
pub(crate) fn lock(at: NonNull<u8>, bytes: usize) {
    // SAFETY: locking changes no contents; the C library's function is the system call.
    errno::keep(|| unsafe { libc::mlock(at.as_ptr().cast(), bytes) });
}

/// Takes the lock off pages.
pub(crate) fn unlock(at: NonNull<u8>, bytes: usize) {
    // SAFETY: as in `lock`.
    errno::keep(|| unsafe { libc::munlock(at.as_ptr().cast(), bytes) });
}

/// Makes pages such that whoever touches them gets a fault, and leaves their rights and mapping as they
/// are (Linux 6.13). Their memory is lost.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours, and nobody uses them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) unsafe fn mark(at: NonNull<u8>, bytes: usize) -> bool {
    /// `MADV_GUARD_INSTALL`, which not every C library names.
    const INSTALL: c_int = 102;
    // SAFETY: the contents are the caller's to lose.
    errno::keep(|| unsafe { madvise(at.as_ptr().cast(), bytes, INSTALL) == 0 })
}

/// Undoes [`mark`].
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) unsafe fn unmark(at: NonNull<u8>, bytes: usize) -> bool {
    /// `MADV_GUARD_REMOVE`, which not every C library names.
    const REMOVE: c_int = 103;
    // SAFETY: pages that are not marked stay as they are.
    errno::keep(|| unsafe { madvise(at.as_ptr().cast(), bytes, REMOVE) == 0 })
}

/// Pages of a range that are looked at to tell how much of it is in memory.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LOOKS: usize = 8;

/// Of [`LOOKS`] pages here and there in a range, how many are in memory. None if the kernel does not say,
/// or some of them are not mapped.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sample(at: NonNull<u8>, bytes: usize, page: usize) -> Option<usize> {
    let step = bytes / LOOKS;
    let mut count = 0;
    for look in 0..LOOKS {
        let place = (look * step + step / 2) & !(page - 1);
        let mut there = 0_u8;
        let first = at.as_ptr().wrapping_add(place);
        // SAFETY: of one page, one byte is written to; the page itself is not touched.
        let answer = errno::keep(|| unsafe {
            libc::syscall(libc::SYS_mincore, first, page, &raw mut there)
        });
        if answer != 0 {
            return None;
        }
        count += usize::from(there & 1);
    }
    Some(count)
}

/// Whether most of a range is not in memory. No if the kernel does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_sparse(at: NonNull<u8>, bytes: usize, page: usize) -> bool {
    sample(at, bytes, page).is_some_and(|count| count <= LOOKS / 4)
}

/// Whether hardly any of a range is not in memory. No if the kernel does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_dense(at: NonNull<u8>, bytes: usize, page: usize) -> bool {
    sample(at, bytes, page).is_some_and(|count| count >= LOOKS - 1)
}

/// How many bytes of a range are in memory; all of them if the kernel does not say.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) unsafe fn resident(at: NonNull<u8>, bytes: usize, page: usize) -> usize {
    const LOOK: usize = 256;
    let mut there = [0_u8; LOOK];
    let (mut from, mut count) = (0, 0);
    while from < bytes {
        let look = (bytes - from).min(LOOK * page);
        // Answers that are not given are no.
        there.fill(0);
        // SAFETY: these are up to `LOOK` pages of the range, of each of which one byte is written to.
        let answer = errno::keep(|| unsafe {
            let from = at.as_ptr().add(from);
            libc::syscall(libc::SYS_mincore, from, look, there.as_mut_ptr())
        });
        if answer != 0 || look == 0 {
            return bytes;
        }
        count += there.iter().filter(|there| **there & 1 == 1).count();
        from += look;
    }
    count * page
}

/// Asks for huge pages where they fit, or for none. Nothing depends on the answer.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn prefer_huge_pages(at: NonNull<u8>, bytes: usize, huge: bool) {
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: how memory is filled in changes no contents.
    errno::keep(|| unsafe { madvise(at.as_ptr().cast(), bytes, advice) });
}

/// Whether the kernel knows how to move memory and to keep the addresses it leaves (Linux 5.7).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn can_relocate(page: usize) -> bool {
    let (Some(from), Some(to)) = (map(0, page), map(0, page)) else { return false };
    // SAFETY: both mappings were just made and nobody else knows them. If the second was lost by a
    // refusal, it is not unmapped, for it may be another thread's.
    unsafe {
        let done = allow(from, page) && relocate(from, to, page);
        if done {
            unmap(to, page);
        }
        unmap(from, page);
        done
    }
}

/// Whether pages lie in one mapping: the kernel is asked to enlarge what lies there, which fails in
/// a way of its own if it is several.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) unsafe fn is_one_mapping(at: NonNull<u8>, bytes: usize, page: usize) -> bool {
    // SAFETY: without MREMAP_MAYMOVE nothing moves, and a mapping only grows into addresses that are
    // nobody's; a page that it did grow by is ours to unmap.
    errno::keep(|| unsafe {
        let longer = libc::syscall(libc::SYS_mremap, at.as_ptr(), bytes, bytes + page, 0_usize);
        if longer == -1 {
            return errno::get() == libc::ENOMEM;
        }
        unmap(at.add(bytes), page)
    })
}

/// Moves the memory behind mapped pages to others, whose own is lost. The pages left behind stay mapped,
/// without memory. If the kernel refuses, the pages of `to` may be unmapped.
///
/// # Safety
/// Both are `bytes` bytes of whole pages of ours that do not overlap, and nobody uses `to`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) unsafe fn relocate(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> bool {
    /// MREMAP_DONTUNMAP, which not every C library names.
    const DONT_UNMAP: c_int = 4;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | DONT_UNMAP;
    // SAFETY: MREMAP_FIXED only replaces pages that are ours and unused, by the caller's promise.
    let result = errno::keep(|| unsafe {
        libc::syscall(
            libc::SYS_mremap,
            from.as_ptr(),
            bytes,
            bytes,
            flags as libc::c_long,
            to.as_ptr(),
        )
    });
    result != -1
}

/// Unmaps pages.
///
/// # Safety
/// `bytes` bytes from `at` are whole pages of ours, and nobody uses them.
pub(crate) unsafe fn unmap(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the pages are ours and unused.
    errno::keep(|| unsafe { munmap(at.as_ptr().cast(), bytes) == 0 })
}

/// Gives a mapping the name that `/proc/self/maps` shows, on kernels that know names.
#[cfg(target_os = "linux")]
pub(crate) fn name(at: NonNull<u8>, bytes: usize, name: &CStr) {
    // SAFETY: sets the name of our own mapping; the kernel copies the text.
    errno::keep(|| unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_VMA as libc::c_long,
            libc::PR_SET_VMA_ANON_NAME as libc::c_long,
            at.as_ptr(),
            bytes,
            name.as_ptr(),
        )
    });
}

/// Mappings have no names here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn name(_at: NonNull<u8>, _bytes: usize, _name: &CStr) {}

/// How long a reader of standard error may take to make room, in milliseconds.
const PATIENCE: c_int = 1000;

/// Writes `text` to standard error as far as that is possible. A closed pipe there does not end the
/// process with SIGPIPE, and a full one that nobody reads does not stop it: its end is to be the
/// abort that follows.
pub(crate) fn write_error(text: &[u8]) {
    // SAFETY: an all-zero set is a valid place for a set, and the calls fill it in before it is
    // used; blocking a signal in this thread is undone by the end of the process.
    unsafe {
        let mut pipe: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, ptr::null_mut());
    }
    let mut rest = text;
    while !rest.is_empty() {
        let mut room = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one entry, valid for writing.
        match unsafe { poll(&raw mut room, 1, PATIENCE) } {
            0 => return,
            -1 if errno::get() == libc::EINTR => continue,
            _ => {}
        }
        // SAFETY: `rest` is readable.
        let written = unsafe { write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            Err(_) if errno::get() == libc::EINTR => {}
            _ => return,
        }
    }
}
