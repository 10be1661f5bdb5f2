//! Sources of address space for the tests: one that makes addresses up, one that watches another.
#![allow(dead_code, reason = "not every test uses everything")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spanalloc_os::{Faulty, Geometry, OsError, OsSource, Purpose, Report, Request};
use spanalloc_pages::{PageHeap, Pages};
use spanalloc_sync::Spin;

/// Where a [`Simulated`] source finds address space.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// From the lowest addresses upwards, without gaps.
    Low,
    /// From the highest address downwards, without gaps.
    High,
    /// From both ends in turn.
    BothEnds,
}

/// A source of made-up arena addresses, at the ends of a geometry's address space. Metadata is real.
#[derive(Debug)]
pub struct Simulated {
    page_bytes: usize,
    place: Place,
    whole_arenas: bool,
    state: Mutex<Ends>,
}

#[derive(Debug)]
struct Ends {
    low: usize,
    high: usize,
    next_is_high: bool,
    metadata: Pool,
}

/// The memory of all metadata, from one block that no made-up address lies in: with 32 bits, any real
/// memory has an address that an arena may have. Zeroed by the system, and only what is used is there.
#[derive(Debug)]
struct Pool {
    start: NonNull<u8>,
    used: usize,
}

// SAFETY: the block is this pool's alone.
unsafe impl Send for Pool {}

impl Pool {
    const LAYOUT: Layout = match Layout::from_size_align(256 << 20, 1) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<u8>(),
    };

    fn new() -> Self {
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(Self::LAYOUT) }).unwrap();
        Self { start, used: 0 }
    }

    fn alloc(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let at = (self.start.addr().get() + self.used).checked_next_multiple_of(align)?;
        let offset = at - self.start.addr().get();
        self.used = offset.checked_add(bytes).filter(|end| *end <= Self::LAYOUT.size())?;
        // SAFETY: inside the block.
        Some(unsafe { self.start.add(offset) })
    }

    /// The first address, and the one behind the last.
    fn range(&self) -> (usize, usize) {
        let start = self.start.as_ptr().expose_provenance();
        (start, start + Self::LAYOUT.size())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the heap above is gone.
        unsafe { dealloc(self.start.as_ptr(), Self::LAYOUT) };
    }
}

impl Simulated {
    pub fn new<G: Geometry>(place: Place, page_bytes: usize) -> Self {
        let first = page_bytes.max(8192);
        // On a machine with shorter addresses, the end is where its own addresses end.
        let end = usize::try_from(1_u64 << G::ADDRESS_BITS).unwrap_or(usize::MAX - first + 1);
        let state = Ends { low: first, high: end, next_is_high: true, metadata: Pool::new() };
        Self { page_bytes, place, whole_arenas: true, state: Mutex::new(state) }
    }
}

impl Simulated {
    /// Refuses whole aligned arenas, so that the heap gets ranges that begin and end anywhere.
    pub fn without_whole_arenas(mut self) -> Self {
        self.whole_arenas = false;
        self
    }
}

// SAFETY: addresses are handed out once; nothing above touches arena memory in these tests.
unsafe impl OsSource for Simulated {
    type Wait = Spin;

    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        assert_eq!(request.bytes % self.page_bytes, 0, "{request:?}");
        assert!(request.align.is_power_of_two() && request.bytes > 0, "{request:?}");
        let refused = OsError::OutOfMemory { bytes: request.bytes };
        let mut ends = self.state.lock().unwrap();
        if request.purpose == Purpose::Metadata {
            let align = request.align.max(self.page_bytes);
            return ends.metadata.alloc(request.bytes, align).ok_or(refused);
        }
        if !self.whole_arenas && request.align > self.page_bytes.max(8192) {
            return Err(refused);
        }
        let high = match self.place {
            Place::Low => false,
            Place::High => true,
            Place::BothEnds => {
                ends.next_is_high = !ends.next_is_high;
                !ends.next_is_high
            }
        };
        let taken = ends.metadata.range();
        let address = if high {
            let below =
                |end: usize| Some(end.checked_sub(request.bytes)? / request.align * request.align);
            let mut start = below(ends.high).ok_or(refused)?;
            if start < taken.1 && ends.high > taken.0 {
                start = below(taken.0).ok_or(refused)?;
            }
            if start < ends.low {
                return Err(refused);
            }
            ends.high = start;
            start
        } else {
            let mut start = ends.low.checked_next_multiple_of(request.align).ok_or(refused)?;
            let mut end = start.checked_add(request.bytes).ok_or(refused)?;
            if start < taken.1 && end > taken.0 {
                start = taken.1.checked_next_multiple_of(request.align).ok_or(refused)?;
                end = start.checked_add(request.bytes).ok_or(refused)?;
            }
            if end > ends.high {
                return Err(refused);
            }
            ends.low = end;
            start
        };
        NonNull::new(ptr::without_provenance_mut(address)).ok_or(refused)
    }

    unsafe fn commit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn decommit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn release(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        panic!("{report:?}")
    }
}

/// First byte and length of ranges of addresses.
pub type Ranges = Vec<(usize, usize)>;

/// Watches a source: which arena ranges are reserved, which of their pages are Ready, and whether
/// every call keeps to the states of the contract.
#[derive(Debug)]
pub struct Watched<O: OsSource> {
    pub inner: O,
    /// The time in milliseconds, 0 for that of the source below.
    pub time: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    arenas: BTreeMap<usize, usize>,
    others: BTreeMap<usize, usize>,
    ready: BTreeSet<usize>,
    /// Metadata that is Ready, as ranges of addresses.
    ready_metadata: Vec<(usize, usize)>,
}

impl Seen {
    fn pages(&self, at: NonNull<u8>, bytes: usize) -> Option<std::ops::Range<usize>> {
        let at = at.as_ptr().addr();
        if self.others.range(..=at).next_back().is_some_and(|(start, len)| at < start + len) {
            return None;
        }
        let mut end = at;
        while let Some((start, len)) = self.arenas.range(..=end).next_back() {
            if end >= start + len {
                break;
            }
            end = start + len;
        }
        assert!(at + bytes <= end, "{at:#x}+{bytes:#x} is not reserved");
        assert_eq!((at % 8192, bytes % 8192), (0, 0));
        Some(at / 8192..(at + bytes) / 8192)
    }
}

impl<O: OsSource> Watched<O> {
    pub fn new(inner: O) -> Self {
        Self { inner, time: AtomicU64::new(0), seen: Mutex::default() }
    }

    /// First byte and length of every arena range that is reserved.
    pub fn ranges(&self) -> Vec<(usize, usize)> {
        self.seen.lock().unwrap().arenas.iter().map(|(&at, &len)| (at, len)).collect()
    }

    /// Ready pages of 8 KB in arena ranges.
    pub fn ready_pages(&self) -> usize {
        self.seen.lock().unwrap().ready.len()
    }

    /// The numbers of those pages.
    pub fn ready_set(&self) -> BTreeSet<usize> {
        self.seen.lock().unwrap().ready.clone()
    }

    /// Ranges reserved for metadata, the arena map's tables among them, and the Ready parts.
    pub fn metadata(&self) -> (Ranges, Ranges) {
        let seen = self.seen.lock().unwrap();
        (seen.others.iter().map(|(&at, &len)| (at, len)).collect(), seen.ready_metadata.clone())
    }

    pub fn is_ready(&self, address: usize, pages: usize) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.ready.range(address / 8192..address / 8192 + pages).count() == pages
    }

    /// Gives everything back, once nothing is used any more.
    pub fn release_everything(&self) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        for (at, len) in seen.arenas.into_iter().chain(seen.others) {
            let at = NonNull::new(ptr::with_exposed_provenance_mut(at)).unwrap();
            // SAFETY: the caller's promise; reserved by this source.
            let _ = unsafe { self.inner.release(at, len) };
        }
    }
}

// SAFETY: everything is done by the source below.
unsafe impl<O: OsSource> OsSource for Watched<O> {
    type Wait = O::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn now(&self) -> Option<Duration> {
        match self.time.load(Ordering::Relaxed) {
            0 => self.inner.now(),
            time => Some(Duration::from_millis(time)),
        }
    }

    fn busy(&self) -> Option<Duration> {
        self.now()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let at = self.inner.reserve(request)?;
        let mut seen = self.seen.lock().unwrap();
        let address = at.as_ptr().expose_provenance();
        if request.purpose == Purpose::Arena {
            seen.arenas.insert(address, request.bytes);
        } else {
            seen.others.insert(address, request.bytes);
        }
        Ok(at)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut seen = self.seen.lock().unwrap();
        assert_eq!((at.as_ptr().addr() % self.page_bytes(), bytes % self.page_bytes()), (0, 0));
        // SAFETY: the caller's promise.
        unsafe { self.inner.commit(at, bytes)? };
        if let Some(pages) = seen.pages(at, bytes) {
            for page in pages {
                assert!(seen.ready.insert(page), "page {page:#x} was Ready already");
            }
        } else {
            seen.ready_metadata.push((at.as_ptr().addr(), bytes));
        }
        Ok(())
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut seen = self.seen.lock().unwrap();
        assert_eq!((at.as_ptr().addr() % self.page_bytes(), bytes % self.page_bytes()), (0, 0));
        let pages = seen.pages(at, bytes).expect("metadata is never decommitted");
        // SAFETY: the caller's promise.
        unsafe { self.inner.decommit(at, bytes)? };
        for page in pages {
            assert!(seen.ready.remove(&page), "page {page:#x} was not Ready");
        }
        Ok(())
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        let seen = self.seen.lock().unwrap();
        for at in [from, to] {
            for page in seen.pages(at, bytes).expect("metadata is never moved") {
                assert!(seen.ready.contains(&page), "page {page:#x} is not Ready");
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.relocate(from, to, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        let mut seen = self.seen.lock().unwrap();
        // SAFETY: the caller's promise.
        unsafe { self.inner.release(at, bytes)? };
        let address = at.as_ptr().addr();
        let of =
            if seen.arenas.contains_key(&address) { &mut seen.arenas } else { &mut seen.others };
        assert_eq!(of.remove(&address), Some(bytes));
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

/// A heap at made-up addresses whose source can be told to fail.
pub type TestHeap<G> = PageHeap<Faulty<Watched<Simulated>>, G>;

/// A heap over 4 KB pages of such a source.
pub fn simulated<G: Geometry>(place: Place) -> TestHeap<G> {
    PageHeap::new(Faulty::new(Watched::new(Simulated::new::<G>(place, 4096))))
}

/// Frees pages that the test was handed out and uses no longer.
pub fn free<P: Pages>(heap: &P, address: usize, pages: usize) {
    // SAFETY: see above.
    unsafe { heap.free(address, pages) }.unwrap();
}
