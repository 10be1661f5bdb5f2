//! What happens when the library is loaded.

use core::ffi::{CStr, c_char};
use core::ptr;

use spanalloc_log::Log;

use crate::recorder;

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// The variable that names the file of the log.
const VARIABLE: &CStr = c"SPANALLOC_RECORD_LOG";

/// Called by the dynamic linker after the C library was started, and before the program is.
extern "C" fn start() {
    // SAFETY: nobody else is running. The name ends in NUL, and the value stays where it is.
    unsafe {
        let path = libc::getenv(VARIABLE.as_ptr());
        if path.is_null() || libc::getauxval(libc::AT_SECURE) != 0 {
            return;
        }
        let Some(log) = open(path) else { return };
        if log.attach(libc::getpid() as u32) {
            libc::pthread_atfork(None, None, Some(recorder::forget));
            recorder::begin(log);
        }
    }
}

/// The log in a file; it stays mapped as long as the process.
///
/// # Safety
/// The path is a string that ends in NUL.
unsafe fn open(path: *const c_char) -> Option<Log<'static>> {
    // SAFETY: the caller's promise; the place is ours; a new mapping replaces no other, and is aligned to a
    // page. If the file is a log at all, it was made by the command.
    unsafe {
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let mut facts: libc::stat = core::mem::zeroed();
        let known = libc::fstat(file, &raw mut facts) == 0;
        let bytes = usize::try_from(facts.st_size).ok().filter(|bytes| known && *bytes > 0);
        let memory = bytes.map(|bytes| {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), bytes, rights, libc::MAP_SHARED, file, 0)
        });
        libc::close(file);
        let (memory, bytes) = (memory.filter(|memory| *memory != libc::MAP_FAILED)?, bytes?);
        Log::open(memory.cast(), bytes)
    }
}
