//! The checked allocator without Layouts: what the C library is made of.
//!
//! Every function works at any time: before `main`, in destructors, in threads that end, in the child
//! of a fork, in a signal handler that interrupted another one of them. None changes `errno`. What
//! describes the heap says nothing in such a signal handler.
//!
//! [`hardened`](crate::hardened) has the same functions, and what they do is written once, for each allocator
//! that checks.

mod background;
mod early;
mod entry;
mod fork;
pub(crate) mod gate;
mod global;
pub(crate) mod heap;
mod limits;
mod map;
mod objects;
mod resize;
mod shelter;
mod snapshot;
pub(crate) mod system;

use spanalloc_cache::Snapshot;
use spanalloc_central::Central as _;
use spanalloc_pages::HugePages;
pub use spanalloc_pages::Listener;
use spanalloc_sync::atomic::{AtomicBool, Ordering};

pub use self::map::Use;
use crate::program::{CacheOf, Program as _};

/// What is written once, for any allocator that checks.
pub(crate) mod any {
    pub(crate) use super::background::{release, start};
    pub(crate) use super::heap::Checks;
    pub(crate) use super::limits::{set_listener, set_soft_limit};
    pub(crate) use super::map::for_each_run;
    pub(crate) use super::objects::{alloc, alloc_zeroed, at_hand, check_layout, free, free_sized};
    pub(crate) use super::resize::{realloc, usable_size};
    pub(crate) use super::snapshot::snapshot_into;
}

/// spanalloc as the allocator of a Rust program that is not trusted.
///
/// Freeing something twice, something that is no object, or something with the Layout of another
/// size class ends the process at that call with one line. The child of a fork can allocate, whatever
/// the other threads were doing, and so can a signal handler.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: spanalloc::Checked = spanalloc::Checked;
///
/// let words: Vec<String> = "one line is all it takes".split(' ').map(String::from).collect();
/// assert_eq!(words.len(), 6);
/// ```
///
/// All values of this type are the same allocator, and another one than
/// [`Spanalloc`](crate::Spanalloc).
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked;

/// Whether the program is trusted: misuse is ignored instead of ending the process.
static TRUSTED: AtomicBool = AtomicBool::new(false);

/// Trusts the program from now on: what cannot be freed is left alone instead of ending the process.
/// What comes to light only later, when what other threads freed is taken in, still ends it.
pub fn trust_program() {
    TRUSTED.store(true, Ordering::Relaxed);
}

/// As [`set_thread_cache`](crate::set_thread_cache), for [`Checked`] alone.
pub fn set_thread_cache(bytes: usize) {
    Checked::central().set_thread_cache(bytes);
}

/// As [`set_huge_pages`](crate::set_huge_pages), for [`Checked`] alone.
pub fn set_huge_pages(huge: HugePages) {
    Checked::central().heap().set_huge_pages(huge);
}

/// As [`limits::set_soft`](crate::limits::set_soft), for [`Checked`] alone. Does nothing in a signal handler
/// that interrupted the allocator.
pub fn set_soft_limit(bytes: usize) {
    any::set_soft_limit::<Checked>(bytes);
}

/// As [`limits::set_hard`](crate::limits::set_hard), for [`Checked`] alone.
pub fn set_hard_limit(bytes: usize) {
    Checked::central().heap().set_hard_limit(bytes);
}

/// As [`limits::on_pressure`](crate::limits::on_pressure), for [`Checked`] alone. Does nothing in a signal
/// handler that interrupted the allocator.
pub fn set_listener(listener: Option<Listener>) {
    any::set_listener::<Checked>(listener);
}

/// Memory of at least `size` bytes whose address is a multiple of `align`, a power of two. Null if there
/// is none, or no memory is that large. A size of 0 is served as 1.
#[inline(always)]
#[must_use]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    any::alloc::<Checked>(size, align)
}

/// As [`alloc`], for most objects if the thread has one at hand. `None` says nothing: whoever gets it
/// calls [`alloc`].
#[inline(always)]
#[must_use]
pub fn at_hand(size: usize, align: usize) -> Option<*mut u8> {
    any::at_hand::<Checked>(size, align)
}

/// As [`alloc`], and every byte is zero.
#[inline]
#[must_use]
pub fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    any::alloc_zeroed::<Checked>(size, align)
}

/// Frees an object. Ends the process if no live object starts at this address.
///
/// # Safety
/// If it is an object of this allocator, nobody uses it any more.
#[inline(always)]
pub unsafe fn free(object: *mut u8) {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::free::<Checked>(object) }
}

/// As [`free`], and ends the process unless this size and alignment would be served like the object.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub unsafe fn free_sized(object: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::free_sized::<Checked>(object, size, align) }
}

/// Gives an object a new size and alignment and keeps its contents. Null leaves it as it was. Ends the
/// process if no live object starts at this address.
///
/// # Safety
/// If it is an object of this allocator, the caller alone uses it, and only by the new address if
/// that is not null.
#[must_use]
pub unsafe fn realloc(object: *mut u8, new_size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::realloc::<Checked>(object, new_size, align) }
}

/// How many bytes of an object the program may use. Ends the process if no live object starts at this
/// address; 0 if the program is trusted nevertheless.
///
/// # Safety
/// The object is not freed meanwhile.
#[must_use]
pub unsafe fn usable_size(object: *mut u8) -> usize {
    // SAFETY: the caller's promise is passed on.
    unsafe { any::usable_size::<Checked>(object) }
}

/// Gives all memory that is free back to the system, with what the calling thread keeps of it, what all threads
/// keep that sleep, and the empty spans of the others. Returns how many bytes that was. The others give back the
/// rest of what they keep when they next come to a slow path.
pub fn release() -> usize {
    any::release::<Checked>()
}

/// As [`background::start`](crate::background::start), for the heap of [`Checked`] alone: a program that has
/// no other needs nothing of it.
pub fn start_background() -> bool {
    any::start::<Checked>(1)
}

/// Calls `visit` for the pages of the heap, lowest address first: with the address of the first of
/// neighbouring pages of one use, and how many there are. A longer run may come in pieces.
///
/// The heap's lock is held: `visit` must not allocate. Of nothing in a signal handler that interrupted
/// the allocator.
pub fn for_each_run(visit: impl FnMut(usize, usize, Use)) {
    any::for_each_run::<Checked>(visit);
}

/// What the heap of [`Checked`] holds now. Allocates nothing.
///
/// Exact while no other thread is inside the allocator; otherwise each number is one that was true
/// at some moment during the call. Of nothing in the child of a fork that came while a thread was inside
/// the allocator and could not get out, and in a signal handler that interrupted the allocator.
#[must_use]
pub fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::EMPTY;
    snapshot_into(&mut snapshot);
    snapshot
}

/// As [`snapshot`], written over what was in the place: for threads with a small stack.
pub fn snapshot_into(snapshot: &mut Snapshot) {
    any::snapshot_into::<Checked>(snapshot);
}

/// Closes the cache of a thread that ends, if the heap may be entered.
///
/// # Safety
/// As for [`Program::close`](crate::program::Program::close).
pub(crate) unsafe fn close<G: any::Checks>(cache: CacheOf<G>) {
    if let Some(_outsider) = G::gate().wait_as_outsider() {
        // SAFETY: the caller's promise is passed on.
        unsafe { cache.park() };
    }
}
