//! Runs that grow: room behind them, and moving their memory where they have none.

use core::ptr::NonNull;

use spanalloc_os::{Geometry, OsError, OsSource};

use crate::heap::PageHeap;
use crate::held::{Held, Use, page_of};
use crate::pages::{PAGE_BYTES, PAGE_SHIFT, Run, copy_pages};

/// A run with room comes to lie in a free run this many times as long as itself.
const ROOM: u64 = 16;
/// The most room, in pages: 1 GB,
const MOST_ROOM: u64 = 1 << (30 - PAGE_SHIFT);
/// but no larger part of all addresses.
const ROOM_PART: u64 = 16;
/// The part of the room that is left before the run, as room of its neighbour there.
const BEFORE: u64 = 4;
/// Runs of at least this many pages are aligned to as many: 2 MB, the size of a huge page.
const BLOCK_PAGES: u64 = 256;
/// From so many pages on (4 MB) memory is moved to where none was, instead of being copied.
const MOVED_PAGES: usize = (4 << 20) / PAGE_BYTES;
/// From so many pages on (32 MB) it is moved in any case.
const ALWAYS_MOVED_PAGES: usize = (32 << 20) / PAGE_BYTES;
/// How often memory is moved without copying it at most: where it comes to, it stays a mapping of its
/// own, of which a process may have 65,530.
const MOST_RELOCATIONS: usize = 4 << 10;
/// As many of them a refusal counts: it costs the pages that the memory should have come to, so after
/// four memory is only copied.
const REFUSED_RELOCATIONS: usize = MOST_RELOCATIONS / 4;

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// Takes a run that has free pages before and behind it. None if there is no such place.
    pub(crate) fn alloc_roomy(&mut self, pages: usize, align: usize, most: u64) -> Option<Run> {
        let most_room = MOST_ROOM.min((1 << (G::ADDRESS_BITS - PAGE_SHIFT)) / ROOM_PART);
        let room = (pages as u64 * (ROOM - 1)).min(most_room);
        let all = pages as u64 + room;
        let block = if pages as u64 >= BLOCK_PAGES { BLOCK_PAGES } else { 1 };
        let align = block.max(align as u64);
        if align > room / BEFORE || all > most {
            return None;
        }
        let found = self.find_or_grow(usize::try_from(all).ok()?)?;
        let page = (found + room / BEFORE).checked_next_multiple_of(align)?;
        self.take(page, pages, Use::Dense)
    }
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// See [`Pages::relocate`](crate::Pages::relocate).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn relocate_run(&self, from: usize, to: Run, pages: usize) -> bool {
        let memory = |address| NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address));
        let (Some(source), Some(target)) = (memory(from), memory(to.address)) else {
            return false;
        };
        let (os, bytes) = (self.source(), pages << PAGE_SHIFT);
        let whole = os.page_bytes() <= PAGE_BYTES;
        // Memory that is there already is copied to, and what is left then serves others; memory that is
        // not there yet should not be needed as long as the other is.
        let scarce = whole && pages >= if to.zeroed { MOVED_PAGES } else { ALWAYS_MOVED_PAGES };
        let mut moved = Err(OsError::Unsupported);
        if scarce && self.relocations.get() < MOST_RELOCATIONS {
            // SAFETY: runs that were handed out are Ready, of this source, and whole OS pages; nobody
            // uses them, or only the caller (contract).
            moved = unsafe { os.relocate(source, target, bytes) };
        }
        let mut ready = true;
        match moved {
            Ok(()) => self.relocations.add(1),
            Err(OsError::Unsupported) => {
                // SAFETY: the caller's promise is passed on; after that, nobody uses the pages.
                unsafe {
                    copy_pages(from, to.address, pages);
                    ready = !(scarce && os.decommit(source, bytes).is_ok());
                }
                if ready {
                    let freed = self.hold().free(from, pages);
                    debug_assert!(freed.is_ok(), "the run was handed out");
                    return true;
                }
            }
            Err(_) => {
                self.relocations.add(REFUSED_RELOCATIONS);
                let mut held = self.hold();
                held.disown(page_of(to.address), pages);
                os.forget_committed(bytes);
                if pages < to.pages {
                    let freed = held.free(to.address + bytes, to.pages - pages);
                    debug_assert!(freed.is_ok(), "the run was handed out");
                }
                drop(held);
                self.note_returned();
                return false;
            }
        }
        self.hold().free_zero(page_of(from), pages, ready);
        self.note_returned();
        true
    }
}

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// Gives pages back that read as zero, or will as soon as they are Ready.
    fn free_zero(&mut self, page: u64, pages: usize, ready: bool) {
        self.change(page, pages, |chunk, run| {
            chunk.free.set(run.from, run.count);
            chunk.zero.set(run.from, run.count);
            if !ready {
                chunk.ready.clear(run.from, run.count);
            }
        });
        self.state.free += pages;
        if ready {
            self.state.dirt.note(page + pages as u64, 0);
        } else {
            self.state.ready -= pages;
        }
    }

    /// Forgets pages that were handed out.
    fn disown(&mut self, page: u64, pages: usize) {
        self.change(page, pages, |chunk, run| {
            chunk.ours.clear(run.from, run.count);
            chunk.ready.clear(run.from, run.count);
        });
        self.state.total -= pages;
        self.state.ready -= pages;
    }
}
