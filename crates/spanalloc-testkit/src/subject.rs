use std::alloc::Layout;
use std::ptr::NonNull;

use spanalloc_os::Verb;

/// What lives, as the shadow counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Live objects.
    pub objects: usize,
    /// The sum of their sizes.
    pub bytes: usize,
}

/// An allocator that is to be tested.
///
/// # Safety
/// An implementor promises the one thing that cannot be checked: what `alloc`, `alloc_zeroed` and
/// `realloc` return points to memory that may be read and written, for as many bytes as asked, until
/// it is given back. Everything else (alignment, overlap, contents) is what is tested.
pub unsafe trait Subject {
    /// Memory for `layout`, whose size may be 0.
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Memory for `layout` that reads as zero.
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Frees an object.
    ///
    /// # Safety
    /// It came from this subject with this layout (the size as of its last realloc), through
    /// whichever cache, and nobody uses it any more.
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);

    /// Gives an object a new size; None leaves it as it was.
    ///
    /// # Safety
    /// As for [`free`](Self::free), and `new_size` rounded up to the alignment fits an `isize`.
    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>>;

    /// How many caches there are.
    fn caches(&self) -> usize {
        1
    }

    /// Serves from now on through this cache; `cache` is below [`caches`](Self::caches).
    fn switch(&mut self, _cache: usize) {}

    /// Ends this cache and begins a new one in its place.
    fn restart(&mut self, _cache: usize) {}

    /// Gives up to `most` units of memory that is not in use back to the system.
    fn release(&mut self, _most: usize) {}

    /// Time passes: whatever the subject does by the clock, it does it now, and asks no other clock.
    fn advance(&mut self, _microseconds: u32) {}

    /// A step of up to `pieces` pieces of whatever gives unused memory back in the background.
    fn scavenge(&mut self, _pieces: usize) {}

    /// From now on `after` calls of `verb` to the system below work, and the `calls` after these fail.
    /// A subject over a [`Faulty`](spanalloc_os::Faulty) tells it so; one whose system cannot be made
    /// to fail does nothing.
    fn os_fails(&mut self, _verb: Verb, _after: usize, _calls: usize) {}

    /// All calls to the system work again.
    fn os_works(&mut self) {}

    /// Forks the process and runs `child` in the child, which ends with it; returns what `child` did, or
    /// that the child died. [`Forking`](crate::Forking) does that for any subject.
    ///
    /// None from a subject that does not fork, which is the default: for an allocator that is a value a
    /// child has a copy of all of it, and only one that is shared by threads has something to see to.
    fn fork(
        &mut self,
        _child: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Option<Result<(), String>>
    where
        Self: Sized,
    {
        None
    }

    /// Called after every operation with what lives now.
    ///
    /// # Errors
    /// What does not add up, in words.
    fn audit(&mut self, _tally: Tally) -> Result<(), String> {
        Ok(())
    }
}
