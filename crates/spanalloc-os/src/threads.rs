//! What Linux does for all threads of the process, and what it knows of one.

use core::ffi::CStr;

use crate::{errno, file};

// From the kernel's `membarrier.h`.
const PRIVATE_EXPEDITED: libc::c_long = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;

fn membarrier(command: libc::c_long) -> bool {
    // SAFETY: changes no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Makes every thread of the process pass a full fence. False if the kernel cannot (before 4.14).
pub(crate) fn fence_threads() -> bool {
    // The process says once that it will do so; after a fork it has said so already.
    errno::keep(|| {
        membarrier(PRIVATE_EXPEDITED)
            || membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED)
    })
}

/// Bytes of the longest name of a thread's file.
const NAME_BYTES: usize = 40;

/// The name of the file that tells of a thread, with its end.
fn name_of(thread: u32) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    let mut digits = [0; 10];
    let (mut rest, mut first) = (thread, digits.len());
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        (rest, first) = (rest / 10, first - 1);
        if rest == 0 {
            break;
        }
    }
    let number = digits.get(first..).unwrap_or_default();
    let text = b"/proc/self/task/".iter().chain(number).chain(b"/stat");
    name.iter_mut().zip(text).for_each(|(place, byte)| *place = *byte);
    name
}

/// Whether a thread of this process sleeps until something comes: it is neither running nor about to, nor
/// stopped by anybody.
pub(crate) fn is_asleep(thread: u32) -> bool {
    let name = name_of(thread);
    let Ok(name) = CStr::from_bytes_until_nul(&name) else { return false };
    let mut text = [0; 64];
    let Some(text) = file::read(name, &mut text) else { return false };
    // The number, the name in brackets, which may hold any, and the state. The name has 15 bytes at most.
    let state = text.iter().rposition(|byte| *byte == b')').and_then(|end| text.get(end + 2));
    state == Some(&b'S')
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::sync::mpsc;

    use super::*;

    fn me() -> u32 {
        // SAFETY: asks for a number.
        u32::try_from(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap()
    }

    #[test]
    fn a_file_is_named_by_its_thread() {
        for (thread, name) in
            [(7, "/proc/self/task/7/stat"), (u32::MAX, "/proc/self/task/4294967295/stat")]
        {
            let bytes = name_of(thread);
            let end = bytes.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes[..end]), name);
        }
    }

    #[test]
    fn a_thread_that_waits_is_asleep_and_this_one_is_not() {
        assert!(!is_asleep(me()) && !is_asleep(0) && !is_asleep(u32::MAX));
        let (say, hear) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("a) R (b".into());
        let thread = thread.spawn(move || {
            say.send(me()).unwrap();
            let _ = wait.recv();
        });
        let number = hear.recv().unwrap();
        while !is_asleep(number) {
            std::thread::yield_now();
        }
        drop(end);
        thread.unwrap().join().unwrap();
        assert!(!is_asleep(number), "it is not there any more");
    }

    #[test]
    fn threads_can_be_fenced_where_the_kernel_knows_how() {
        // SAFETY: asks what the kernel can.
        let known = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
        assert_eq!(fence_threads(), known > 0 && known & PRIVATE_EXPEDITED != 0);
    }
}
