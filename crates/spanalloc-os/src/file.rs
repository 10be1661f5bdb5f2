//! Reading small files of the kernel, without the C library: its `open` and `read` are cancellation points and
//! may be another library's.

use core::ffi::{CStr, c_int};

use crate::errno;

/// An open file, which is closed in the end.
struct File(c_int);

impl File {
    fn open(path: &CStr) -> Option<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the path ends with a null byte.
        let file = unsafe {
            let here = libc::AT_FDCWD as libc::c_long;
            libc::syscall(libc::SYS_openat, here, path.as_ptr(), flags as libc::c_long, 0)
        };
        if file < 0 { None } else { Some(Self(c_int::try_from(file).ok()?)) }
    }

    /// Fills `place` from the file; how many bytes there were.
    fn read(&self, place: &mut [u8]) -> Option<usize> {
        let mut count = 0;
        while let Some(rest) = place.get_mut(count..).filter(|rest| !rest.is_empty()) {
            let file = self.0 as libc::c_long;
            // SAFETY: the place may be written to.
            let more =
                unsafe { libc::syscall(libc::SYS_read, file, rest.as_mut_ptr(), rest.len()) };
            match usize::try_from(more) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(_) => return None,
            }
        }
        Some(count)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the file is this value's.
        unsafe {
            libc::syscall(libc::SYS_close, self.0 as libc::c_long);
        }
    }
}

/// The beginning of a file, as much as `place` holds. None if it cannot be read. Leaves `errno` as it was.
pub(crate) fn read<'a>(path: &CStr, place: &'a mut [u8]) -> Option<&'a [u8]> {
    let count = errno::keep(|| File::open(path)?.read(place))?;
    place.get(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_there_is_room() {
        let mut place = [0; 6];
        assert_eq!(read(c"/proc/self/comm", &mut place[..0]).map(<[u8]>::len), Some(0));
        assert_eq!(read(c"/proc/self/status", &mut place), Some(b"Name:\t".as_slice()));
        assert_eq!(read(c"/proc/self/no such file", &mut place), None);
    }
}
