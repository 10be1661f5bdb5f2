//! Memory for the allocator's own tables: reserved apart from the arenas, cut from front to back,
//! never given back.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_os::{OsSource, Purpose, Request, checked_round_up, round_up};
use spanalloc_sync::{Lock, LockGuard, Wait, rank};

/// Bytes of the first reservation; each following one is twice the one before.
const FIRST_BYTES: usize = 256 << 10;
/// Bytes of the largest reservation that is not made for one large table.
const LARGEST_BYTES: usize = 16 << 20;
/// Bytes that become Ready at once.
const STEP_BYTES: usize = 64 << 10;
/// OS pages of the smallest reservation that has guards.
const GUARDED_PAGES: usize = 16;

/// The metadata allocator of one heap.
#[derive(Debug)]
pub(crate) struct Metadata<W: Wait> {
    state: Lock<State, W, { rank::METADATA }>,
}

/// What the metadata allocator holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetadataStats {
    pub(crate) reserved: usize,
    pub(crate) committed: usize,
    pub(crate) in_use: usize,
}

#[derive(Debug)]
struct State {
    region: Region,
    next_bytes: usize,
    stats: MetadataStats,
}

// SAFETY: the pointer is to memory that is the region's alone, on whatever thread.
unsafe impl Send for State {}

/// A reservation that is being cut up. Offsets count from `start` and are in bytes.
///
/// A reservation of at least 16 OS pages keeps its first and its last page Reserved for ever: a
/// guard that stops whoever runs over the end of neighbouring memory. Smaller ones, which only a
/// source that is nearly empty or very small makes, have none.
#[derive(Clone, Copy, Debug)]
struct Region {
    /// Behind the guard, if there is one.
    start: *mut u8,
    /// Handed out below this, gaps for alignment included.
    used: usize,
    /// Ready below this.
    ready: usize,
    /// Before the guard, if there is one.
    limit: usize,
}

impl Region {
    const EMPTY: Self = Self { start: ptr::null_mut(), used: 0, ready: 0, limit: 0 };

    /// Where an object of `layout` fits.
    fn place(&self, layout: Layout) -> Option<usize> {
        let at = self.start.addr().checked_add(self.used)?;
        let offset = checked_round_up(at, layout.align())? - self.start.addr();
        (offset.checked_add(layout.size())? <= self.limit && !self.start.is_null())
            .then_some(offset)
    }

    /// Cuts an object off. None if it does not fit, or the memory behind it was refused; nothing
    /// is changed then.
    fn cut<O: OsSource>(
        &mut self,
        os: &O,
        layout: Layout,
        stats: &mut MetadataStats,
    ) -> Option<NonNull<u8>> {
        let offset = self.place(layout)?;
        let end = offset + layout.size();
        if end > self.ready {
            // A whole step if the system gives it, else just what is needed.
            let page = os.page_bytes();
            let step = round_up(end, STEP_BYTES.max(page)).min(self.limit);
            let least = round_up(end, page).min(self.limit);
            let ready = [step, least].into_iter().find(|ready| {
                let Some(at) = NonNull::new(self.start.wrapping_add(self.ready)) else {
                    return false;
                };
                // SAFETY: `ready .. limit` is whole pages of the reservation behind this region.
                unsafe { os.commit(at, ready - self.ready) }.is_ok()
            })?;
            stats.committed += ready - self.ready;
            self.ready = ready;
        }
        self.used = end;
        stats.in_use += layout.size();
        // SAFETY: the offset lies in the reservation.
        NonNull::new(unsafe { self.start.add(offset) })
    }
}

impl<W: Wait> Metadata<W> {
    /// An allocator that has reserved nothing yet.
    pub(crate) const fn new() -> Self {
        let stats = MetadataStats { reserved: 0, committed: 0, in_use: 0 };
        Self { state: Lock::new(State { region: Region::EMPTY, next_bytes: FIRST_BYTES, stats }) }
    }

    /// Zeroed memory that is never given back.
    pub(crate) fn alloc<O: OsSource>(&self, os: &O, layout: Layout) -> Option<NonNull<u8>> {
        self.state.lock().alloc(os, layout)
    }

    /// As [`alloc`](Self::alloc), from `bytes` zeroed Ready bytes at `start`, which are metadata from
    /// now on: what is left of them serves later objects, if it is more than what was at hand.
    pub(crate) fn alloc_from(
        &self,
        start: NonNull<u8>,
        bytes: usize,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let mut state = self.state.lock();
        let mut region = Region { start: start.as_ptr(), used: 0, ready: bytes, limit: bytes };
        let offset = region.place(layout)?;
        region.used = offset + layout.size();
        state.stats.reserved += bytes;
        state.stats.committed += bytes;
        state.stats.in_use += layout.size();
        if region.ready - region.used > state.region.ready - state.region.used {
            state.region = region;
        }
        // SAFETY: the offset lies in the `bytes` bytes.
        NonNull::new(unsafe { start.as_ptr().add(offset) })
    }

    /// As [`alloc`](Self::alloc), by a thread that holds `held`.
    pub(crate) fn alloc_under<O: OsSource, T, V: Wait, const RANK: u8>(
        &self,
        held: &LockGuard<'_, T, V, RANK>,
        os: &O,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        self.state.lock_under(held).alloc(os, layout)
    }

    /// How often its lock was taken.
    pub(crate) fn acquisitions(&self) -> usize {
        self.state.acquisitions()
    }

    /// What is held now.
    pub(crate) fn stats(&self) -> MetadataStats {
        self.state.lock().stats
    }
}

impl State {
    fn alloc<O: OsSource>(&mut self, os: &O, layout: Layout) -> Option<NonNull<u8>> {
        if self.region.place(layout).is_none() {
            return self.alloc_slow(os, layout);
        }
        self.region.cut(os, layout, &mut self.stats)
    }

    /// Cuts the object from a new reservation. Of the old region and the new one, that with more
    /// room left is kept for the objects to come.
    #[cold]
    #[inline(never)]
    fn alloc_slow<O: OsSource>(&mut self, os: &O, layout: Layout) -> Option<NonNull<u8>> {
        let page = os.page_bytes();
        // A reservation is aligned to a page; more takes space to move in.
        let slack = if layout.align() > page { layout.align() } else { 0 };
        let need = checked_round_up(layout.size().max(1).checked_add(slack)?, page)?;
        let guards = 2 * page;
        let least = if need >= GUARDED_PAGES * page { need.checked_add(guards)? } else { need };
        let mut bytes = self.next_bytes.max(need.checked_add(guards)?);
        bytes = checked_round_up(bytes, page)?;
        let start = loop {
            let request = Request { bytes, align: page, hint: 0, purpose: Purpose::Metadata };
            match os.reserve(request) {
                Ok(start) => break start,
                Err(_) if bytes <= least => return None,
                Err(_) => bytes = round_up(bytes / 2, page).max(least),
            }
        };
        let guard = if bytes >= GUARDED_PAGES * page && bytes - guards >= need { page } else { 0 };
        let mut fresh = Region {
            start: start.as_ptr().wrapping_add(guard),
            used: 0,
            ready: 0,
            limit: bytes - 2 * guard,
        };
        let object = fresh.cut(os, layout, &mut self.stats);
        // SAFETY: the range was reserved just now, and without an object nobody uses it.
        if object.is_none() && unsafe { os.release(start, bytes) }.is_ok() {
            return None;
        }
        self.stats.reserved += bytes;
        self.next_bytes = (bytes * 2).clamp(FIRST_BYTES, LARGEST_BYTES);
        if fresh.limit - fresh.used > self.region.limit - self.region.used {
            self.region = fresh;
        }
        object
    }
}

#[cfg(test)]
mod tests;
