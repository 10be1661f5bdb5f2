#![doc = include_str!("../README.md")]
#![no_std]

mod event;

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

pub use event::{Event, Kind};

/// How a log begins: a name and a version.
const MAGIC: u64 = u64::from_le_bytes(*b"spanlog1");

/// What stands before the slots.
#[repr(C)]
#[derive(Debug)]
struct Header {
    magic: u64,
    /// How many slots there are.
    capacity: u64,
    /// The process that writes; 0 while there is none.
    process: AtomicU64,
    /// The slot for the next event; beyond the capacity, a count.
    next: AtomicU64,
}

/// The words of one event. The last one, which is never 0, is written last.
#[repr(C)]
#[derive(Debug)]
struct Slot([AtomicU64; 4]);

/// A log in memory that processes share.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    header: *const Header,
    memory: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: all that is written after the log was made are atomics.
unsafe impl Send for Log<'_> {}
// SAFETY: as above.
unsafe impl Sync for Log<'_> {}

impl Log<'_> {
    /// Bytes of memory for so many events.
    #[must_use]
    pub const fn bytes(capacity: usize) -> usize {
        size_of::<Header>() + capacity * size_of::<Slot>()
    }

    /// Makes a log.
    ///
    /// # Safety
    /// `memory` is zero, has [`bytes(capacity)`](Self::bytes) bytes, is aligned to 8, may be read and written
    /// as long as the log or a copy of it is used, and nobody uses it otherwise.
    #[must_use]
    pub unsafe fn create(memory: *mut u8, capacity: usize) -> Self {
        let header = memory.cast::<Header>();
        // SAFETY: the caller's promise; nobody else knows the log yet.
        unsafe {
            (*header).magic = MAGIC;
            (*header).capacity = capacity as u64;
        }
        Self { header, memory: PhantomData }
    }

    /// The log that another process made; None if there is none.
    ///
    /// # Safety
    /// `memory` has `bytes` bytes, is aligned to 8, and may be read and written as long as the log or a copy
    /// of it is used. If there is a log, it was made by [`create`](Self::create).
    #[must_use]
    pub unsafe fn open(memory: *mut u8, bytes: usize) -> Option<Self> {
        if bytes < size_of::<Header>() {
            return None;
        }
        let header = memory.cast::<Header>();
        // SAFETY: the header lies in the memory, and both words are constant once the log was made.
        let (magic, capacity) = unsafe { ((*header).magic, (*header).capacity) };
        let room = (bytes - size_of::<Header>()) / size_of::<Slot>();
        (magic == MAGIC && capacity <= room as u64).then_some(Self { header, memory: PhantomData })
    }

    fn header(&self) -> &Header {
        // SAFETY: the contract of `create` and `open`.
        unsafe { &*self.header }
    }

    fn slots(&self) -> &[Slot] {
        let capacity = self.header().capacity as usize;
        // SAFETY: so many slots follow the header (contract of `create` and `open`); they are atomics.
        unsafe { core::slice::from_raw_parts(self.header.add(1).cast::<Slot>(), capacity) }
    }

    /// Makes the process (a number above 0) the one that writes. False if that is another one. A process
    /// that is it already has become another program: the log begins anew.
    #[must_use]
    pub fn attach(&self, process: u32) -> bool {
        let (own, relaxed) = (u64::from(process), Ordering::Relaxed);
        match self.header().process.compare_exchange(0, own, relaxed, relaxed) {
            Ok(_) => true,
            Err(other) if other == own => {
                let used = self.header().next.swap(0, relaxed) as usize;
                for slot in self.slots().iter().take(used) {
                    let [.., last] = &slot.0;
                    last.store(0, relaxed);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Writes an event, or counts it if the log is full.
    #[inline]
    pub fn push(&self, event: Event) {
        // Relaxed: the allocator orders the calls for one object, and with them the numbers.
        let number = self.header().next.fetch_add(1, Ordering::Relaxed);
        let slot = usize::try_from(number).ok().and_then(|number| self.slots().get(number));
        if let Some(slot) = slot {
            let [address, size, thread, last] = event.words();
            let [at_address, at_size, at_thread, at_last] = &slot.0;
            at_address.store(address, Ordering::Relaxed);
            at_size.store(size, Ordering::Relaxed);
            at_thread.store(thread, Ordering::Relaxed);
            // Release pairs with the Acquire load in `events`.
            at_last.store(last, Ordering::Release);
        }
    }

    /// How many events there were, with those that found no room.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.header().next.load(Ordering::Relaxed)
    }

    /// The events in their order. One that was being written when the process ended is left out.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let used = usize::try_from(self.total()).unwrap_or(usize::MAX);
        self.slots().iter().take(used).filter_map(|slot| {
            let [address, size, thread, last] = &slot.0;
            // Acquire pairs with the Release store in `push`.
            let last = last.load(Ordering::Acquire);
            let words = [address, size, thread].map(|word| word.load(Ordering::Relaxed));
            let [address, size, thread] = words;
            Event::from_words([address, size, thread, last])
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::thread;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// Calls `test` with a log of so many slots.
    fn with_log(capacity: usize, test: impl FnOnce(Log<'_>)) {
        let mut memory = vec![0_u64; Log::bytes(capacity) / 8];
        // SAFETY: zero, of this size, aligned to 8, and outlives the log.
        test(unsafe { Log::create(memory.as_mut_ptr().cast(), capacity) });
    }

    fn event(address: usize, thread: u64) -> Event {
        Event { kind: Kind::Free, address, thread, ..Event::default() }
    }

    #[test]
    fn threads_write_in_one_order() {
        with_log(4000, |log| {
            thread::scope(|scope| {
                for thread in 1..=4 {
                    scope.spawn(move || (0..900).for_each(|at| log.push(event(at, thread))));
                }
            });
            let events: Vec<Event> = log.events().collect();
            assert_eq!((events.len(), log.total()), (3600, 3600));
            for thread in 1..=4 {
                let own = events.iter().filter(|event| event.thread == thread);
                assert!(own.map(|event| event.address).eq(0..900));
            }
        });
    }

    #[test]
    fn a_full_log_counts() {
        with_log(3, |log| {
            (0..5).for_each(|at| log.push(event(at, 1)));
            assert!(log.events().map(|event| event.address).eq(0..3));
            assert_eq!(log.total(), 5);
        });
    }

    #[test]
    fn another_program_in_the_same_process_begins_anew() {
        with_log(3, |log| {
            assert!(log.attach(5));
            (0..5).for_each(|at| log.push(event(at, 1)));
            assert!(!log.attach(6));
            assert_eq!(log.total(), 5);
            assert!(log.attach(5));
            assert_eq!((log.total(), log.events().count()), (0, 0));
            log.push(event(9, 1));
            assert!(log.events().map(|event| event.address).eq([9]));
        });
    }

    #[test]
    fn what_is_no_log_is_not_opened() {
        let mut memory = [0_u64; 64];
        let at = memory.as_mut_ptr().cast();
        // SAFETY: so many bytes, aligned to 8, which outlive the log.
        unsafe {
            assert!(Log::open(at, 512).is_none());
            let _ = Log::create(at, 15);
            assert!(Log::open(at, 512).is_some());
            assert!(Log::open(at, Log::bytes(14)).is_none());
            assert!(Log::open(at, 8).is_none());
        }
    }
}
