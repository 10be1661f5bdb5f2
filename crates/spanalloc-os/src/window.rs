//! The part of a table that may be read, as three words: the kernel of the arena map.

use core::ptr;

use spanalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use spanalloc_sync::fault::{self, Fault};

/// A table of pointers of which only a window of neighbouring entries is Ready.
///
/// The words go through these states, only forwards and only by the one writer:
///
/// | state  | `table` | `not_lo`, `hi`           | what a lookup sees                        |
/// |--------|---------|--------------------------|-------------------------------------------|
/// | empty  | null    | 0, 0                     | null for every index                      |
/// | placed | set     | 0, 0                     | null for every index                      |
/// | open   | set     | `!lo`, `hi`; `lo < hi`   | the entry if `lo <= index < hi`, else null|
///
/// `table` is set once, before the first opening. An open window only grows: `lo` only falls, `hi`
/// only rises, and every entry of the new window is Ready before either of the two is stored. So a
/// lookup that reads `lo` from one time and `hi` from another sees a part of the window of the later
/// time, and never an entry that was not Ready. The lower bound is kept inverted because then the
/// empty window is all zeroes, and no mixture of it with an open one is anything but empty.
///
/// `T` is what the entries point to. This is public so that a model can drive it; the allocator
/// uses it through [`ArenaMap`](crate::ArenaMap).
#[derive(Debug)]
pub struct Window<T> {
    /// Where entry 0 would be: the address of the table less that of its first entry.
    table: AtomicPtr<AtomicPtr<T>>,
    not_lo: AtomicUsize,
    hi: AtomicUsize,
}

impl<T> Window<T> {
    /// The empty window: no table, no entry.
    pub const fn new() -> Self {
        Self {
            table: AtomicPtr::new(ptr::null_mut()),
            not_lo: AtomicUsize::new(0),
            hi: AtomicUsize::new(0),
        }
    }

    /// Where the entry of `index` is, if it is Ready.
    #[inline(always)]
    pub fn entry(&self, index: usize) -> Option<*const AtomicPtr<T>> {
        // Both Acquires pair with the Release stores in `open`: whichever of the two stores is the
        // later one, the entries it covers were Ready before it, and `table` was set.
        let not_lo = self.not_lo.load(Ordering::Acquire);
        let hi = self.hi.load(Ordering::Acquire);
        let table = self.table.load(Ordering::Relaxed);
        if !index <= not_lo && index < hi {
            Some(table.wrapping_add(index).cast_const())
        } else {
            None
        }
    }

    /// What was published for `index`; null if nothing was.
    #[inline(always)]
    pub fn get(&self, index: usize) -> *mut T {
        match self.entry(index) {
            // SAFETY: `entry` only names entries of the open window, which are Ready for ever
            // (the contract of `open`). Acquire pairs with the Release store in `publish`.
            Some(entry) => unsafe { (*entry).load(Ordering::Acquire) },
            None => ptr::null_mut(),
        }
    }

    /// The indices of the Ready entries, as the writer knows them: first, and one past the last.
    pub fn bounds(&self) -> (usize, usize) {
        let hi = self.hi.load(Ordering::Relaxed);
        if hi == 0 { (0, 0) } else { (!self.not_lo.load(Ordering::Relaxed), hi) }
    }

    /// empty -> placed: the table's first entry is that of index `first`, and will be at `table`.
    ///
    /// # Safety
    /// The caller is the only writer, and the window is empty.
    pub unsafe fn place(&self, table: *mut AtomicPtr<T>, first: usize) {
        // Relaxed: readers only use it after an Acquire of what `open` stores later.
        self.table.store(table.wrapping_sub(first), Ordering::Relaxed);
    }

    /// placed or open -> open: the entries `lo..hi` may be read from now on.
    ///
    /// # Safety
    /// The caller is the only writer; the window is placed; `lo < hi` and `lo..hi` covers the
    /// window as it was; every entry of it is a valid atomic (all zeroes is null) and remains one
    /// as long as the window is used.
    pub unsafe fn open(&self, lo: usize, hi: usize) {
        // Release pairs with the Acquires in `entry`.
        let release = fault::ordering(Fault::PublishRelaxed, Ordering::Release);
        self.not_lo.store(!lo, release);
        self.hi.store(hi, release);
    }

    /// Makes `value` what [`get`](Self::get) returns for `index`, and all that was written to it
    /// before visible to whoever gets it. Does nothing if the entry is not Ready.
    ///
    /// # Safety
    /// The caller is the only writer.
    pub unsafe fn publish(&self, index: usize, value: *mut T) {
        // Release pairs with the Acquire in `get`.
        let release = fault::ordering(Fault::PublishRelaxed, Ordering::Release);
        if let Some(entry) = self.entry(index) {
            // SAFETY: as in `get`.
            unsafe { (*entry).store(value, release) };
        }
    }
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn table() -> [AtomicPtr<u32>; 8] {
        [const { AtomicPtr::new(ptr::null_mut()) }; 8]
    }

    #[test]
    fn an_empty_or_placed_window_has_no_entry() {
        let window = Window::<u32>::new();
        let mut entries = table();
        for _ in 0..2 {
            for index in [0, 1, 7, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
                assert!(window.get(index).is_null());
            }
            assert_eq!(window.bounds(), (0, 0));
            // SAFETY: the only thread; the window is empty the first time, unused the second.
            unsafe { window.place(entries.as_mut_ptr(), 100) };
        }
    }

    #[test]
    fn only_the_open_part_is_read_and_it_grows_both_ways() {
        let window = Window::<u32>::new();
        let mut entries = table();
        let mut values = [1_u32, 2];
        let [first, second] = &mut values;
        let (first, second) = (ptr::from_mut(first), ptr::from_mut(second));
        // SAFETY: the only thread; the table outlives the window; it has entries 100..108.
        unsafe {
            window.place(entries.as_mut_ptr(), 100);
            window.open(103, 105);
            window.publish(104, first);
            window.publish(105, second);
        }
        assert_eq!(window.get(104), first);
        assert!(window.get(103).is_null());
        assert!(window.entry(102).is_none() && window.entry(105).is_none());
        assert_eq!(window.bounds(), (103, 105));
        // SAFETY: as above.
        unsafe {
            window.open(100, 108);
            window.publish(100, second);
        }
        assert_eq!(window.get(100), second);
        assert_eq!(window.get(104), first);
        assert!(window.get(105).is_null(), "an entry that was not Ready takes nothing");
        assert!(window.entry(99).is_none() && window.entry(108).is_none());
    }
}
