//! Only where threads can be fenced, and the system says who sleeps.
#![cfg(all(target_os = "linux", not(miri)))]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::mpsc;
use std::vec::Vec;

use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::{Mmap, OsError, OsSource, Report, Request};
use spanalloc_pages::PageHeap;
use spanalloc_sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::{Checked, Fast};

/// Memory of the system, where every thread is asleep until all threads were fenced, and then for one time not:
/// so threads are emptied while they run, but for the memory of their bins.
struct Sleepless {
    os: Mmap,
    fenced: AtomicBool,
    fences: AtomicUsize,
}

// SAFETY: every verb is passed on to a source that keeps the contract.
unsafe impl OsSource for Sleepless {
    type Wait = <Mmap as OsSource>::Wait;

    fn page_bytes(&self) -> usize {
        self.os.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        self.os.reserve(request)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.os.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.os.decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.os.release(at, bytes) }
    }

    fn fence_threads(&self) -> bool {
        self.fenced.store(true, Ordering::Relaxed);
        self.fences.fetch_add(1, Ordering::Relaxed);
        self.os.fence_threads()
    }

    fn is_asleep(&self, _thread: u32) -> bool {
        !self.fenced.swap(false, Ordering::Relaxed)
    }

    fn die(&self, report: Report) -> ! {
        self.os.die(report)
    }
}

type Lists<O> = CentralLists<Go67, PageHeap<O>>;

/// The number by which the system knows the calling thread.
fn number() -> u32 {
    let path = std::fs::read_link("/proc/thread-self").unwrap();
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// A thread that says when it is inside, as the facade does.
struct Lender<'a, O: OsSource, P: Policy> {
    cache: Cache<'a, Lists<O>, P>,
    /// Whether its fast paths say so, too.
    says: bool,
    /// How often it found that it had been emptied, or was being emptied.
    late: usize,
}

impl<'a, O: OsSource, P: Policy> Lender<'a, O, P> {
    fn new(lists: &'a Lists<O>, says: bool) -> Self {
        let cache = Cache::open(lists).unwrap();
        cache.lend(number());
        Self { cache, says, late: 0 }
    }

    /// Runs something on a fast path.
    fn fast<R>(&self, run: impl FnOnce(Cache<'a, Lists<O>, P>) -> Option<R>) -> Option<R> {
        if !self.says {
            return run(self.cache);
        }
        self.cache.state.inside().store(1, Ordering::Relaxed);
        let result = if self.cache.state.is_at_hand() { run(self.cache) } else { None };
        self.cache.state.inside().store(0, Ordering::Release);
        result
    }

    /// Runs something on a slow path.
    fn slow<R>(&mut self, run: impl FnOnce(Cache<'a, Lists<O>, P>) -> R) -> R {
        loop {
            self.cache.state.inside().store(2, Ordering::Relaxed);
            self.late += usize::from(self.cache.state.lease.is_emptied());
            let entered = self.cache.enter();
            if entered {
                let result = run(self.cache);
                self.cache.state.inside().store(0, Ordering::Release);
                return result;
            }
            self.cache.state.inside().store(0, Ordering::Release);
            std::thread::yield_now();
        }
    }

    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let fast =
            self.fast(|cache| cache.try_alloc(layout).or_else(|| cache.try_alloc_any(layout)));
        fast.unwrap_or_else(|| self.slow(|cache| cache.alloc_slow(layout)))
    }

    fn free(&mut self, object: *mut u8, layout: Layout) {
        // SAFETY: allocated by such a thread with this layout.
        unsafe {
            if self
                .fast(|cache| {
                    (cache.try_free(object, layout) || cache.try_free_any(object, layout))
                        .then_some(())
                })
                .is_none()
            {
                self.slow(|cache| cache.free_slow(object, layout));
            }
        }
    }

    fn end(self) {
        while !self.cache.keep() {
            std::thread::yield_now();
        }
        // SAFETY: the cache is not used any more.
        unsafe { self.cache.close() };
    }
}

/// How often a thread shall find that it was emptied.
const MEETINGS: usize = if cfg!(debug_assertions) { 40 } else { 200 };

fn layout(index: usize) -> Layout {
    let size = if index % 8 == 7 { 20_000 } else { 16 << (index % 8) };
    Layout::from_size_align(size, 8).unwrap()
}

/// Objects of some sizes, each with a number in it; freed, and their numbers looked at.
fn come_and_go<O: OsSource, P: Policy>(thread: &mut Lender<'_, O, P>, count: usize, mark: u64) {
    let objects = Vec::from_iter((0..count).map(|index| {
        let object = thread.alloc(layout(index)).cast::<u64>();
        // SAFETY: an object of this thread, of 16 bytes at least.
        unsafe { object.write(mark + index as u64) };
        object
    }));
    for (index, object) in objects.into_iter().enumerate() {
        // SAFETY: as above.
        assert_eq!(unsafe { object.read() }, mark + index as u64, "two have one object");
        thread.free(object.cast(), layout(index));
    }
}

fn used_while_it_is_emptied<P: Policy>(says: bool) {
    let os =
        Sleepless { os: Mmap::new(), fenced: AtomicBool::new(false), fences: AtomicUsize::new(0) };
    let lists = Lists::new(PageHeap::new(os));
    let over = AtomicBool::new(false);
    let late = std::thread::scope(|scope| {
        let workers = [1, 2].map(|number| {
            let lists = &lists;
            scope.spawn(move || {
                let mut thread = Lender::<_, P>::new(lists, says);
                // Until they have met often enough, or it takes too long.
                for round in 0..100_000 {
                    if thread.late >= MEETINGS {
                        break;
                    }
                    come_and_go(
                        &mut thread,
                        1 + round * 7 % 90,
                        (number << 40) + ((round as u64) << 16),
                    );
                }
                let late = thread.late;
                thread.end();
                late
            })
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                Cache::<_, P>::tend_idle(&lists, true);
            }
        });
        let late = workers.map(|worker| worker.join().unwrap());
        over.store(true, Ordering::Relaxed);
        late
    });
    let cache = Cache::<_, P>::open(&lists).unwrap();
    let snapshot = cache.snapshot();
    assert!(snapshot.adds_up() && snapshot.live_objects() == 0, "{snapshot:?}");
    // SAFETY: the cache is not used any more.
    unsafe { cache.close() };
    assert_eq!(lists.heap().stats().pages_in_use, 0);
    if lists.heap().os().fence_threads() {
        assert!(late.iter().all(|late| *late > 1), "{late:?}: they never met");
    }
}

#[test]
fn threads_go_on_while_they_are_emptied() {
    used_while_it_is_emptied::<Fast>(false);
    used_while_it_is_emptied::<Checked>(true);
}

/// A thread that sleeps is emptied, and goes on as if nothing had been.
fn sleeps<P: Policy>(says: bool) {
    let lists = Lists::new(PageHeap::new(Mmap::new()));
    if !lists.heap().fence_threads() {
        return;
    }
    let (say, hear) = mpsc::channel();
    let (wake, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let lists = &lists;
        scope.spawn(move || {
            let mut thread = Lender::<_, P>::new(lists, says);
            let kept = thread.alloc(layout(3));
            let mut large = Vec::new();
            for turn in 0..3 {
                come_and_go(&mut thread, 5000, turn << 32);
                large.push(thread.slow(|cache| cache.alloc(Layout::new::<[u64; 9000]>())));
                let object = large[turn as usize / 2];
                if turn > 0 {
                    let again = thread.alloc(layout(3));
                    assert_ne!(again, kept);
                    thread.free(again, layout(3));
                }
                if turn == 1 {
                    thread.free(object, Layout::new::<[u64; 9000]>());
                }
                say.send((turn, number(), object.addr())).unwrap();
                wait.recv().unwrap();
            }
            thread.free(kept, layout(3));
            for object in large.into_iter().skip(1) {
                thread.free(object, Layout::new::<[u64; 9000]>());
            }
            thread.end();
        });
        for turn in 0..3 {
            let (now, number, _) = hear.recv().unwrap();
            assert_eq!(now, turn);
            while !lists.heap().is_asleep(number) {
                std::thread::yield_now();
            }
            let before = lists.heap().stats();
            Cache::<_, P>::tend_idle(lists, true);
            let after = lists.heap().stats();
            let [before, after] =
                [before, after].map(|stats| stats.pages_in_use - stats.metadata_pages);
            // One span, the live large objects, and nothing else.
            let large = [9, 9, 18][turn as usize];
            assert!(before > 30 && after <= 1 + large, "{turn}: {after} of {before} pages");
            // What is emptied stays so, and nobody looks again.
            Cache::<_, P>::tend_idle(lists, true);
            wake.send(()).unwrap();
        }
    });
    assert_eq!(lists.heap().stats().pages_in_use, 0);
}

#[test]
fn a_thread_that_sleeps_is_emptied() {
    sleeps::<Fast>(false);
    sleeps::<Checked>(true);
}

#[test]
fn what_others_free_meanwhile_goes_back_too() {
    let lists = Lists::new(PageHeap::new(Mmap::new()));
    if !lists.heap().fence_threads() {
        return;
    }
    let (say, hear) = mpsc::channel();
    let (wake, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let lists = &lists;
        scope.spawn(move || {
            let mut thread = Lender::<_, Fast>::new(lists, false);
            let made =
                Vec::from_iter((0..2000).map(|_| thread.alloc(layout(6)).expose_provenance()));
            say.send((made, number())).unwrap();
            let _ = wait.recv();
            thread.end();
        });
        let (made, number) = hear.recv().unwrap();
        let mut other = Lender::<_, Fast>::new(lists, false);
        let in_use = || lists.heap().stats().pages_in_use - lists.heap().stats().metadata_pages;
        while !lists.heap().is_asleep(number) {
            std::thread::yield_now();
        }
        let (first, rest) = made.split_at(1000);
        for (freed, most) in [(first, in_use() / 2 + 9), (rest, 0)] {
            for object in freed {
                other.free(core::ptr::with_exposed_provenance_mut(*object), layout(6));
            }
            other.slow(Cache::reclaim);
            Cache::<_, Fast>::tend_idle(lists, true);
            assert!(in_use() <= most, "{} of {most}", in_use());
        }
        drop(wake);
        other.end();
    });
}
