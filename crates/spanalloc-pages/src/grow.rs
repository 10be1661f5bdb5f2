use spanalloc_os::{
    ArenaRange, Geometry, OsSource, Purpose, Request, checked_round_up, reserve_arena, round_down,
};

use crate::bitmap::CHUNK_PAGE_BITS;
use crate::chunk::segments;
use crate::held::{Held, page_of};
use crate::pages::{PAGE_BYTES, PAGE_SHIFT};
use crate::slot::{CHUNK_SHIFT, Slot};

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// Reserves address space until there is a run of `pages` free pages, and returns where.
    #[cold]
    #[inline(never)]
    pub(crate) fn grow_slow(&mut self, pages: usize) -> Option<u64> {
        let bytes = pages.checked_mul(PAGE_BYTES)?;
        let (address, length) = self.state.spare;
        if length != 0 && self.enter(address, length) {
            self.state.spare = (0, 0);
            if let Some(page) = self.find(pages) {
                return Some(page);
            }
        }
        let os = self.heap.source();
        let hint = self.state.reserve_hint;
        let mut range = reserve_arena::<G, _>(os, bytes, hint).ok()?;
        loop {
            let refusals = os.refused_reservations();
            let address = range.address.as_ptr().expose_provenance();
            if self.enter(address, range.bytes) {
                self.state.reserve_hint = address.wrapping_add(range.bytes);
                return self.find(pages);
            }
            // SAFETY: the range was reserved just now, and none of its pages was entered.
            if unsafe { os.release(range.address, range.bytes) }.is_err() {
                if self.state.spare.1 == 0 {
                    self.state.spare = (address, range.bytes);
                }
                return None;
            }
            // Where address space was to be had, it is memory that lacks: a shorter range needs as much.
            if os.refused_reservations() == refusals {
                return None;
            }
            range = self.reserve_less(range.bytes, bytes)?;
        }
    }

    /// Reserves address space behind the last reservation, if that lies behind the free pages from `page`
    /// on. Whether there are `pages` free ones then.
    #[cold]
    #[inline(never)]
    pub(crate) fn grow_behind(&mut self, page: u64, pages: usize) -> bool {
        let end = self.state.reserve_hint;
        let Some(free) = page_of(end).checked_sub(page).and_then(|free| usize::try_from(free).ok())
        else {
            return false;
        };
        if free >= pages || end % PAGE_BYTES != 0 || !self.all_free(page, free) {
            return false;
        }
        let (os, bytes) = (self.heap.source(), (pages - free) << PAGE_SHIFT);
        let Ok(range) = reserve_arena::<G, _>(os, bytes, end) else { return false };
        let address = range.address.as_ptr().expose_provenance();
        if address == end && self.enter(address, range.bytes) {
            self.state.reserve_hint = address.wrapping_add(range.bytes);
            return true;
        }
        // SAFETY: the range was reserved just now, and none of its pages was entered.
        if unsafe { os.release(range.address, range.bytes) }.is_err() && self.state.spare.1 == 0 {
            self.state.spare = (address, range.bytes);
        }
        false
    }

    /// Reserves at most half of `refused` bytes: a range that long left no space for the metadata it
    /// needs. At least `need` bytes, or None.
    fn reserve_less(&self, refused: usize, need: usize) -> Option<ArenaRange> {
        let os = self.heap.source();
        let grain = os.page_bytes().max(PAGE_BYTES);
        let bytes = round_down(refused / 2, grain).max(checked_round_up(need, grain)?);
        if bytes >= refused {
            return None;
        }
        let hint = self.state.reserve_hint;
        let request = Request { bytes, align: grain, hint, purpose: Purpose::Arena };
        os.reserve(request).ok().map(|address| ArenaRange { address, bytes })
    }

    /// Makes the whole pages of a reserved range pages of this heap: free, zero, not Ready. False
    /// if there is no metadata for them; none of them was entered then.
    fn enter(&mut self, address: usize, bytes: usize) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let Some(start) = address.checked_next_multiple_of(PAGE_BYTES) else { return false };
        let first = page_of(start);
        let pages = page_of(end).saturating_sub(first);
        if pages == 0 || end as u64 > 1 << G::ADDRESS_BITS {
            return false;
        }
        // Everything that may fail comes first.
        for segment in segments(first, pages) {
            if self.prepare(segment.chunk).is_none() {
                return false;
            }
        }
        let count = pages as usize;
        self.change(first, count, |chunk, segment| {
            chunk.ours.set(segment.from, segment.count);
            chunk.zero.set(segment.from, segment.count);
            chunk.free.set(segment.from, segment.count);
        });
        self.state.total += count;
        self.state.free += count;
        true
    }

    /// Makes the arena slot and the leaf of a chunk, if they are missing.
    fn prepare(&mut self, index: u64) -> Option<()> {
        let heap = self.heap;
        let address = usize::try_from(index << CHUNK_SHIFT).ok()?;
        if heap.arenas.get(address).is_null() {
            let slot = match self.state.slot.take() {
                Some(slot) => slot,
                None => heap
                    .metadata
                    .alloc_under(&self.state, heap.source(), Slot::<G>::layout()?)?
                    .cast(),
            };
            // SAFETY: the heap's lock is held, so one thread publishes at a time; the source is
            // always the heap's. The slot is new, zeroed and never given back.
            if unsafe { heap.arenas.publish(heap.source(), address, slot) }.is_err() {
                self.state.slot = Some(slot);
                return None;
            }
            self.state.slots += 1;
        }
        if self.chunk(index)?.leaf.is_null() {
            let state = &mut self.state;
            let leaf =
                state.tree.insert(index, |layout| heap.metadata.alloc(heap.source(), layout))?;
            self.chunk(index)?.leaf = leaf;
        }
        Some(())
    }
}

const _: () = assert!(CHUNK_SHIFT == PAGE_SHIFT + CHUNK_PAGE_BITS);
