//! A source that knows which of its pages are in memory, by what is done and not by asking the system.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;

use spanalloc_os::{OsError, OsSource, Purpose, Report, Request, round_up};

/// Bytes of the pages that are counted, whatever the system's are.
const PAGE_BYTES: usize = 4096;
/// Pages that are kept together: those of 2 MB.
const CHUNK_PAGES: usize = 512;
const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_BYTES;

/// The address space that arenas are cut from, where a system gives them: 256 GB, or less if it
/// refuses.
const ROOM_BYTES: usize = 256 << 30;
const LEAST_ROOM_BYTES: usize = 64 << 20;

/// From so many bytes on pages are exchanged instead of cleared, if few of them are in memory.
const CLEARED_BYTES: usize = 256 << 10;

/// A source over `O` in whose memory a replay lives.
///
/// What an object covers counts as written to ([`touch`](Self::touch)) until it is given back. Arenas
/// lie one behind the other in one reservation, so that a heap looks the same in every process. What some
/// kernels can do and others cannot (guards, large pages, moving memory) is not asked of them, but made
/// up; but for [`honest`](Self::honest) sources, which count nothing and are for timing.
#[derive(Debug)]
pub(crate) struct Residence<O> {
    inner: O,
    /// Whether arenas are cut from a reservation.
    roomy: bool,
    honest: bool,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    room: Option<Room>,
    chunks: HashMap<usize, [u64; CHUNK_PAGES / 64]>,
    pages: usize,
}

#[derive(Debug)]
struct Room {
    next: NonNull<u8>,
    left: usize,
}

impl<O: OsSource> Residence<O> {
    /// Over a source that has address space without end: a system.
    pub(crate) fn roomy(inner: O) -> Self {
        Self { inner, roomy: true, honest: false, state: RefCell::default() }
    }

    /// Over a source that has little.
    pub(crate) fn tight(inner: O) -> Self {
        Self { inner, roomy: false, honest: false, state: RefCell::default() }
    }

    /// The same, which asks the source for all that it is asked for.
    pub(crate) fn honest(self) -> Self {
        Self { honest: true, ..self }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.state.borrow().pages * PAGE_BYTES
    }

    /// These bytes were written to.
    pub(crate) fn touch(&self, at: NonNull<u8>, bytes: usize) {
        let mut state = self.state.borrow_mut();
        for (chunk, mask) in masks(at.addr().get(), bytes.max(1)) {
            let words = state.chunks.entry(chunk).or_default();
            let added = set(words, &mask, true);
            state.pages += added;
        }
    }

    /// These pages are in memory no more.
    fn forget(&self, at: NonNull<u8>, bytes: usize) {
        let mut state = self.state.borrow_mut();
        for (chunk, mask) in masks(at.addr().get(), bytes) {
            if let Some(words) = state.chunks.get_mut(&chunk) {
                let removed = set(words, &mask, false);
                state.pages -= removed;
            }
        }
    }

    /// How many of these pages are in memory.
    fn count(&self, at: NonNull<u8>, bytes: usize) -> usize {
        let state = self.state.borrow();
        let mut count = 0;
        for (chunk, mask) in masks(at.addr().get(), bytes) {
            let words = state.chunks.get(&chunk).into_iter().flatten();
            count += words.zip(&mask).map(|(word, mask)| (word & mask).count_ones()).sum::<u32>();
        }
        count as usize
    }

    /// Cuts an arena off the reservation, which is made when it is first needed.
    fn cut(&self, request: Request) -> Option<NonNull<u8>> {
        let mut state = self.state.borrow_mut();
        if state.room.is_none() {
            let sizes = std::iter::successors(Some(ROOM_BYTES), |bytes| Some(bytes / 2));
            let sizes = sizes.take_while(|bytes| *bytes >= LEAST_ROOM_BYTES);
            let (next, left) = sizes.into_iter().find_map(|bytes| {
                let all = Request { bytes, align: LEAST_ROOM_BYTES, hint: 0, ..request };
                Some((self.inner.reserve(all).ok()?, bytes))
            })?;
            state.room = Some(Room { next, left });
        }
        let room = state.room.as_mut()?;
        let at = room.next.addr().get();
        let skipped = round_up(at, request.align) - at;
        let needed = skipped.checked_add(request.bytes).filter(|needed| *needed <= room.left)?;
        // SAFETY: both offsets lie in the reservation or just behind it.
        let (found, next) = unsafe { (room.next.add(skipped), room.next.add(needed)) };
        (room.next, room.left) = (next, room.left - needed);
        Some(found)
    }
}

/// The parts of a range, by chunk: the number of the chunk, and which of its pages.
fn masks(at: usize, bytes: usize) -> impl Iterator<Item = (usize, [u64; CHUNK_PAGES / 64])> {
    let (first, end) = (at / PAGE_BYTES, (at + bytes).div_ceil(PAGE_BYTES));
    (at / CHUNK_BYTES..(at + bytes).div_ceil(CHUNK_BYTES)).map(move |chunk| {
        let base = chunk * CHUNK_PAGES;
        let mut mask = [0; CHUNK_PAGES / 64];
        for (word, place) in mask.iter_mut().zip((base..).step_by(64)) {
            let from = first.clamp(place, place + 64) - place;
            let to = end.clamp(place, place + 64) - place;
            if from < to {
                *word = u64::MAX >> (64 - (to - from)) << from;
            }
        }
        (chunk, mask)
    })
}

/// Sets or clears bits; how many changed.
fn set(words: &mut [u64], mask: &[u64], to: bool) -> usize {
    let mut changed = 0;
    for (word, mask) in words.iter_mut().zip(mask) {
        let new = if to { *word | mask } else { *word & !mask };
        changed += (*word ^ new).count_ones();
        *word = new;
    }
    changed as usize
}

// SAFETY: memory comes from a source that keeps the contract, in parts that do not overlap. What is
// claimed to be a guard stays Ready, which is more than a guard may be used for. Nothing here is called
// by two threads, as the type is not `Sync`, and what allocates does so from another allocator than
// one that is built on this.
unsafe impl<O: OsSource> OsSource for Residence<O> {
    type Wait = O::Wait;

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        if !self.roomy || request.purpose != Purpose::Arena {
            return self.inner.reserve(request);
        }
        let align = request.check(self.page_bytes())?;
        let found = self.cut(Request { align, ..request });
        found.ok_or(OsError::OutOfMemory { bytes: request.bytes })
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes)? };
        self.forget(at, bytes);
        Ok(())
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.guard(at, bytes) };
        }
        self.forget(at, bytes);
        Ok(())
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.unguard(at, bytes) };
        }
        Ok(())
    }

    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.inner.expect_use(at, bytes) };
        }
    }

    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.inner.expect_gaps(at, bytes) };
        }
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.clear(at, bytes) };
        }
        let sparse = self.count(at, bytes) * PAGE_BYTES <= bytes / 4;
        if !self.roomy || bytes < CLEARED_BYTES || !sparse {
            return Err(OsError::Unsupported);
        }
        // SAFETY: the caller's promise is passed on; what is Ready again reads as zero.
        unsafe {
            self.decommit(at, bytes)?;
            self.commit(at, bytes)
        }
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        if self.honest {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.relocate(from, to, bytes) };
        }
        if !self.roomy {
            return Err(OsError::Unsupported);
        }
        // SAFETY: both are Ready, do not overlap, and nobody else uses them (the caller's promise).
        unsafe {
            to.copy_from_nonoverlapping(from, bytes);
            from.write_bytes(0, bytes);
        }
        // All of the object is touched at its new place by whoever counts.
        self.forget(from, bytes);
        Ok(())
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.forget(at, bytes);
        let whole = !self.roomy;
        if whole {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.release(at, bytes) };
        }
        // It stays a part of the reservation, which nobody uses any more.
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

#[cfg(test)]
mod tests {
    use spanalloc_os::Mmap;

    use super::*;

    fn arena(bytes: usize) -> Request {
        Request { bytes, align: 64 << 20, hint: 0, purpose: Purpose::Arena }
    }

    #[test]
    fn pages_are_counted_once_until_they_are_given_back() {
        let source = Residence::roomy(Mmap::new());
        let at = source.reserve(arena(64 << 20)).unwrap();
        // SAFETY: so many bytes were reserved.
        unsafe { source.commit(at, 8 << 20) }.unwrap();
        // SAFETY: inside of the reservation.
        let inside = |offset: usize| unsafe { at.add(offset) };
        source.touch(inside(4000), 200);
        assert_eq!(source.bytes(), 2 * PAGE_BYTES);
        source.touch(at, 1);
        source.touch(inside(5000), 0);
        assert_eq!(source.bytes(), 2 * PAGE_BYTES);
        source.touch(inside(1 << 20), 4 << 20);
        assert_eq!(source.bytes(), 2 * PAGE_BYTES + (4 << 20));
        // SAFETY: whole pages that nobody uses.
        unsafe { source.decommit(inside(2 << 20), 1 << 20) }.unwrap();
        assert_eq!(source.bytes(), 2 * PAGE_BYTES + (3 << 20));
        // SAFETY: as above.
        unsafe { source.clear(at, 8 << 20) }.unwrap_err();
        assert_eq!(source.count(at, 8 << 20) * PAGE_BYTES, source.bytes());
        // SAFETY: as above.
        unsafe {
            source.commit(inside(2 << 20), 1 << 20).unwrap();
            source.clear(inside(1 << 20), 4 << 20).unwrap_err();
            source.clear(at, 1 << 20).unwrap();
        }
        assert_eq!(source.bytes(), 3 << 20);
    }

    #[test]
    fn arenas_lie_one_behind_the_other() {
        let source = Residence::roomy(Mmap::new());
        let first = source.reserve(arena(64 << 20)).unwrap();
        let second = source.reserve(arena(128 << 20)).unwrap();
        let third = source.reserve(arena(64 << 20)).unwrap();
        let distance = |at: NonNull<u8>| at.addr().get() - first.addr().get();
        assert_eq!((distance(second), distance(third)), (64 << 20, 192 << 20));
    }

    #[test]
    fn every_page_of_a_range_is_in_one_mask() {
        for (at, bytes) in [(0, 1), (4095, 2), (CHUNK_BYTES - 1, 2), (7 * CHUNK_BYTES, CHUNK_BYTES)]
        {
            let pages = (at + bytes).div_ceil(PAGE_BYTES) - at / PAGE_BYTES;
            let ones = |mask: [u64; 8]| mask.iter().map(|word| word.count_ones()).sum::<u32>();
            let found: u32 = masks(at, bytes).map(|(_, mask)| ones(mask)).sum();
            assert_eq!(found as usize, pages, "{at} {bytes}");
        }
    }
}
