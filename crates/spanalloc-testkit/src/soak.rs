//! Threads that allocate, change sizes, free and hand objects to each other, all at once, for as long as
//! one has patience: what goes wrong only under load, and only after a while.
//!
//! An object is full of a [`pattern`] of its own, which is checked from the first byte to the last when
//! it is freed or gets a new size. Threads end all the time, with objects that others free later, and
//! others start. In the end all is freed, and the accounts must say so.

use std::alloc::Layout;
use std::fs;
use std::process;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::pattern;

/// Bytes that a thread keeps at most.
const KEEPS: usize = 16 << 20;
/// Objects that wait for another thread at most, in each of as many places as there are threads.
const WAITING: usize = 500;
/// After how many operations the counts are added up.
const OPERATIONS_AT_ONCE: i32 = 256;

/// Ends the process: what follows a broken promise says nothing more.
fn fail(wrong: &str) -> ! {
    eprintln!("FAILED: {wrong}");
    process::exit(1)
}

/// What threads allocate from.
///
/// # Safety
/// What a cache hands out is memory that nobody else has, with the size and the alignment of its Layout, until it is
/// freed through any cache of the same heap.
pub unsafe trait Heap: Sync {
    /// What a thread allocates with.
    type Cache<'a>
    where
        Self: 'a;

    /// Makes a cache, in the thread that uses it.
    fn cache(&self) -> Self::Cache<'_>;

    /// Allocates; the size is not 0.
    fn alloc(&self, cache: &mut Self::Cache<'_>, layout: Layout) -> Option<NonNull<u8>>;

    /// The same, filled with zeroes.
    fn alloc_zeroed(&self, cache: &mut Self::Cache<'_>, layout: Layout) -> Option<NonNull<u8>>;

    /// Frees.
    ///
    /// # Safety
    /// The object is live with this layout, and came from a cache of this heap.
    unsafe fn free(&self, cache: &mut Self::Cache<'_>, object: NonNull<u8>, layout: Layout);

    /// Changes the size.
    ///
    /// # Safety
    /// As for [`free`](Self::free); the size is not 0 and goes with the alignment.
    unsafe fn realloc(
        &self,
        cache: &mut Self::Cache<'_>,
        object: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>>;

    /// Gives memory back to the system: all that is free, or what is due.
    fn give_back(&self, cache: &mut Self::Cache<'_>, all: bool);

    /// Objects and bytes that are live, as the heap counts them. Other threads may be at work.
    fn live(&self, cache: &mut Self::Cache<'_>) -> (usize, usize);

    /// Whether the accounts of the heap add up, when nothing is live and no thread is at work.
    ///
    /// # Errors
    /// The accounts that do not.
    fn audit(&self, cache: &mut Self::Cache<'_>) -> Result<(), String>;
}

/// How long, and how many threads at once.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// After this time nobody allocates any more.
    pub time: Duration,
    /// How many threads there are at any time.
    pub threads: usize,
    /// How often a line says how far it is.
    pub every: Duration,
}

impl Soak {
    /// Runs the threads on `heap`, in which nothing is live, and frees everything. Ends the process if an object
    /// is not as it must be.
    ///
    /// # Errors
    /// What is left in the end.
    pub fn run<H: Heap>(&self, name: &str, heap: &H) -> Result<(), String> {
        let town = Town {
            places: (0..self.threads.max(1)).map(|_| Mutex::default()).collect(),
            counts: Counts::default(),
            over: AtomicBool::new(false),
        };
        let began = Instant::now();
        let mut cache = heap.cache();
        let threads = self.run_threads(name, heap, &town, &mut cache)?;
        let mut last = Worker::new(heap, &town, 0);
        for place in 0..town.places.len() {
            last.fetch(place);
        }
        last.free_all();
        drop(last);
        heap.give_back(&mut cache, true);
        let (objects, bytes) = heap.live(&mut cache);
        println!("{}", town.line(name, began, threads, bytes));
        let freed = town.counts.freed.load(Ordering::Relaxed);
        let allocated = town.counts.allocated.load(Ordering::Relaxed);
        if objects != 0 || allocated != freed {
            return Err(format!("{allocated} objects allocated, {freed} freed, {objects} left"));
        }
        heap.audit(&mut cache)?;
        println!("{name}: {allocated} objects allocated and freed, none left, the accounts add up");
        Ok(())
    }

    /// Lets threads work until the time is over, and says how many there were.
    fn run_threads<'h, H: Heap>(
        &self,
        name: &str,
        heap: &'h H,
        town: &Town,
        cache: &mut H::Cache<'h>,
    ) -> Result<u64, String> {
        let began = Instant::now();
        let mut said = began;
        let mut started = 0;
        thread::scope(|scope| {
            let mut threads: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
            while began.elapsed() < self.time {
                while threads.len() < self.threads {
                    started += 1;
                    let seed = started;
                    threads.push(scope.spawn(move || Worker::new(heap, town, seed).work()));
                }
                thread::sleep(Duration::from_millis(5));
                // Each is waited for: so what it did comes before what follows here.
                let mut at = 0;
                while at < threads.len() {
                    if threads[at].is_finished() {
                        threads.swap_remove(at).join().map_err(|_| "a thread panicked")?;
                    } else {
                        at += 1;
                    }
                }
                if said.elapsed() >= self.every {
                    said += self.every;
                    println!("{}", town.line(name, began, started, heap.live(cache).1));
                }
            }
            town.over.store(true, Ordering::Relaxed);
            for ended in threads {
                ended.join().map_err(|_| "a thread panicked")?;
            }
            Ok(started)
        })
    }
}

/// What the threads share.
struct Town {
    places: Vec<Mutex<Vec<Object>>>,
    counts: Counts,
    over: AtomicBool,
}

#[derive(Default)]
struct Counts {
    operations: AtomicU64,
    allocated: AtomicU64,
    freed: AtomicU64,
    handed_over: AtomicU64,
    verified: AtomicU64,
}

impl Town {
    fn line(&self, name: &str, began: Instant, threads: u64, live: usize) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{name} {:5} s: {} operations, {} objects handed over, {threads} threads, {} MB verified, \
             {} KB live, {} KB resident",
            began.elapsed().as_secs(),
            count(&self.counts.operations),
            count(&self.counts.handed_over),
            count(&self.counts.verified) >> 20,
            live >> 10,
            resident_kb(),
        )
    }
}

/// What of this process is in memory; 0 where the system does not say.
fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// A live object, full of a pattern of its own.
struct Object {
    address: NonNull<u8>,
    layout: Layout,
    id: u64,
}

// SAFETY: whoever has this owns the object.
unsafe impl Send for Object {}

/// A thread at work.
struct Worker<'a, H: Heap + 'a> {
    heap: &'a H,
    cache: H::Cache<'a>,
    town: &'a Town,
    random: Random,
    next_id: u64,
    mine: Vec<Object>,
    bytes: usize,
    counts: Counts,
}

impl<'a, H: Heap> Worker<'a, H> {
    fn new(heap: &'a H, town: &'a Town, seed: u64) -> Self {
        Self {
            heap,
            cache: heap.cache(),
            town,
            random: Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            next_id: seed << 32,
            mine: Vec::new(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// Lives for a while, and leaves half of its objects to others.
    fn work(mut self) {
        let operations = 1000 << self.random.below(10);
        // Of ten operations, how many allocate: it grows for a while, then it shrinks.
        let mut more = 6;
        for operation in 1..=operations {
            match self.random.below(100) {
                0..78 if self.random.below(10) < more && self.bytes < KEEPS => self.alloc(),
                0..78 => self.free(),
                78..81 => self.hand_over(),
                81..84 => {
                    let place = self.random.below(self.town.places.len());
                    self.fetch(place);
                }
                _ => self.realloc(),
            }
            add(&self.counts.operations, 1);
            if operation % 1024 == 0 {
                more = 4 + self.random.below(5);
                match self.random.below(64) {
                    0 => self.heap.give_back(&mut self.cache, true),
                    1..16 => self.heap.give_back(&mut self.cache, false),
                    _ => {}
                }
            }
            if operation % OPERATIONS_AT_ONCE == 0 {
                self.add_up();
                if self.town.over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        for _ in 0..8 {
            self.hand_over();
        }
        self.free_all();
    }

    fn alloc(&mut self) {
        let (size, align) = (self.random.size(), self.random.align());
        let Ok(layout) = Layout::from_size_align(size, align) else { return };
        let zeroed = self.random.below(4) == 0;
        let address = if zeroed {
            self.heap.alloc_zeroed(&mut self.cache, layout)
        } else {
            self.heap.alloc(&mut self.cache, layout)
        };
        let Some(address) = address else { fail("out of memory") };
        if address.addr().get() % align != 0 {
            fail(&format!("{address:?} for {layout:?}"));
        }
        let object = Object { address, layout, id: self.new_id() };
        // SAFETY: the object was just allocated with this size.
        unsafe {
            if zeroed {
                self.verify(&object, size, pattern::check_zero(address.as_ptr(), size));
            }
            pattern::fill(address.as_ptr(), 0, size, object.id);
        }
        add(&self.counts.allocated, 1);
        self.keep(object);
    }

    fn free(&mut self) {
        let Some(object) = self.any() else { return };
        let size = object.layout.size();
        // SAFETY: the object is live with this layout, full, and only ours.
        unsafe {
            self.verify(&object, size, pattern::check(object.address.as_ptr(), size, object.id));
            self.heap.free(&mut self.cache, object.address, object.layout);
        }
        add(&self.counts.freed, 1);
    }

    /// Half of the sizes are near the old one.
    fn realloc(&mut self) {
        let Some(object) = self.any() else { return };
        let (old, align) = (object.layout.size(), object.layout.align());
        let near = self.random.below(2) == 0;
        let size = if near { 1 + old / 2 + self.random.below(old + 1) } else { self.random.size() };
        let Ok(layout) = Layout::from_size_align(size, align) else { return };
        // SAFETY: the object is live with its layout, full, and only ours; what both sizes have stays.
        let moved = unsafe {
            self.verify(&object, old, pattern::check(object.address.as_ptr(), old, object.id));
            let Some(address) =
                self.heap.realloc(&mut self.cache, object.address, object.layout, size)
            else {
                fail("out of memory")
            };
            let kept = old.min(size);
            let moved = Object { address, layout, id: self.new_id() };
            self.verify(&object, kept, pattern::check(address.as_ptr(), kept, object.id));
            pattern::fill(address.as_ptr(), 0, size, moved.id);
            moved
        };
        self.keep(moved);
    }

    /// Puts some objects where another thread finds them. A place that is full, or somebody else's for the
    /// moment, is passed by.
    fn hand_over(&mut self) {
        let place = self.random.below(self.town.places.len());
        // Nobody waits for a place: then all that a thread sanitizer has to see of its lock is in this program,
        // and nothing in a library that was built without.
        let Ok(mut place) = self.town.places[place].try_lock() else { return };
        for _ in 0..self.random.below(24) {
            if place.len() >= WAITING {
                return;
            }
            let Some(object) = self.any() else { return };
            place.push(object);
            add(&self.counts.handed_over, 1);
        }
    }

    /// Takes what waits in a place, and frees some of it at once.
    fn fetch(&mut self, place: usize) {
        let Ok(mut place) = self.town.places[place].try_lock() else { return };
        let objects = std::mem::take(&mut *place);
        drop(place);
        let count = objects.len();
        objects.into_iter().for_each(|object| self.keep(object));
        for _ in 0..self.random.below(count + 1) {
            self.free();
        }
    }

    fn free_all(&mut self) {
        while !self.mine.is_empty() {
            self.free();
        }
        self.add_up();
    }

    fn keep(&mut self, object: Object) {
        self.bytes += object.layout.size();
        self.mine.push(object);
    }

    /// One of the objects, which is no longer kept.
    fn any(&mut self) -> Option<Object> {
        if self.mine.is_empty() {
            return None;
        }
        let object = self.mine.swap_remove(self.random.below(self.mine.len()));
        self.bytes -= object.layout.size();
        Some(object)
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn verify(&self, object: &Object, bytes: usize, result: Result<(), pattern::Mismatch>) {
        if let Err(wrong) = result {
            let Object { address, layout, id } = object;
            fail(&format!("object {id} at {address:?} of {layout:?}: {wrong:?}"));
        }
        add(&self.counts.verified, bytes as u64);
    }

    /// Tells the others what this thread has done since.
    fn add_up(&self) {
        let (mine, all) = (&self.counts, &self.town.counts);
        for (mine, all) in [
            (&mine.operations, &all.operations),
            (&mine.allocated, &all.allocated),
            (&mine.freed, &all.freed),
            (&mine.handed_over, &all.handed_over),
            (&mine.verified, &all.verified),
        ] {
            all.fetch_add(mine.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Adds to a count that no other thread has.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 20) as usize % end
    }

    /// A quarter tiny, most small, one in 30 up to 32 KB, one in 300 large, one in 10,000 up to 8 MB.
    fn size(&mut self) -> usize {
        1 + match self.below(10_000) {
            0 => self.below(8 << 20),
            1..30 => self.below(512 << 10),
            30..300 => self.below(40 << 10),
            300..2500 => self.below(16),
            2500..4000 => self.below(2048),
            _ => self.below(300),
        }
    }

    /// Mostly up to 16; one in 512 up to 64 KB.
    fn align(&mut self) -> usize {
        match self.below(512) {
            0 => 1 << self.below(17),
            _ => 1 << self.below(5),
        }
    }
}
