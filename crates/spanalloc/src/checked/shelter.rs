//! Where threads allocate that may not enter the heap: during somebody else's fork, in signal handlers
//! that interrupt an allocation, in the child of a heap in pieces.
//!
//! Nobody waits here and nobody is in anybody's way: there is no lock. Memory comes in chunks of which
//! one word says all:
//!
//! | `live`, `used` of a chunk | meaning                                | leaves it by                     |
//! |---------------------------|----------------------------------------|----------------------------------|
//! | 0, 0                      | no object lives in it                  | alloc -> 1, its end              |
//! | n, u                      | n objects live in its first u bytes    | alloc -> n + 1; free -> n - 1, or 0, 0 |
//!
//! So a chunk begins anew when its last object dies. Chunks are not given back to the system. Unlike
//! everywhere else, what is known of an object stands before it, in a header.

use core::alloc::Layout;
use core::ptr::NonNull;

use spanalloc_os::{Misuse, OsSource, Purpose, Report, Request};
use spanalloc_sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::program::Os;

/// The most chunks there can be.
const CHUNKS: usize = 512;
/// The least bytes of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Alignment of every object; a header is as long.
const HEADER: usize = 16;

/// Bits of `used` in a chunk's word, in units of [`HEADER`] bytes: chunks of up to 64 GB.
const USED_BITS: u32 = 32;
const USED: u64 = (1 << USED_BITS) - 1;
const ONE_LIVE: u64 = 1 << USED_BITS;

static OS: Os = Os::new();
static SHELTER: Shelter = Shelter { chunks: [const { Chunk::new() }; CHUNKS] };

struct Shelter {
    chunks: [Chunk; CHUNKS],
}

/// A chunk. Its fields but the word are set once, `bytes` last.
struct Chunk {
    /// Address; 1 while it is being made, 0 before.
    base: AtomicUsize,
    /// Bytes; 0 until the chunk may be used.
    bytes: AtomicUsize,
    /// How many objects live in it, and how much of it is used.
    word: AtomicU64,
}

/// What became of making a chunk.
enum Made {
    /// It is there.
    Now,
    /// There was one, or somebody is making it.
    Before,
    /// There is no memory.
    Refused,
}

/// What stands before an object.
#[repr(C)]
struct Header {
    bytes: AtomicUsize,
    /// [`LIVE`] or [`DEAD`], mixed with the address so that it is not found anywhere else.
    state: AtomicUsize,
}

const LIVE: usize = 0x11fe;
const DEAD: usize = 0xdead;

impl Chunk {
    const fn new() -> Self {
        Self { base: AtomicUsize::new(0), bytes: AtomicUsize::new(0), word: AtomicU64::new(0) }
    }

    /// Where a chunk that may be used begins, and how long it is.
    fn range(&self) -> Option<(usize, usize)> {
        // Acquire pairs with the Release in `make`.
        match self.bytes.load(Ordering::Acquire) {
            0 => None,
            bytes => Some((self.base.load(Ordering::Relaxed), bytes)),
        }
    }

    /// Cuts an object off the chunk, if it has the room.
    fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        let (base, bytes) = self.range()?;
        let align = layout.align().max(HEADER);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let used = base + (word & USED) as usize * HEADER;
            let at = used.checked_add(HEADER)?.checked_add(align - 1)? & !(align - 1);
            let end = at.checked_add(layout.size().max(1))?.checked_add(HEADER - 1)?;
            let used = (end - base) / HEADER;
            if used * HEADER > bytes {
                return None;
            }
            let next = (word & !USED) + ONE_LIVE + used as u64;
            // Acquire pairs with the Release in `free`: the bytes are nobody's any more.
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => {
                    let object = core::ptr::with_exposed_provenance_mut::<u8>(at);
                    // SAFETY: the object and the header before it were cut off for this caller.
                    let header = unsafe { &*header_of(object) };
                    header.bytes.store(layout.size().max(1), Ordering::Relaxed);
                    header.state.store(at ^ LIVE, Ordering::Relaxed);
                    return NonNull::new(object);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes an object back whose header says that it is dead.
    fn free(&self) {
        let less = |word: u64| if word >> USED_BITS <= 1 { Some(0) } else { Some(word - ONE_LIVE) };
        // Release pairs with the Acquire in `alloc`.
        let _ = self.word.fetch_update(Ordering::Release, Ordering::Relaxed, less);
    }

    /// Makes a chunk with room for `layout` of one that there is not yet.
    fn make(&self, layout: Layout) -> Made {
        let claim = self.base.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
        if claim.is_err() {
            return Made::Before;
        }
        let memory = chunk_bytes(layout).and_then(|bytes| {
            let purpose = Purpose::Metadata;
            let request = Request { bytes, align: OS.page_bytes(), hint: 0, purpose };
            let at = OS.reserve(request).ok()?;
            // SAFETY: reserved just now, and used by nobody if it cannot be committed.
            unsafe {
                if OS.commit(at, bytes).is_err() {
                    let _ = OS.release(at, bytes);
                    return None;
                }
            }
            Some((at, bytes))
        });
        let Some((at, bytes)) = memory else {
            self.base.store(0, Ordering::Relaxed);
            return Made::Refused;
        };
        self.base.store(at.as_ptr().expose_provenance(), Ordering::Relaxed);
        // Release pairs with the Acquire in `range`.
        self.bytes.store(bytes, Ordering::Release);
        Made::Now
    }
}

/// Bytes of a chunk with room for an object; None if no chunk is that large.
fn chunk_bytes(layout: Layout) -> Option<usize> {
    let need = layout.size().checked_add(layout.align())?.checked_add(2 * HEADER)?;
    let bytes = need.checked_add(CHUNK_BYTES - 1)? & !(CHUNK_BYTES - 1);
    (bytes / HEADER < USED as usize).then_some(bytes)
}

fn header_of(object: *mut u8) -> *const Header {
    object.wrapping_sub(HEADER).cast()
}

/// Memory for `layout`, with any contents.
pub(super) fn alloc(layout: Layout) -> Option<NonNull<u8>> {
    for chunk in &SHELTER.chunks {
        let mut object = chunk.alloc(layout);
        if object.is_none() {
            match chunk.make(layout) {
                Made::Now => object = chunk.alloc(layout),
                Made::Before => {}
                Made::Refused => return None,
            }
        }
        if object.is_some() {
            return object;
        }
    }
    None
}

/// The chunk that an address lies in.
fn chunk_at(address: usize) -> Option<&'static Chunk> {
    SHELTER
        .chunks
        .iter()
        .find(|chunk| chunk.range().is_some_and(|(base, bytes)| address.wrapping_sub(base) < bytes))
}

/// Whether an address lies in the shelter.
pub(super) fn owns(address: usize) -> bool {
    chunk_at(address).is_some()
}

/// Frees an object of the shelter.
///
/// # Errors
/// The misuse, if no live object starts there.
///
/// # Safety
/// The shelter owns the address. If an object starts there, nobody uses it any more.
pub(super) unsafe fn free(object: *mut u8) -> Result<(), Report> {
    let header = find(object)?;
    let (live, dead) = (object.addr() ^ LIVE, object.addr() ^ DEAD);
    // Relaxed: the exchange alone decides which of two racing frees is the second.
    if header.state.compare_exchange(live, dead, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return Err(report(Misuse::DoubleFree, object));
    }
    if let Some(chunk) = chunk_at(object.addr()) {
        chunk.free();
    }
    Ok(())
}

/// Bytes of a live object of the shelter.
///
/// # Errors
/// The misuse, if no live object starts there.
pub(super) fn usable_bytes(object: *mut u8) -> Result<usize, Report> {
    Ok(find(object)?.bytes.load(Ordering::Relaxed))
}

/// The header of a live object. The shelter owns the address.
fn find(object: *mut u8) -> Result<&'static Header, Report> {
    let inside = Err(report(Misuse::NotAnObjectStart, object));
    if object.addr() % HEADER != 0 || !owns(object.addr().wrapping_sub(HEADER)) {
        return inside;
    }
    // SAFETY: the header lies in a chunk, which is never given back; its fields are atomics.
    let header = unsafe { &*header_of(object) };
    match header.state.load(Ordering::Relaxed) ^ object.addr() {
        LIVE => Ok(header),
        DEAD => Err(report(Misuse::DoubleFree, object)),
        _ => inside,
    }
}

fn report(misuse: Misuse, object: *mut u8) -> Report {
    Report { misuse, address: object.addr(), class_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn objects_have_their_size_and_alignment_and_are_freed_once() {
        let sizes = [(0, 1), (1, 1), (100, 64), (5000, 4096), (3 << 20, 16), (10, 1 << 21)];
        let objects = sizes.map(|(size, align)| alloc(layout(size, align)).unwrap().as_ptr());
        for (object, (size, align)) in objects.into_iter().zip(sizes) {
            assert_eq!(object.addr() % align.max(16), 0);
            assert!(owns(object.addr()));
            assert_eq!(usable_bytes(object), Ok(size.max(1)));
            // SAFETY: the object has this size.
            unsafe { object.write_bytes(0xaa, size) };
        }
        let inside = report(Misuse::NotAnObjectStart, objects[2].wrapping_add(16));
        assert_eq!(usable_bytes(objects[2].wrapping_add(16)), Err(inside));
        for object in objects {
            // SAFETY: the object is not used any more.
            unsafe {
                assert_eq!(free(object), Ok(()));
                assert_eq!(free(object), Err(report(Misuse::DoubleFree, object)));
            }
        }
        assert!(!owns(0) && !owns(usize::MAX));
        assert!(alloc(layout(isize::MAX as usize & !8191, 16)).is_none());
    }

    #[test]
    fn threads_never_share_an_object_and_chunks_begin_anew() {
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for round in 0..2000_usize {
                        let size = 16 + round % 700;
                        let object = alloc(layout(size, 16)).unwrap().as_ptr();
                        // SAFETY: the object has this size and is this thread's alone.
                        unsafe {
                            object.write_bytes(thread, size);
                            std::thread::yield_now();
                            assert!((0..size).all(|at| *object.add(at) == thread));
                            free(object).unwrap();
                        }
                    }
                });
            }
        });
        let used = SHELTER.chunks.iter().filter(|chunk| chunk.range().is_some()).count();
        assert!(used < 20, "{used} chunks");
    }
}
