//! Memory for whoever allocates before the dynamic linker is done with this library: resolvers of
//! other libraries. Nothing here needs a relocation. A fixed room is handed out from front to back,
//! and nothing comes back.

use core::cell::UnsafeCell;
use core::ptr;

use spanalloc_sync::atomic::{AtomicUsize, Ordering};

const BYTES: usize = 64 << 10;
/// Bytes before each object that hold its size; also the least alignment.
const HEADER: usize = 16;

#[repr(align(4096))]
struct Room(UnsafeCell<[u8; BYTES]>);

// SAFETY: each byte is handed out at most once.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; BYTES]));
/// Bytes handed out.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Zeroed memory, or null.
pub(super) fn alloc(size: usize, align: usize) -> *mut u8 {
    let (start, align) = (ROOM.0.get().cast::<u8>(), align.max(HEADER));
    if size > BYTES || align > BYTES {
        return ptr::null_mut();
    }
    let mut used = USED.load(Ordering::Relaxed);
    loop {
        let at = (start.addr() + used + HEADER).wrapping_add(align - 1) & !(align - 1);
        let offset = at - start.addr();
        let end = offset + size;
        if end > BYTES {
            return ptr::null_mut();
        }
        match USED.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                // SAFETY: header and object lie in the room, and are this caller's alone.
                unsafe {
                    let object = start.add(offset);
                    object.sub(HEADER).cast::<usize>().write(size);
                    return object;
                }
            }
            Err(now) => used = now,
        }
    }
}

/// The size of an object of the room; None for any other address.
pub(super) fn bytes(object: *mut u8) -> Option<usize> {
    let offset = object.addr().wrapping_sub(ROOM.0.get().addr());
    if !(HEADER..BYTES).contains(&offset) || offset % HEADER != 0 {
        return None;
    }
    // SAFETY: the header lies in the room and was written when the object was handed out.
    Some(unsafe { object.sub(HEADER).cast::<usize>().read() })
}

/// Copies bytes without a call to anything.
///
/// # Safety
/// As `copy_nonoverlapping`.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    for at in 0..bytes {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_aligned_apart_and_know_their_size() {
        let [a, b, c] = [(1, 1), (100, 64), (0, 4096)].map(|(size, align)| alloc(size, align));
        assert!(a.addr() % 16 == 0 && b.addr() % 64 == 0 && c.addr() % 4096 == 0);
        assert!(a < b && b < c);
        assert_eq!([bytes(a), bytes(b), bytes(c)], [Some(1), Some(100), Some(0)]);
        assert_eq!([bytes(a.wrapping_add(1)), bytes(ptr::null_mut())], [None; 2]);
        assert!(alloc(BYTES, 1).is_null() && alloc(usize::MAX, 16).is_null());
        assert!(alloc(1, 1 << 40).is_null());
    }
}
