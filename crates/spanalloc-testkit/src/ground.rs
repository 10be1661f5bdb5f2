use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spanalloc_os::{OsError, OsSource, Purpose, Report, Request};

/// Bytes of a page of a [`Plot`].
const PAGE_BYTES: usize = 4096;
/// Alignment of a ground: that of the largest arena.
const GROUND_ALIGN: usize = 64 << 20;
/// Ranges of so many pages are left to the source below, which has them where they are touched: 4 MB. Others are
/// written to page by page, which takes less time than to have them a second time.
const LARGE_PAGES: usize = 1024;
/// What a [`Plot`] that is not [`in_blocks`](Plot::in_blocks) refuses: the rest of a block of 2 MB, if it is more than a part of 512 KB.
const BLOCK_BYTES: usize = 2 << 20;
const PART_BYTES: usize = 512 << 10;
/// Bytes at both ends of a page that a [`Ground::shallow_plot`] clears.
const EDGE_BYTES: usize = 256;
/// Words at the start of a page that tell whether somebody wrote to it while it was not Ready.
const SEAL_WORDS: usize = 8;
/// What they are then.
const SEAL: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// Memory that is kept for one heap after another: each has it as its system, and all of it is there again when
/// that [`Plot`] is dropped.
///
/// No verb is a call to the real system, so a heap that lives for a few operations costs no more than these:
/// a fuzzer makes thousands of them in a second. Every heap finds the same addresses.
#[derive(Debug)]
pub struct Ground<O: OsSource> {
    inner: O,
    start: NonNull<u8>,
    state: Mutex<State>,
    shallow: bool,
}

// SAFETY: the memory is the ground's alone, on whatever thread.
unsafe impl<O: OsSource + Send> Send for Ground<O> {}
// SAFETY: as above; who has a part of it is said under a lock.
unsafe impl<O: OsSource + Sync> Sync for Ground<O> {}

/// Who has what, in pages that are counted from the start.
#[derive(Debug)]
struct State {
    /// Reservations, by their place.
    reserved: Vec<Range<usize>>,
    /// Reserved for arenas.
    arenas: Bits,
    ready: Bits,
    guarded: Bits,
    /// Sealed in the life of this plot.
    sealed: Bits,
    /// Left to the source below: never Ready, or in a large range. These are zero when they become Ready.
    blank: Bits,
    pages: usize,
}

/// One bit a page.
#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(pages: usize) -> Self {
        Self(vec![0; pages.div_ceil(64)])
    }

    /// The words that hold bits of `pages`: the number of each, and which of its bits they are.
    fn masks(pages: &Range<usize>) -> impl Iterator<Item = (usize, u64)> {
        let Range { start, end } = *pages;
        (start / 64..end.div_ceil(64)).map(move |word| {
            let from = start.saturating_sub(word * 64);
            let until = (end - word * 64).min(64);
            (word, (u64::MAX << from) & (u64::MAX >> (64 - until)))
        })
    }

    fn set(&mut self, pages: &Range<usize>, to: bool) {
        for (word, mask) in Self::masks(pages) {
            if to {
                self.0[word] |= mask;
            } else {
                self.0[word] &= !mask;
            }
        }
    }

    fn all(&self, pages: &Range<usize>) -> bool {
        Self::masks(pages).all(|(word, mask)| self.0[word] & mask == mask)
    }

    fn none(&self, pages: &Range<usize>) -> bool {
        Self::masks(pages).all(|(word, mask)| self.0[word] & mask == 0)
    }

    /// The runs of pages of `pages` whose bits are `value`.
    fn runs(&self, pages: &Range<usize>, value: bool) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (word, mask) in Self::masks(pages) {
            let mut bits = if value { self.0[word] & mask } else { !self.0[word] & mask };
            while bits != 0 {
                let from = bits.trailing_zeros() as usize;
                let count = (bits >> from).trailing_ones() as usize;
                bits &= u64::MAX.checked_shl((from + count) as u32).unwrap_or(0);
                let run = word * 64 + from..word * 64 + from + count;
                match runs.last_mut() {
                    Some(last) if last.end == run.start => last.end = run.end,
                    _ => runs.push(run),
                }
            }
        }
        runs
    }
}

impl<O: OsSource> Ground<O> {
    /// `bytes` bytes of memory of `inner`, whole pages of both.
    ///
    /// # Errors
    /// Those of `inner`, which has not so much.
    pub fn new(inner: O, bytes: usize) -> Result<Self, OsError> {
        let purpose = Purpose::Arena;
        let start = inner.reserve(Request { bytes, align: GROUND_ALIGN, hint: 0, purpose })?;
        // SAFETY: reserved just now.
        if let Err(error) = unsafe { inner.commit(start, bytes) } {
            // SAFETY: as above, and nobody uses it.
            let _ = unsafe { inner.release(start, bytes) };
            return Err(error);
        }
        let pages = bytes / PAGE_BYTES;
        let [arenas, ready, guarded, sealed, mut blank] = [(); 5].map(|()| Bits::new(pages));
        blank.set(&(0..pages), true);
        let state = State { reserved: Vec::new(), arenas, ready, guarded, sealed, blank, pages };
        Ok(Self { inner, start, state: Mutex::new(state), shallow: false })
    }

    /// All of it as the system of one heap.
    pub fn plot(&mut self) -> Plot<'_, O> {
        self.shallow = false;
        Plot { ground: self, blocks: true }
    }

    /// The same for who writes and reads no more of arenas than the first and the last 256 bytes of their pages:
    /// these alone are cleared. A page heap itself does neither, nor do central lists. Metadata is cleared as a
    /// whole.
    pub fn shallow_plot(&mut self) -> Plot<'_, O> {
        self.shallow = true;
        Plot { ground: self, blocks: true }
    }

    /// The first address, and the one behind the last.
    pub fn addresses(&self) -> Range<usize> {
        let start = self.start.as_ptr().expose_provenance();
        start..start + self.state().pages * PAGE_BYTES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages of a range of addresses, all of which must be reserved.
    fn pages(&self, state: &State, at: NonNull<u8>, bytes: usize) -> Range<usize> {
        let offset = at.addr().get().wrapping_sub(self.start.addr().get());
        assert!(offset % PAGE_BYTES == 0 && bytes % PAGE_BYTES == 0, "{at:?}, {bytes} bytes");
        let pages = offset / PAGE_BYTES..offset / PAGE_BYTES + bytes / PAGE_BYTES;
        let mut end = pages.start;
        for range in &state.reserved {
            if range.contains(&end) {
                end = range.end;
            }
        }
        assert!(pages.end <= end && bytes > 0, "{at:?}, {bytes} bytes: not reserved");
        pages
    }

    fn at(&self, page: usize) -> NonNull<u8> {
        // SAFETY: callers name pages of the ground.
        unsafe { self.start.add(page * PAGE_BYTES) }
    }

    /// Makes pages that nobody uses read as zero.
    fn clear(&self, state: &State, pages: &Range<usize>) {
        if !self.shallow || !state.arenas.all(pages) {
            // SAFETY: pages of the ground, which is Ready below.
            unsafe { self.at(pages.start).write_bytes(0, pages.len() * PAGE_BYTES) };
            return;
        }
        for page in pages.clone() {
            // SAFETY: a page of the ground, which is Ready below and has more than two edges.
            unsafe {
                self.at(page).write_bytes(0, EDGE_BYTES);
                self.at(page).add(PAGE_BYTES - EDGE_BYTES).write_bytes(0, EDGE_BYTES);
            }
        }
    }

    /// The same, where most were not touched.
    fn give_back(&self, state: &State, pages: &Range<usize>) {
        let (at, bytes) = (self.at(pages.start), pages.len() * PAGE_BYTES);
        // SAFETY: pages of the ground, which is Ready below.
        if unsafe { self.inner.empty(at, bytes) }.is_err() {
            self.clear(state, pages);
        }
    }

    /// Pages that were Ready are not to be used until they are so again.
    fn seal(&self, state: &mut State, pages: &Range<usize>) {
        state.ready.set(pages, false);
        state.blank.runs(pages, true).iter().for_each(|run| self.give_back(state, run));
        for run in state.blank.runs(pages, false) {
            for page in run.clone() {
                // SAFETY: a page of the ground, which is Ready below; pages are aligned.
                unsafe { self.at(page).cast().write([SEAL; SEAL_WORDS]) };
            }
            state.sealed.set(&run, true);
        }
    }

    /// Ends the use of reserved pages.
    fn end(&self, state: &mut State, pages: &Range<usize>) {
        state.sealed.runs(pages, true).iter().for_each(|run| self.look(run));
        state.ready.runs(pages, true).iter().for_each(|run| self.seal(state, run));
        state.guarded.set(pages, false);
        state.sealed.set(pages, false);
    }

    /// Whether nobody wrote to pages since they were sealed.
    fn look(&self, pages: &Range<usize>) {
        for page in pages.clone() {
            // SAFETY: as above; these words were written by whatever.
            let words: [u64; SEAL_WORDS] = unsafe { self.at(page).cast().read() };
            assert!(
                words == [SEAL; SEAL_WORDS],
                "{:?} was written to while it was not Ready",
                self.at(page)
            );
        }
    }
}

impl<O: OsSource> Drop for Ground<O> {
    fn drop(&mut self) {
        let bytes = self.state().pages * PAGE_BYTES;
        // SAFETY: reserved in `new`, and no plot is left. What is refused is lost, which a test can bear.
        let _ = unsafe { self.inner.release(self.start, bytes) };
    }
}

/// The source of address space that is a [`Ground`].
///
/// Arenas are found from the lowest address upwards, metadata from the highest downwards. Every verb works, but
/// for what [`in_blocks`](Self::in_blocks) refuses, and ends the test by a panic if its caller did not keep the
/// contract: pages must be reserved, and be Ready or Guarded where that is asked for. Memory that was written to while it was not Ready is noticed by the first
/// 64 bytes of each page: when it becomes Ready again, or, if it was before, when the plot is dropped.
#[derive(Debug)]
pub struct Plot<'a, O: OsSource> {
    ground: &'a Ground<O>,
    blocks: bool,
}

impl<O: OsSource> Plot<'_, O> {
    /// The same; without `blocks` it refuses to make more than 512 KB Ready by a call that ends at a multiple of
    /// 2 MB. That is what a page heap asks for beyond what it needs, and most of what has to be cleared for a
    /// heap that lives for a few operations.
    #[must_use]
    pub fn in_blocks(self, blocks: bool) -> Self {
        Self { ground: self.ground, blocks }
    }

    fn refuses(&self, at: NonNull<u8>, bytes: usize) -> bool {
        let end = at.addr().get().wrapping_add(bytes);
        !self.blocks && bytes > PART_BYTES && end % BLOCK_BYTES == 0
    }

    /// Does `change` to pages that must be Ready.
    fn with_ready(
        &self,
        at: NonNull<u8>,
        bytes: usize,
        change: impl FnOnce(&mut State, &Range<usize>),
    ) {
        let mut state = self.ground.state();
        let pages = self.ground.pages(&state, at, bytes);
        assert!(state.ready.all(&pages), "{at:?}, {bytes} bytes: not Ready");
        change(&mut state, &pages);
    }
}

impl State {
    /// Where `count` pages fit between reservations: as low as can be, or as high.
    fn find(&self, start: usize, count: usize, align: usize, low: bool) -> Option<usize> {
        let ends = self.reserved.iter().map(|range| range.end);
        let starts = self.reserved.iter().map(|range| range.start);
        let gaps = [0].into_iter().chain(ends).zip(starts.chain([self.pages]));
        let mut fits = gaps.filter_map(|(from, until)| {
            let lowest = (start + from * PAGE_BYTES).checked_next_multiple_of(align)?;
            let highest = (start + until.checked_sub(count)? * PAGE_BYTES) & !(align - 1);
            let address = if low { lowest } else { highest };
            (lowest <= highest).then(|| (address - start) / PAGE_BYTES)
        });
        if low { fits.next() } else { fits.last() }
    }

    /// Forgets a reservation, or a part of one or several.
    fn forget(&mut self, pages: &Range<usize>) {
        let parts = |range: &Range<usize>| {
            let below = range.start..range.end.min(pages.start);
            let above = range.start.max(pages.end)..range.end;
            [below, above].into_iter().filter(|part| !part.is_empty())
        };
        self.reserved = self.reserved.iter().flat_map(parts).collect();
    }
}

impl<O: OsSource> Drop for Plot<'_, O> {
    fn drop(&mut self) {
        let mut state = self.ground.state();
        for pages in std::mem::take(&mut state.reserved) {
            self.ground.end(&mut state, &pages);
        }
    }
}

// SAFETY: pages are handed out once until they are released, lie in memory that is Ready below, and are
// cleared when they become Ready. Nothing allocates from an allocator on this source; a verb panics only
// if its caller broke the contract, which ends a test.
unsafe impl<O: OsSource> OsSource for Plot<'_, O> {
    type Wait = O::Wait;

    fn page_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let align = request.check(PAGE_BYTES)?;
        let mut state = self.ground.state();
        let (count, low) = (request.bytes / PAGE_BYTES, request.purpose == Purpose::Arena);
        let found = state.find(self.ground.start.addr().get(), count, align, low);
        let first = found.ok_or(OsError::OutOfMemory { bytes: request.bytes })?;
        let place = state.reserved.partition_point(|range| range.start < first);
        state.reserved.insert(place, first..first + count);
        state.arenas.set(&(first..first + count), low);
        Ok(self.ground.at(first))
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        if self.refuses(at, bytes) {
            return Err(OsError::OutOfMemory { bytes });
        }
        let mut state = self.ground.state();
        let pages = self.ground.pages(&state, at, bytes);
        assert!(state.guarded.none(&pages), "{at:?}, {bytes} bytes: Guarded");
        for run in state.ready.runs(&pages, false) {
            for used in state.blank.runs(&run, false) {
                self.ground.look(&used);
                self.ground.clear(&state, &used);
            }
            for fresh in state.blank.runs(&run, true) {
                state.blank.set(&fresh, fresh.len() >= LARGE_PAGES);
            }
        }
        state.ready.set(&pages, true);
        state.sealed.set(&pages, false);
        Ok(())
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.with_ready(at, bytes, |state, pages| self.ground.seal(state, pages));
        Ok(())
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.with_ready(at, bytes, |state, pages| {
            self.ground.seal(state, pages);
            state.guarded.set(pages, true);
        });
        Ok(())
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut state = self.ground.state();
        let pages = self.ground.pages(&state, at, bytes);
        assert!(state.guarded.all(&pages), "{at:?}, {bytes} bytes: not Guarded");
        state.sealed.runs(&pages, true).iter().for_each(|run| self.ground.look(run));
        state.guarded.set(&pages, false);
        state.sealed.set(&pages, false);
        state.ready.set(&pages, true);
        Ok(())
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.with_ready(at, bytes, |state, pages| self.ground.clear(state, pages));
        Ok(())
    }

    unsafe fn empty(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.with_ready(at, bytes, |state, pages| self.ground.clear(state, pages));
        Ok(())
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        self.with_ready(to, bytes, |_, _| {});
        self.with_ready(from, bytes, |state, pages| {
            // SAFETY: both are Ready and do not overlap, by the caller's promise.
            unsafe { from.copy_to_nonoverlapping(to, bytes) };
            self.ground.clear(state, pages);
        });
        Ok(())
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut state = self.ground.state();
        let pages = self.ground.pages(&state, at, bytes);
        self.ground.end(&mut state, &pages);
        state.forget(&pages);
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        self.ground.inner.die(report)
    }
}
