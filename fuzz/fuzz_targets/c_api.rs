//! The functions of the C library, called as the library exports them, by the rules of glibc: what is
//! returned, which `errno` stays and which is set, sizes at every limit. Objects are in the shadow.
//!
//! They are this process's `malloc`, too, so libFuzzer and the shadow live in the same heap. Eight bytes
//! are a call.
#![no_main]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use libfuzzer_sys::fuzz_target;
use spanalloc_c_functions::alias::{__libc_calloc, __libc_free, __libc_malloc, __libc_memalign};
use spanalloc_c_functions::aligned::{aligned_alloc, memalign, posix_memalign, pvalloc, valloc};
use spanalloc_c_functions::api::{spanalloc_get_snapshot, spanalloc_release, spanalloc_snapshot};
use spanalloc_c_functions::info::{mallinfo2, malloc_trim, mallopt};
use spanalloc_c_functions::malloc::{
    calloc, cfree, free, free_aligned_sized, free_sized, malloc, malloc_usable_size, realloc,
    reallocarray,
};
use spanalloc_testkit::Shadow;

/// Bytes that may live at once.
const BUDGET: usize = 4 << 20;
/// Up to here there is memory, in a process that fuzzes.
const SURE: usize = 4 << 20;
/// From here on there is none: half of the address space.
const NEVER: usize = 1 << 46;
/// An error number that no function sets.
const UNTOUCHED: c_int = 77;
/// Alignment of what has no other.
const ALIGN: usize = 16;

fn errno() -> c_int {
    // SAFETY: the C library returns the address of the thread's own number.
    unsafe { *libc::__errno_location() }
}

fn set_errno(number: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = number };
}

/// Small sizes of all magnitudes, and the limits.
fn size([kind, low, high]: [u8; 3]) -> usize {
    let word = usize::from(u16::from_le_bytes([low, high]));
    match kind % 32 {
        bits @ 0..=21 => ((word << 5) | usize::from(kind / 32)) & ((1 << bits) - 1),
        22..=25 => usize::MAX - word,
        26..=27 => isize::MAX as usize - word,
        28..=29 => isize::MAX as usize + 1 + word,
        other => NEVER << (usize::from(other % 2) * 16 + word % 2),
    }
}

/// Powers of two up to a value above all sizes, and what is none.
fn align(byte: u8) -> usize {
    match byte {
        0..=23 => 1 << byte,
        24 => 1 << 63,
        25 => (1 << 63) + 1,
        26 => usize::MAX,
        27..=200 => 1 << (byte % 13),
        other => usize::from(other),
    }
}

/// With what an object was asked for: what the functions of C23 that free must be told.
#[derive(Clone, Copy)]
enum Asked {
    Size(usize),
    Aligned(usize, usize),
    Other,
}

struct Calls {
    shadow: Shadow,
    asked: BTreeMap<usize, Asked>,
}

impl Calls {
    /// Whether there is room for an object of this size, or the answer will be no.
    fn may_ask(&self, size: usize) -> bool {
        size >= NEVER || self.shadow.tally().bytes + size <= BUDGET
    }

    fn add(&mut self, object: *mut c_void, size: usize, align: usize, zeroed: bool, asked: Asked) {
        let address = NonNull::new(object.cast::<u8>()).expect("seen to be an object");
        let layout = Layout::from_size_align(size, align).expect("there is such an object");
        // SAFETY: an object as the functions return it, and only the shadow uses it.
        unsafe {
            assert!(malloc_usable_size(object) >= size, "{layout:?}");
            self.shadow.add(address, layout, zeroed).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        self.asked.insert(object.addr(), asked);
    }

    /// What comes of a call that returns an object or sets `errno`.
    fn take(&mut self, object: *mut c_void, size: usize, align: usize, zeroed: bool, asked: Asked) {
        if object.is_null() {
            assert_eq!(errno(), libc::ENOMEM, "{size} {align}");
            assert!(size > SURE || align > SURE, "no memory for {size} bytes at {align}");
            return;
        }
        assert_eq!(errno(), UNTOUCHED, "{size} {align}");
        assert!(size < NEVER, "{size} bytes");
        self.add(object, size, align, zeroed, asked);
    }

    fn free(&mut self, index: usize, how: u8) {
        let Some((index, _)) = self.shadow.choose(index) else { return };
        let gone = self.shadow.remove(index).unwrap_or_else(|wrong| panic!("{wrong}"));
        let object: *mut c_void = gone.address.as_ptr().cast();
        let asked = self.asked.remove(&object.addr()).unwrap_or(Asked::Other);
        // SAFETY: the object is live, was asked for like this, and the shadow has forgotten it.
        unsafe {
            match (how % 4, asked) {
                (0..=1, Asked::Size(size)) => free_sized(object, size),
                (0..=1, Asked::Aligned(align, size)) => free_aligned_sized(object, align, size),
                (2, _) => cfree(object),
                (3, _) => __libc_free(object),
                _ => free(object),
            }
        }
        assert_eq!(errno(), UNTOUCHED, "free sets nothing");
    }

    /// `realloc` as `new` does it, of `count` times `each` bytes.
    fn resize(
        &mut self,
        index: usize,
        size: Option<usize>,
        new: impl FnOnce(*mut c_void) -> *mut c_void,
    ) {
        let Some((index, old)) = self.shadow.choose(index) else { return };
        if !self.may_ask(size.unwrap_or(usize::MAX)) {
            return;
        }
        self.shadow.check(index).unwrap_or_else(|wrong| panic!("{wrong}"));
        let object: *mut c_void = old.address.as_ptr().cast();
        let asked = self.asked.remove(&object.addr()).unwrap_or(Asked::Other);
        if size == Some(0) {
            self.shadow.remove(index).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        set_errno(UNTOUCHED);
        let moved = new(object);
        if size == Some(0) {
            assert!(moved.is_null() && errno() == UNTOUCHED, "it was freed");
            return;
        }
        let Some(address) = NonNull::new(moved.cast()) else {
            assert_eq!(errno(), libc::ENOMEM);
            assert!(size.is_none_or(|size| size > SURE), "no memory for {size:?} bytes");
            self.shadow.check(index).expect("a refusal does not change the object");
            self.asked.insert(object.addr(), asked);
            return;
        };
        let (now, size) = (errno(), size.expect("a product that is no size"));
        assert!(now == UNTOUCHED && size < NEVER);
        let layout = Layout::from_size_align(size, ALIGN).expect("there is such an object");
        // SAFETY: an object as the functions return it, and only the shadow uses it.
        unsafe {
            assert!(malloc_usable_size(moved) >= size, "{layout:?}");
            self.shadow.moved(index, address, layout).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        let asked = if old.layout.align() <= ALIGN { Asked::Size(size) } else { Asked::Other };
        self.asked.insert(moved.addr(), asked);
    }

    fn ask_aligned(&mut self, kind: u8, align: usize, size: usize) {
        if !self.may_ask(size) || (align > SURE && align < NEVER) {
            return;
        }
        let power = align.is_power_of_two();
        match kind {
            0 => {
                let mut out = ptr::without_provenance_mut(UNTOUCHED as usize);
                // SAFETY: the place may be written to.
                let result = unsafe { posix_memalign(&raw mut out, align, size) };
                assert_eq!(errno(), UNTOUCHED, "posix_memalign sets nothing");
                if result != 0 {
                    let wrong = !power || align < size_of::<usize>();
                    assert_eq!(result, if wrong { libc::EINVAL } else { libc::ENOMEM });
                    assert!(wrong || size > SURE || align > SURE);
                    assert_eq!(out.addr(), UNTOUCHED as usize);
                    return;
                }
                self.take(out, size, align.max(ALIGN), false, Asked::Aligned(align, size));
            }
            1 => {
                let object = aligned_alloc(align, size);
                if !power {
                    assert!(object.is_null() && errno() == libc::EINVAL, "{align}");
                    return;
                }
                self.take(object, size, align.max(ALIGN), false, Asked::Aligned(align, size));
            }
            _ => {
                let object =
                    if kind == 2 { memalign(align, size) } else { __libc_memalign(align, size) };
                let Some(align) = align.checked_next_power_of_two() else {
                    assert!(object.is_null() && errno() == libc::EINVAL, "{align}");
                    return;
                };
                self.take(object, size, align.max(ALIGN), false, Asked::Aligned(align, size));
            }
        }
    }

    fn ask(&mut self, bytes: [u8; 8]) {
        let [kind, variant, first, second, third, fourth, fifth, sixth] = bytes;
        let wanted = size([first, second, third]);
        let index = usize::from(u16::from_le_bytes([fifth, sixth]));
        let count = usize::from(fourth % 8);
        set_errno(UNTOUCHED);
        match kind % 16 {
            0..=2 if self.may_ask(wanted) => {
                let plain = variant % 4 > 0;
                let object = if plain { malloc(wanted) } else { __libc_malloc(wanted) };
                self.take(object, wanted, ALIGN, false, Asked::Size(wanted));
            }
            3..=4 => {
                let sum = wanted.checked_mul(count);
                if !self.may_ask(sum.unwrap_or(usize::MAX)) {
                    return;
                }
                let (one, other) = if variant % 2 == 0 { (count, wanted) } else { (wanted, count) };
                let plain = variant % 4 > 1;
                let object = if plain { calloc(one, other) } else { __libc_calloc(one, other) };
                let sum = sum.unwrap_or(usize::MAX);
                self.take(object, sum, ALIGN, true, Asked::Size(sum));
            }
            // SAFETY: the object is live, and the shadow has forgotten it.
            5..=6 => self.resize(index, Some(wanted), |object| unsafe { realloc(object, wanted) }),
            7 => {
                let sum = wanted.checked_mul(count);
                // SAFETY: as above.
                self.resize(index, sum, |object| unsafe { reallocarray(object, count, wanted) });
            }
            8..=10 => self.free(index, variant),
            11..=12 => self.ask_aligned(variant % 4, align(fourth), wanted),
            13 if self.may_ask(wanted.saturating_add(8192)) => {
                // SAFETY: asks for a number.
                let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
                if variant % 2 == 0 {
                    self.take(valloc(wanted), wanted, page, false, Asked::Other);
                } else {
                    let whole = wanted.max(1).checked_next_multiple_of(page);
                    let object = pvalloc(wanted);
                    self.take(object, whole.unwrap_or(usize::MAX), page, false, Asked::Other);
                }
            }
            14 => self.of_nothing(variant, wanted),
            15 => Self::look(variant),
            _ => {}
        }
    }

    fn of_nothing(&mut self, variant: u8, wanted: usize) {
        let nothing = ptr::null_mut();
        // SAFETY: null is no object for all of these.
        unsafe {
            match variant % 4 {
                0 if self.may_ask(wanted) => {
                    self.take(realloc(nothing, wanted), wanted, ALIGN, false, Asked::Size(wanted));
                }
                1 => free_sized(nothing, wanted),
                2 => assert_eq!(malloc_usable_size(nothing), 0),
                _ => free(nothing),
            }
        }
    }

    /// What asks for figures, and what gives memory back.
    fn look(variant: u8) {
        match variant % 8 {
            0 => assert!(malloc_trim(0) <= 1),
            1 => drop(spanalloc_release()),
            2 => assert!(mallopt(variant.into(), 1) <= 1),
            _ => {
                let info = mallinfo2();
                assert_eq!(info.arena, info.uordblks + info.fordblks);
                let mut it = spanalloc_snapshot::default();
                // SAFETY: the place may be written to.
                unsafe { spanalloc_get_snapshot(&raw mut it) };
                assert_eq!(it.committed, it.live + it.cached + it.free + it.wasted, "{it:?}");
                assert_eq!(it.reserved, it.committed + it.returned, "{it:?}");
            }
        }
        assert_eq!(errno(), UNTOUCHED);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut calls = Calls { shadow: Shadow::new().sparse(), asked: BTreeMap::new() };
    for chunk in bytes.chunks_exact(8).take(300) {
        calls.ask(chunk.try_into().expect("eight bytes"));
    }
    let mut how = 0;
    while calls.shadow.tally().objects > 0 {
        set_errno(UNTOUCHED);
        calls.free(usize::from(how), how);
        how = how.wrapping_add(1);
    }
});
