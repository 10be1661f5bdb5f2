//! Makes operations of what a recorder wrote.

use std::collections::HashMap;

use spanalloc_log::{Event, Kind};
use spanalloc_testkit::{Operation, Trace};

/// A time that passed is written down when it is so long: 100 microseconds.
const TICK_NANOSECONDS: u64 = 100_000;

/// What stands for an object: its address, or, between the two events of a new size, its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    At(usize),
    Moving(u64),
}

/// Operations in the making.
///
/// Threads become caches, each the lowest number that no other thread has. An object that appears where
/// one lives already shows that the free of that was not seen, and ends it. Frees and new sizes of
/// objects from before the recording are left out, but for the object that the latter makes.
#[derive(Debug)]
pub(crate) struct Transcript {
    operations: Vec<Operation>,
    /// The live objects, in the order of the replay.
    live: Vec<Name>,
    places: HashMap<Name, usize>,
    /// The old addresses of objects that are getting a new size, by thread.
    moving: HashMap<u64, usize>,
    caches: Caches,
    /// When the last tick was, if there was one.
    last: Option<u64>,
}

/// Which thread has which cache.
#[derive(Debug, Default)]
struct Caches {
    by_thread: HashMap<u64, u16>,
    /// The threads of the caches, or None.
    threads: Vec<Option<u64>>,
    /// The caches of threads that have ended.
    ended: HashMap<u64, u16>,
    current: u16,
    ever: usize,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        let caches = Caches::default();
        Self {
            operations: Vec::new(),
            live: Vec::new(),
            places: HashMap::new(),
            moving: HashMap::new(),
            caches,
            last: None,
        }
    }

    /// How many threads there were.
    pub(crate) fn threads(&self) -> usize {
        self.caches.ever
    }

    /// The next event.
    pub(crate) fn add(&mut self, event: Event) {
        self.tick(event.nanoseconds);
        let Event { kind, address, size, thread, .. } = event;
        match kind {
            Kind::End => return self.end(thread),
            // Nothing is done yet.
            Kind::Resize => {
                self.rename(Name::At(address), Name::Moving(thread));
                self.moving.insert(thread, address);
                return;
            }
            Kind::Alloc | Kind::AllocZeroed | Kind::Free | Kind::Resized => {}
        }
        if size > Trace::MOST_BYTES {
            return;
        }
        let align = 1_usize.checked_shl(event.align_log2.into()).unwrap_or(16);
        match kind {
            Kind::Alloc => self.alloc(thread, address, Operation::Alloc { size, align }),
            Kind::AllocZeroed => {
                self.alloc(thread, address, Operation::AllocZeroed { size, align })
            }
            Kind::Free => {
                if let Some(place) = self.forget(Name::At(address)) {
                    let ended = self.caches.after_the_end(thread);
                    let cache = ended.unwrap_or_else(|| self.caches.of(thread));
                    self.switch_to(cache);
                    self.operations.push(Operation::Free { index: place as u32 });
                }
            }
            _ => self.resized(thread, address, size),
        }
    }

    /// The trace of all events.
    pub(crate) fn finish(self) -> Trace {
        let caches = u16::try_from(self.caches.threads.len()).unwrap_or(u16::MAX);
        Trace::new(caches, &self.operations)
    }

    fn tick(&mut self, now: u64) {
        let last = *self.last.get_or_insert(now);
        // Threads look at the clock before they take their place in the order.
        let passed = now.saturating_sub(last);
        if passed >= TICK_NANOSECONDS {
            let microseconds = u32::try_from(passed / 1000).unwrap_or(u32::MAX);
            self.operations.push(Operation::Advance { microseconds });
            self.last = Some(last + u64::from(microseconds) * 1000);
        }
    }

    fn switch(&mut self, thread: u64) {
        let cache = self.caches.of(thread);
        self.switch_to(cache);
    }

    fn switch_to(&mut self, cache: u16) {
        if cache != self.caches.current {
            self.caches.current = cache;
            self.operations.push(Operation::Switch { cache });
        }
    }

    fn end(&mut self, thread: u64) {
        if let Some(cache) = self.caches.end(thread) {
            self.operations.push(Operation::Restart { cache });
        }
    }

    fn alloc(&mut self, thread: u64, address: usize, operation: Operation) {
        self.switch(thread);
        if let Some(place) = self.forget(Name::At(address)) {
            self.operations.push(Operation::Free { index: place as u32 });
        }
        self.places.insert(Name::At(address), self.live.len());
        self.live.push(Name::At(address));
        self.operations.push(operation);
    }

    fn resized(&mut self, thread: u64, address: usize, size: usize) {
        let Some(old) = self.moving.remove(&thread) else { return };
        if address == 0 {
            // It is where it was.
            self.rename(Name::Moving(thread), Name::At(old));
            return;
        }
        self.switch(thread);
        if let Some(place) = self.forget(Name::At(address)) {
            self.operations.push(Operation::Free { index: place as u32 });
        }
        match self.rename(Name::Moving(thread), Name::At(address)) {
            Some(place) => self.operations.push(Operation::Realloc { index: place as u32, size }),
            None => self.alloc(thread, address, Operation::Alloc { size, align: 16 }),
        }
    }

    fn rename(&mut self, from: Name, to: Name) -> Option<usize> {
        let place = self.places.remove(&from)?;
        *self.live.get_mut(place)? = to;
        self.places.insert(to, place);
        Some(place)
    }

    /// Takes an object out. The last one takes its place, as in the replay.
    fn forget(&mut self, name: Name) -> Option<usize> {
        let place = self.places.remove(&name)?;
        self.live.swap_remove(place);
        if let Some(moved) = self.live.get(place) {
            self.places.insert(*moved, place);
        }
        Some(place)
    }
}

impl Caches {
    /// The cache of a thread. The last one serves all threads for which there are no numbers.
    fn of(&mut self, thread: u64) -> u16 {
        if let Some(cache) = self.by_thread.get(&thread) {
            return *cache;
        }
        self.ever += 1;
        let free = self.threads.iter().position(Option::is_none);
        let place = free.unwrap_or(self.threads.len()).min(usize::from(u16::MAX) - 1);
        match self.threads.get_mut(place) {
            Some(taken) => *taken = Some(thread),
            None => self.threads.push(Some(thread)),
        }
        self.by_thread.insert(thread, place as u16);
        place as u16
    }

    /// The cache that a thread had that has ended and frees something still, if nobody has it since.
    fn after_the_end(&self, thread: u64) -> Option<u16> {
        let cache = *self.ended.get(&thread)?;
        let free = self.threads.get(usize::from(cache)).is_some_and(Option::is_none);
        (free && !self.by_thread.contains_key(&thread)).then_some(cache)
    }

    /// The cache of a thread that ends, if it had one, or used it after its end.
    fn end(&mut self, thread: u64) -> Option<u16> {
        let Some(cache) = self.by_thread.remove(&thread) else {
            return self.after_the_end(thread);
        };
        let place = self.threads.get_mut(usize::from(cache))?;
        if *place != Some(thread) {
            return None;
        }
        *place = None;
        self.ended.insert(thread, cache);
        Some(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(events: &[(Kind, usize, usize, u64)]) -> (u16, Vec<Operation>) {
        let mut transcript = Transcript::new();
        for &(kind, address, size, thread) in events {
            let nanoseconds = 5;
            transcript.add(Event { kind, address, size, align_log2: 4, thread, nanoseconds });
        }
        let trace = transcript.finish();
        (trace.caches(), trace.operations().to_vec())
    }

    const fn alloc(size: usize) -> Operation {
        Operation::Alloc { size, align: 16 }
    }

    #[test]
    fn addresses_become_places() {
        let (caches, list) = operations(&[
            (Kind::Alloc, 16, 1, 9),
            (Kind::AllocZeroed, 32, 2, 9),
            (Kind::Alloc, 48, 3, 9),
            (Kind::Free, 16, 0, 9),
            (Kind::Free, 48, 0, 9),
            (Kind::Free, 4711, 0, 9),
            (Kind::Alloc, 16, 4, 9),
            (Kind::Free, 32, 0, 9),
        ]);
        assert_eq!(caches, 1);
        let expected = [
            alloc(1),
            Operation::AllocZeroed { size: 2, align: 16 },
            alloc(3),
            Operation::Free { index: 0 },
            Operation::Free { index: 0 },
            alloc(4),
            Operation::Free { index: 0 },
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn another_thread_may_have_the_old_place_of_an_object_before_its_move_is_seen() {
        let (_, list) = operations(&[
            (Kind::Alloc, 16, 1, 9),
            (Kind::Resize, 16, 100, 9),
            (Kind::Alloc, 16, 2, 8),
            (Kind::Resized, 160, 100, 9),
            (Kind::Resize, 160, 1 << 40, 9),
            (Kind::Resized, 0, 1 << 30, 9),
            (Kind::Free, 160, 0, 9),
            (Kind::Free, 16, 0, 9),
        ]);
        let expected = [
            alloc(1),
            Operation::Switch { cache: 1 },
            alloc(2),
            Operation::Switch { cache: 0 },
            Operation::Realloc { index: 0, size: 100 },
            Operation::Free { index: 0 },
            Operation::Free { index: 0 },
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn what_was_not_seen_is_made_up_for() {
        let (_, list) = operations(&[
            (Kind::Resize, 16, 10, 9),
            (Kind::Resized, 32, 10, 9),
            (Kind::Alloc, 32, 20, 9),
            (Kind::Resized, 64, 10, 9),
        ]);
        assert_eq!(list, [alloc(10), Operation::Free { index: 0 }, alloc(20)]);
    }

    #[test]
    fn a_cache_is_used_again_when_its_thread_has_ended() {
        let (caches, list) = operations(&[
            (Kind::Alloc, 16, 1, 7),
            (Kind::Alloc, 32, 2, 8),
            (Kind::End, 0, 0, 8),
            (Kind::Free, 16, 0, 8),
            (Kind::End, 0, 0, 8),
            (Kind::Alloc, 48, 3, 9),
            (Kind::End, 0, 0, 7),
        ]);
        assert_eq!(caches, 2);
        let expected = [
            alloc(1),
            Operation::Switch { cache: 1 },
            alloc(2),
            Operation::Restart { cache: 1 },
            Operation::Free { index: 0 },
            Operation::Restart { cache: 1 },
            alloc(3),
            Operation::Restart { cache: 0 },
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn time_is_told_now_and_then() {
        let mut transcript = Transcript::new();
        for (address, nanoseconds) in [(16, 1_000), (32, 90_000), (48, 151_500), (64, 151_000)] {
            let event = Event { address, size: 1, align_log2: 4, nanoseconds, ..Event::default() };
            transcript.add(event);
        }
        let tick = Operation::Advance { microseconds: 150 };
        assert_eq!(
            transcript.finish().operations(),
            [alloc(1), alloc(1), tick, alloc(1), alloc(1)]
        );
    }
}
