//! What the library asks of the system when it reports: calls of the kernel that leave `errno` as it
//! was, allocate nothing and are no cancellation points.

use core::ffi::{CStr, c_int, c_long};
use core::ptr::{self, NonNull};

use crate::text::Sink;

/// An open file of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor(pub(crate) c_int);

/// Standard error.
pub(crate) const STDERR: Descriptor = Descriptor(libc::STDERR_FILENO);

/// Which file a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) number: u64,
}

/// Runs `call` and puts the error number back.
fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the C library returns the address of the thread's own number, always valid.
    unsafe {
        let number = libc::__errno_location();
        let before = *number;
        let result = call();
        *number = before;
        result
    }
}

impl Descriptor {
    /// Opens a file to append to; it is made if it is not there.
    pub(crate) fn append_to(path: &CStr) -> Option<Self> {
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC;
        let mode: c_long = 0o644;
        // SAFETY: the path is a string that ends with null.
        let file = keep_errno(|| unsafe {
            libc::syscall(
                libc::SYS_openat,
                c_long::from(libc::AT_FDCWD),
                path.as_ptr(),
                c_long::from(flags),
                mode,
            )
        });
        Self::found(file)
    }

    /// Another descriptor of the same file, with a number from `least` on, that no program inherits.
    pub(crate) fn duplicate(self, least: c_int) -> Option<Self> {
        let command = c_long::from(libc::F_DUPFD_CLOEXEC);
        // SAFETY: the call takes numbers only.
        let file = keep_errno(|| unsafe {
            libc::syscall(libc::SYS_fcntl, c_long::from(self.0), command, c_long::from(least))
        });
        Self::found(file)
    }

    fn found(answer: c_long) -> Option<Self> {
        let number = c_int::try_from(answer).ok()?;
        (number >= 0).then_some(Self(number))
    }

    /// The file that this stands for now.
    pub(crate) fn identity(self) -> Option<Identity> {
        // SAFETY: a record of zeroes is a valid place for the answer, of which nothing is used if
        // the call fails.
        keep_errno(|| unsafe {
            let mut answer: libc::stat = core::mem::zeroed();
            (libc::fstat(self.0, &raw mut answer) == 0)
                .then_some(Identity { device: answer.st_dev, number: answer.st_ino })
        })
    }

    /// Writes all of `text`, as far as that is possible. False if it was not.
    pub(crate) fn write_all(self, text: &[u8]) -> bool {
        let mut rest = text;
        keep_errno(|| {
            while !rest.is_empty() {
                // SAFETY: `rest` is readable.
                let (written, error) = unsafe {
                    let file = c_long::from(self.0);
                    let written = libc::syscall(libc::SYS_write, file, rest.as_ptr(), rest.len());
                    (written, *libc::__errno_location())
                };
                match usize::try_from(written) {
                    Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                    Err(_) if error == libc::EINTR => {}
                    _ => return false,
                }
            }
            true
        })
    }
}

impl Sink for Descriptor {
    fn write(&mut self, text: &[u8]) {
        // Nobody is left to tell.
        let _ = self.write_all(text);
    }
}

/// Pages for `bytes` bytes, all zero.
pub(crate) fn map(bytes: usize) -> Option<NonNull<u8>> {
    let rights = c_long::from(libc::PROT_READ | libc::PROT_WRITE);
    let flags = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let (anywhere, no_file): (c_long, c_long) = (0, -1);
    // SAFETY: without MAP_FIXED a new mapping replaces no other.
    let answer = keep_errno(|| unsafe {
        libc::syscall(libc::SYS_mmap, anywhere, bytes, rights, flags, no_file, anywhere)
    });
    let address = usize::try_from(answer).ok()?;
    NonNull::new(ptr::with_exposed_provenance_mut(address))
}

/// # Safety
/// The pages were mapped for so many bytes, and nobody uses them.
pub(crate) unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    keep_errno(|| unsafe { libc::syscall(libc::SYS_munmap, at.as_ptr(), bytes) });
}

/// The number of this process.
pub(crate) fn process() -> c_int {
    // SAFETY: asks for a number.
    unsafe { libc::syscall(libc::SYS_getpid) as c_int }
}

/// The name of the calling thread: that of the program, if it is the first one and has no other.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    keep_errno(|| unsafe {
        libc::syscall(libc::SYS_prctl, c_long::from(libc::PR_GET_NAME), name.as_mut_ptr())
    });
    name
}

/// Writes the path of the current directory into `place`. Bytes of it, or None if it does not fit.
pub(crate) fn current_directory(place: &mut [u8]) -> Option<usize> {
    // SAFETY: the kernel writes at most as many bytes as there are, the last of them a null.
    let bytes =
        keep_errno(|| unsafe { libc::syscall(libc::SYS_getcwd, place.as_mut_ptr(), place.len()) });
    usize::try_from(bytes).ok()?.checked_sub(1)
}

/// Lets no closed pipe end the process any more: it is ending already, and as it wanted to.
pub(crate) fn block_sigpipe() {
    // SAFETY: an all-zero set is a valid place for a set, which is filled in before it is used.
    unsafe {
        let mut pipe: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, ptr::null_mut());
    }
}

/// Whether the process runs with rights that its user does not have.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
