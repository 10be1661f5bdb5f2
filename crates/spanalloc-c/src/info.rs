//! What glibc tells of its heap and lets be set, told and set of this one.

use core::ffi::{c_int, c_void};

use crate::heap;
use spanalloc::stats::Figures;

use crate::errno;
use crate::report::{self, Wanted};
use crate::snapshot::figures;
use crate::system::STDERR;
use crate::text::{Sink, Text};

/// `struct mallinfo2`, and with `int` `struct mallinfo`.
///
/// As with glibc, large objects are counted apart: all memory is `arena + hblkhd`, all that is in
/// use `uordblks + hblkhd`, and `arena` is `uordblks + fordblks`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MallocInfo<T> {
    /// Bytes of memory, large objects not counted.
    pub arena: T,
    /// Free slots.
    pub ordblks: T,
    /// Free slots that threads have at hand.
    pub smblks: T,
    /// Large objects.
    pub hblks: T,
    /// Bytes of large objects.
    pub hblkhd: T,
    /// Not used.
    pub usmblks: T,
    /// Bytes of the free slots that threads have at hand.
    pub fsmblks: T,
    /// Bytes of small objects, with what their sizes were rounded up by.
    pub uordblks: T,
    /// Bytes of memory without objects.
    pub fordblks: T,
    /// Bytes that `malloc_trim` could give back at most.
    pub keepcost: T,
}

impl MallocInfo<usize> {
    fn of(figures: &Figures) -> Self {
        let arena = figures.ready.saturating_sub(figures.live_large);
        Self {
            arena,
            ordblks: figures.free_slots + figures.cached_slots,
            smblks: figures.cached_slots,
            hblks: figures.large_objects,
            hblkhd: figures.live_large,
            usmblks: 0,
            fsmblks: figures.cached,
            uordblks: figures.live_small,
            fordblks: arena.saturating_sub(figures.live_small),
            keepcost: figures.free_pages + figures.kept_pages,
        }
    }

    /// With each number as far as an `int` goes.
    fn narrow(self) -> MallocInfo<c_int> {
        let narrow = |number| c_int::try_from(number).unwrap_or(c_int::MAX);
        MallocInfo {
            arena: narrow(self.arena),
            ordblks: narrow(self.ordblks),
            smblks: narrow(self.smblks),
            hblks: narrow(self.hblks),
            hblkhd: narrow(self.hblkhd),
            usmblks: narrow(self.usmblks),
            fsmblks: narrow(self.fsmblks),
            uordblks: narrow(self.uordblks),
            fordblks: narrow(self.fordblks),
            keepcost: narrow(self.keepcost),
        }
    }
}

/// What the heap holds.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> MallocInfo<usize> {
    MallocInfo::of(&figures())
}

/// As [`mallinfo2`]; what does not fit an `int` is the largest `int`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> MallocInfo<c_int> {
    narrow_info()
}

/// As [`mallinfo`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_mallinfo() -> MallocInfo<c_int> {
    narrow_info()
}

fn narrow_info() -> MallocInfo<c_int> {
    MallocInfo::of(&figures()).narrow()
}

/// Gives free memory back to the system. Returns 1 if that was any. Nothing is kept for later,
/// whatever `_keep` says.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: usize) -> c_int {
    c_int::from(heap::release() > 0)
}

/// Returns 1 for the parameters that glibc knows, and 0 for others. None of them changes anything
/// here.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    is_parameter(parameter)
}

/// As [`mallopt`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_mallopt(parameter: c_int, _value: c_int) -> c_int {
    is_parameter(parameter)
}

fn is_parameter(parameter: c_int) -> c_int {
    // From M_ARENA_MAX to M_TRIM_THRESHOLD, and from M_MXFAST to M_KEEP.
    c_int::from(matches!(parameter, -8..=-1 | 1..=4))
}

/// Writes to standard error what the heap holds, for people.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let mut buffer = [0; 1024];
    let mut text = Text::new(&mut buffer, STDERR);
    report::write(&mut text, Wanted { stats: true, map: false });
}

/// A `FILE` of the C library.
struct Stream(*mut libc::FILE);

impl Sink for Stream {
    fn write(&mut self, text: &[u8]) {
        // SAFETY: the caller of `malloc_info` passes a stream that is open; the text is readable. The
        // stream may allocate: nothing of the heap is held here. It keeps its errors itself.
        unsafe { libc::fwrite(text.as_ptr().cast::<c_void>(), 1, text.len(), self.0) };
    }
}

/// Writes to `stream` what the heap holds, as XML in the form of glibc, with more figures at the end. Returns 0, or -1 and `EINVAL`
/// if `options` is not 0.
///
/// # Safety
/// The stream is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 || stream.is_null() {
        errno::set(libc::EINVAL);
        return -1;
    }
    let mut buffer = [0; 512];
    report::tell(&mut Text::new(&mut buffer, Stream(stream)), |report, text| report.xml(text));
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_glibc() {
        let mut figures = Figures::default();
        figures.ready = 10_000;
        figures.live_small = 3000;
        figures.live_large = 4000;
        figures.cached = 500;
        figures.cached_slots = 5;
        figures.free_slots = 7;
        figures.free_pages = 1000;
        figures.kept_pages = 100;
        figures.large_objects = 2;
        let info = MallocInfo::of(&figures);
        assert_eq!(info.arena + info.hblkhd, 10_000);
        assert_eq!(info.uordblks + info.hblkhd, figures.live());
        assert_eq!(info.uordblks + info.fordblks, info.arena);
        assert_eq!((info.hblks, info.ordblks, info.smblks, info.keepcost), (2, 12, 5, 1100));
    }

    #[test]
    fn an_int_that_is_too_small_is_full() {
        let info = MallocInfo { arena: 1 << 31, hblkhd: 5, ..MallocInfo::default() }.narrow();
        assert_eq!((info.arena, info.hblkhd), (c_int::MAX, 5));
    }
}
