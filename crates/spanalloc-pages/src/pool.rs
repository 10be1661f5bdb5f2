//! Objects that are recycled but never unmapped.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use spanalloc_sync::{Lock, Wait, rank};

use crate::pages::Pages;

/// Objects that are cut from metadata at once.
const BLOCK_OBJECTS: usize = 16;
/// Alignment of every object: two cache lines, so that no two objects share one or its neighbour.
const OBJECT_ALIGN: usize = 128;

/// A type whose objects a [`Pool`] can hold.
///
/// # Safety
/// Memory of all zeros is a valid object; the type needs no drop; and [`next`](Self::next) returns
/// the same field of the object each time, which nothing but the pool uses while the object is free.
pub unsafe trait Pooled: Sized {
    /// The link the pool uses while the object is free.
    ///
    /// # Safety
    /// `object` is one, with all the bytes that its pool gives it.
    unsafe fn next<'a>(object: NonNull<Self>) -> &'a AtomicPtr<Self>;
}

/// Objects of one type that live in metadata.
///
/// An object begins as zeroed memory. Freed ones are kept as they are and handed out again, last
/// freed first. None is ever unmapped or becomes anything else, so a stale pointer to one may still
/// be read (as far as its fields are atomics). The pool may give each object more bytes than the
/// type has, for data behind it.
#[derive(Debug)]
pub struct Pool<T, W: Wait> {
    object_bytes: usize,
    /// The block made last; the others follow by `next`.
    blocks: AtomicPtr<Block>,
    lock: Lock<Free<T>, W, { rank::SPANS }>,
}

/// The head of a block of [`BLOCK_OBJECTS`] objects, which follow at a distance of `OBJECT_ALIGN`.
#[derive(Debug)]
struct Block {
    /// The block made before. Written once, before the block is published.
    next: *mut Block,
    /// Objects of this block that have been handed out at least once: its first ones.
    made: AtomicUsize,
}

/// What the pool's lock guards.
#[derive(Debug)]
struct Free<T> {
    /// The object freed last; the others follow by their `next`.
    first: *mut T,
    count: usize,
}

// SAFETY: the pointers are to objects that are the pool's alone; who gets one says what it may do
// with it on its thread.
unsafe impl<T> Send for Free<T> {}

impl<T: Pooled> Free<T> {
    /// Takes the object freed last.
    fn pop(&mut self) -> Option<NonNull<T>> {
        let object = NonNull::new(self.first)?;
        // SAFETY: free objects are valid and stay mapped; the list is guarded by the lock.
        // Relaxed: the lock orders the links.
        self.first = unsafe { T::next(object) }.load(Ordering::Relaxed);
        self.count -= 1;
        Some(object)
    }
}

impl<T: Pooled, W: Wait> Pool<T, W> {
    /// An empty pool of objects of `bytes_per_object` bytes, or as many as `T` has if that is more,
    /// rounded up to a multiple of 128.
    pub const fn new(bytes_per_object: usize) -> Self {
        const { assert!(align_of::<T>() <= OBJECT_ALIGN, "objects are aligned to 128 bytes") };
        const { assert!(size_of::<Block>() <= OBJECT_ALIGN && size_of::<T>() > 0) };
        let bytes =
            if bytes_per_object > size_of::<T>() { bytes_per_object } else { size_of::<T>() };
        Self {
            object_bytes: match bytes.checked_next_multiple_of(OBJECT_ALIGN) {
                Some(bytes) => bytes,
                None => usize::MAX,
            },
            blocks: AtomicPtr::new(ptr::null_mut()),
            lock: Lock::new(Free { first: ptr::null_mut(), count: 0 }),
        }
    }

    /// Bytes of one object.
    pub const fn object_bytes(&self) -> usize {
        self.object_bytes
    }

    /// An object: one that was put back, as it was then, or a new one, all zeros. It is the
    /// caller's until it puts it back. None if `pages` has no more metadata. Every call is made
    /// with the same `pages`, or with ones that live equally long.
    pub fn get<P: Pages>(&self, pages: &P) -> Option<NonNull<T>> {
        let mut object = None;
        self.get_many(pages, 1, |got| object = Some(got));
        object
    }

    /// As [`get`](Self::get), up to `most` objects at once: `each` is called with one after the other. The
    /// pool's lock is held meanwhile.
    pub fn get_many<P: Pages>(&self, pages: &P, most: usize, mut each: impl FnMut(NonNull<T>)) {
        let mut free = self.lock.lock();
        for got in 0..most {
            // Memory for new ones is not taken before it is needed.
            let new = || if got == 0 { self.make_slow(pages) } else { None };
            let Some(object) = free.pop().or_else(new) else { return };
            each(object);
        }
    }

    /// Takes an object back.
    ///
    /// # Safety
    /// The object came from [`get`](Self::get) of this pool, was not put back since, and is no
    /// longer used by its owner. Others may still read its atomics.
    pub unsafe fn put(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.put_many(core::iter::once(object)) };
    }

    /// Takes several objects back. The pool's lock is held while `objects` is asked for them.
    ///
    /// # Safety
    /// As for [`put`](Self::put), of each of them.
    pub unsafe fn put_many(&self, objects: impl Iterator<Item = NonNull<T>>) {
        let mut free = self.lock.lock();
        for object in objects {
            // SAFETY: the object is valid by the caller's promise. Relaxed: the lock orders the links.
            unsafe { T::next(object) }.store(free.first, Ordering::Relaxed);
            free.first = object.as_ptr();
            free.count += 1;
        }
    }

    /// A new object, of the last block or of a new one. The pool's lock is held.
    #[cold]
    #[inline(never)]
    fn make_slow<P: Pages>(&self, pages: &P) -> Option<NonNull<T>> {
        // Relaxed: only threads that hold the lock store here.
        let mut block = self.blocks.load(Ordering::Relaxed);
        // SAFETY: blocks are published when they are whole, and never given back.
        let full = unsafe { block.as_ref() }
            .is_none_or(|block| block.made.load(Ordering::Relaxed) >= BLOCK_OBJECTS);
        if full {
            let bytes = self.object_bytes.checked_mul(BLOCK_OBJECTS)?.checked_add(OBJECT_ALIGN)?;
            let layout = Layout::from_size_align(bytes, OBJECT_ALIGN).ok()?;
            let fresh = pages.metadata(layout)?.cast::<Block>().as_ptr();
            // SAFETY: metadata is zeroed, so it is a block of no objects, and ours alone.
            unsafe { (*fresh).next = block };
            // Release pairs with the Acquire in `objects`: who sees the block sees its link.
            self.blocks.store(fresh, Ordering::Release);
            block = fresh;
        }
        // SAFETY: as above.
        let made = unsafe { &(*block).made };
        let index = made.load(Ordering::Relaxed);
        // Relaxed: the memory was zero, a valid object, before the block was published.
        made.store(index + 1, Ordering::Relaxed);
        // SAFETY: `index` is below `BLOCK_OBJECTS`, so the object lies in the block.
        Some(unsafe { self.object(block, index) })
    }

    /// Object `index` of `block`.
    ///
    /// # Safety
    /// The block is one of this pool's and has that object.
    unsafe fn object(&self, block: *mut Block, index: usize) -> NonNull<T> {
        let offset = OBJECT_ALIGN + index * self.object_bytes;
        // SAFETY: the caller's promise; the block is not null.
        unsafe { NonNull::new_unchecked(block.byte_add(offset).cast()) }
    }

    /// Every object that was ever handed out, free ones included. Takes no lock; objects made
    /// meanwhile may be missing.
    pub fn objects(&self) -> impl Iterator<Item = NonNull<T>> + '_ {
        // Acquire pairs with the Release in `make_slow`.
        let mut block = self.blocks.load(Ordering::Acquire);
        let mut index = 0;
        core::iter::from_fn(move || {
            loop {
                // SAFETY: published blocks are whole and never given back.
                let head = unsafe { block.as_ref() }?;
                if index < head.made.load(Ordering::Relaxed) {
                    // SAFETY: the block has made that many objects.
                    let object = unsafe { self.object(block, index) };
                    index += 1;
                    return Some(object);
                }
                block = head.next;
                index = 0;
            }
        })
    }

    /// How often the pool's lock was taken.
    pub fn acquisitions(&self) -> usize {
        self.lock.acquisitions()
    }

    /// Objects that are free now.
    pub fn free_objects(&self) -> usize {
        self.lock.lock().count
    }
}
