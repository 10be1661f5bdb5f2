//! Memory for whoever allocates before the dynamic linker is done with this library: resolvers of
//! other libraries. Nothing here needs a relocation. A fixed room is handed out from front to back,
//! and nothing comes back.

use core::alloc::Layout;
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
    let (start, size, align) = (ROOM.0.get().cast::<u8>(), size.max(1), align.max(HEADER));
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

/// A new object with the contents of one of the room, as far as they fit, or null.
///
/// # Safety
/// The object is the caller's.
pub(super) unsafe fn realloc(object: *mut u8, new: Layout) -> *mut u8 {
    let moved = alloc(new.size(), new.align());
    let kept = bytes(object).unwrap_or(0).min(new.size());
    if !moved.is_null() {
        for at in 0..kept {
            // SAFETY: both objects have that many bytes and are the caller's. One by one, and
            // volatile, because copying would be a call.
            unsafe { moved.add(at).write_volatile(object.add(at).read_volatile()) };
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_kept() {
        let object = alloc(3, 1);
        // SAFETY: the objects have these sizes.
        unsafe {
            object.copy_from(b"abc".as_ptr(), 3);
            let larger = realloc(object, Layout::new::<[u8; 5]>());
            assert_eq!(larger.cast::<[u8; 5]>().read(), *b"abc\0\0");
            let smaller = realloc(larger, Layout::new::<[u8; 2]>());
            assert_eq!(smaller.cast::<[u8; 2]>().read(), *b"ab");
        }
    }

    #[test]
    fn objects_are_aligned_apart_and_know_their_size() {
        let [a, b, c] = [(1, 1), (100, 64), (0, 4096)].map(|(size, align)| alloc(size, align));
        assert!(a.addr() % 16 == 0 && b.addr() % 64 == 0 && c.addr() % 4096 == 0);
        assert!(a < b && b < c);
        assert_eq!([bytes(a), bytes(b), bytes(c)], [Some(1), Some(100), Some(1)]);
        assert_eq!([bytes(a.wrapping_add(1)), bytes(ptr::null_mut())], [None; 2]);
        assert!(alloc(BYTES, 1).is_null() && alloc(usize::MAX, 16).is_null());
        assert!(alloc(1, 1 << (usize::BITS - 2)).is_null());
    }
}
