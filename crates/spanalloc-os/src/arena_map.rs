//! The map from an address to what is known of the arena it lies in.

use core::marker::PhantomData;
use core::ptr::NonNull;

use spanalloc_sync::Counter;
use spanalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::geometry::is_exact;
use crate::window::Window;
use crate::{Geometry, OsError, OsSource, Purpose, Request, round_down, round_up};

/// Tables a map can have: the most first-level entries any geometry needs.
const MAX_TABLES: usize = 64;

/// What a refused table is divided by. One refusal means that address space is scarce, so the next
/// try leaves nearly all of it to the arenas; a 64th of the largest table still covers 4 TB: the first arena,
/// and the addresses a terabyte above it, where a system puts mappings that were asked for elsewhere.
const SHRINK: usize = 64;

/// A two-level map from address to `*mut T`, one entry an arena of `G`.
///
/// A table of the second level may be 32 MB. None of it is in the binary: it is reserved when its
/// first arena is published, and only the OS pages between the lowest and the highest arena
/// published are ever committed. If the source refuses a whole table, a smaller one is placed around
/// that first arena, down to one OS page.
///
/// Looking up takes no lock and works for any address. Publishing is for one thread at a time. A
/// map that is dropped leaves its tables to its source.
#[derive(Debug)]
pub struct ArenaMap<G, T> {
    tables: [Table<T>; MAX_TABLES],
    reserved: Counter,
    committed: Counter,
    geometry: PhantomData<fn() -> G>,
}

/// One table of the second level, and the range of entries it has space for.
#[derive(Debug)]
struct Table<T> {
    window: Window<T>,
    /// Where the table is, which index it begins with and how many entries it has. Only the writer
    /// uses the three.
    start: AtomicPtr<u8>,
    first: AtomicUsize,
    entries: AtomicUsize,
}

impl<T> Table<T> {
    const fn new() -> Self {
        Self {
            window: Window::new(),
            start: AtomicPtr::new(core::ptr::null_mut()),
            first: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
        }
    }
}

impl<G: Geometry, T> ArenaMap<G, T> {
    const ENTRY_BYTES: usize = size_of::<AtomicPtr<T>>();

    const BOUNDS_HOLD: () = {
        assert!(G::L1_ENTRIES >= 1 && G::L1_ENTRIES <= MAX_TABLES, "the first level is too large");
        assert!(is_exact::<G>(), "the geometry does not cover its address space exactly");
        assert!(G::L2_ENTRIES <= isize::MAX as usize / Self::ENTRY_BYTES);
    };

    /// A map of nothing.
    pub const fn new() -> Self {
        const { Self::BOUNDS_HOLD };
        Self {
            tables: [const { Table::new() }; MAX_TABLES],
            reserved: Counter::new(),
            committed: Counter::new(),
            geometry: PhantomData,
        }
    }

    /// The table of an address and the index in it. With one table the index is not bounded: the
    /// window is.
    #[inline(always)]
    fn locate(&self, address: usize) -> Option<(&Table<T>, usize)> {
        let arena = address / G::ARENA_BYTES;
        if G::L1_ENTRIES == 1 {
            let [table, ..] = &self.tables;
            return Some((table, arena));
        }
        let l1 = arena / G::L2_ENTRIES;
        if l1 >= G::L1_ENTRIES {
            return None;
        }
        Some((self.tables.get(l1)?, arena % G::L2_ENTRIES))
    }

    /// What was published for the arena that `address` lies in; null for every other address,
    /// whatever its bits. Takes no lock and reads nothing that is not Ready.
    #[inline(always)]
    pub fn get(&self, address: usize) -> *mut T {
        match self.locate(address) {
            Some((table, index)) => table.window.get(index),
            None => core::ptr::null_mut(),
        }
    }

    /// Makes `value` what [`get`](Self::get) returns for every address of the arena that `address`
    /// lies in, in place of what was published before. Everything written to `value` before is
    /// visible to whoever gets it.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`] if the source refuses memory for the table, if the address lies
    /// outside of the address space of `G`, or if it lies outside of a table that had to be small.
    /// The map is then as it was.
    ///
    /// # Safety
    /// One thread publishes at a time (the caller holds a lock), always with the same source,
    /// whose memory is not given back while the map is used.
    pub unsafe fn publish<O: OsSource>(
        &self,
        os: &O,
        address: usize,
        value: NonNull<T>,
    ) -> Result<(), OsError> {
        let refused = OsError::OutOfMemory { bytes: Self::ENTRY_BYTES };
        let (table, index) = self.locate(address).ok_or(refused)?;
        if index >= G::L2_ENTRIES {
            return Err(refused);
        }
        if table.window.entry(index).is_none() {
            // SAFETY: the caller is the only writer and the source is the one it always is.
            unsafe { self.open_slow(os, table, index)? };
        }
        // SAFETY: the caller is the only writer.
        unsafe { table.window.publish(index, value.as_ptr()) };
        Ok(())
    }

    /// Makes the entry of `index` Ready, and all entries between it and the window.
    ///
    /// # Safety
    /// As [`publish`](Self::publish).
    #[cold]
    #[inline(never)]
    unsafe fn open_slow<O: OsSource>(
        &self,
        os: &O,
        table: &Table<T>,
        index: usize,
    ) -> Result<(), OsError> {
        if table.start.load(Ordering::Relaxed).is_null() {
            self.place_table(os, table, index)?;
        }
        let first = table.first.load(Ordering::Relaxed);
        let entries = table.entries.load(Ordering::Relaxed);
        let refused = OsError::OutOfMemory { bytes: Self::ENTRY_BYTES };
        let position = index.checked_sub(first).filter(|at| *at < entries).ok_or(refused)?;

        // The window in bytes from the start of the table, whole OS pages.
        let page = os.page_bytes();
        let wanted = round_down(position * Self::ENTRY_BYTES, page);
        let (old_lo, old_hi) = match table.window.bounds() {
            (0, 0) => (wanted, wanted),
            (lo, hi) => {
                ((lo - first) * Self::ENTRY_BYTES, round_up((hi - first) * Self::ENTRY_BYTES, page))
            }
        };
        // The page wanted is below the window or above it, so only one of the two gaps is open.
        let (lo, hi) = (old_lo.min(wanted), old_hi.max(wanted + page));
        let (gap, bytes) = if lo < old_lo { (lo, old_lo - lo) } else { (old_hi, hi - old_hi) };
        let start = NonNull::new(table.start.load(Ordering::Relaxed)).ok_or(refused)?;
        // SAFETY: the gap is whole pages inside the reservation of the table, which `place_table`
        // made as long as the pages of its entries.
        unsafe { os.commit(start.add(gap), bytes)? };
        self.committed.add(bytes);

        let lo = first + lo / Self::ENTRY_BYTES;
        // The last page may have space for more entries than the table needs.
        let hi = (first + hi / Self::ENTRY_BYTES).min(G::L2_ENTRIES);
        // SAFETY: the caller is the only writer; the window is placed and the old one is inside
        // the new one; the entries are committed, zero, and never decommitted or released.
        unsafe { table.window.open(lo, hi) };
        Ok(())
    }

    /// Reserves a table for all entries, or a smaller one around `index`.
    fn place_table<O: OsSource>(
        &self,
        os: &O,
        table: &Table<T>,
        index: usize,
    ) -> Result<(), OsError> {
        let page = os.page_bytes();
        let mut bytes = round_up(G::L2_ENTRIES * Self::ENTRY_BYTES, page);
        let start = loop {
            let request = Request { bytes, align: page, hint: 0, purpose: Purpose::Metadata };
            match os.reserve(request) {
                Ok(start) => break start,
                Err(error) if bytes <= page => return Err(error),
                Err(_) => bytes = round_up(bytes / SHRINK, page),
            }
        };
        let entries = (bytes / Self::ENTRY_BYTES).min(G::L2_ENTRIES);
        let first = index.saturating_sub(entries / 2).min(G::L2_ENTRIES - entries);
        table.start.store(start.as_ptr(), Ordering::Relaxed);
        table.first.store(first, Ordering::Relaxed);
        table.entries.store(entries, Ordering::Relaxed);
        self.reserved.add(bytes);
        // SAFETY: `publish`'s caller is the only writer, and the window was seen to be empty.
        unsafe { table.window.place(start.as_ptr().cast(), first) };
        Ok(())
    }

    /// Bytes of address space that the tables take.
    pub fn reserved_bytes(&self) -> usize {
        self.reserved.get()
    }

    /// Part of [`reserved_bytes`](Self::reserved_bytes) that is Ready.
    pub fn committed_bytes(&self) -> usize {
        self.committed.get()
    }

    /// Calls `visit` with the address of each arena that was published, lowest first, and its value.
    ///
    /// Reads every entry between the lowest and the highest arena, which may be many megabytes.
    pub fn for_each(&self, mut visit: impl FnMut(usize, NonNull<T>)) {
        for (l1, table) in self.tables.iter().take(G::L1_ENTRIES).enumerate() {
            let (lo, hi) = table.window.bounds();
            for index in lo..hi {
                if let Some(value) = NonNull::new(table.window.get(index)) {
                    visit((l1 * G::L2_ENTRIES + index) * G::ARENA_BYTES, value);
                }
            }
        }
    }
}

impl<G: Geometry, T> Default for ArenaMap<G, T> {
    fn default() -> Self {
        Self::new()
    }
}
