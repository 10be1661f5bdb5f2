//! Runs code in every interleaving of its threads. Only there when the build says `--cfg loom`.
//!
//! [`check`] is `loom::model` with three things added. The loom objects behind the atomics and
//! cells of this crate are made before the model's first step, as if they had always been there:
//! loom takes the making of an atomic for a write, and reports a race if a thread uses it without
//! having synchronised with the thread that was the first to do so. A fault planted with
//! [`fault::plant`](crate::fault::plant) ends with the model. And the number of interleavings is
//! returned.
//!
//! In a plain `loom::model` the objects are made where they are first used. That is right as long
//! as one thread uses each of them before it starts the others; otherwise loom reports a
//! "Causality violation".

use std::cell::{RefCell, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use loom::model::Builder;

use crate::fault;

/// How many objects of each kind the first interleaving gets. Later ones get twice the most that
/// one has used, and [`SPARE`].
const FIRST: usize = 2048;
const SPARE: usize = 16;

/// Runs `model` in every interleaving and returns how many there were.
///
/// # Panics
/// With the model: when an assertion of it fails, when loom finds a data race, a deadlock, a leak,
/// or a path that does not end.
pub fn check(model: impl Fn() + Send + Sync + 'static) -> usize {
    check_with(&Builder::new(), model)
}

/// Runs `model` in every interleaving that preempts a thread at most `preemptions` times, and
/// returns how many there were. The bound is as much higher as the environment's
/// `SPANALLOC_TEST_PREEMPTIONS` says, for a longer run of the same models.
///
/// # Panics
/// As [`check`], and if that variable is no number.
pub fn check_bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions + more_preemptions());
    check_with(&builder, model)
}

fn more_preemptions() -> usize {
    const VARIABLE: &str = "SPANALLOC_TEST_PREEMPTIONS";
    let Some(said) = std::env::var_os(VARIABLE) else { return 0 };
    let number = said.to_str().and_then(|said| said.parse().ok());
    assert!(number.is_some(), "{VARIABLE} is no number: {said:?}");
    number.unwrap_or(0)
}

/// Runs `model` as `builder` says and returns how many interleavings there were.
///
/// # Panics
/// As [`check`].
pub fn check_with(builder: &Builder, model: impl Fn() + Send + Sync + 'static) -> usize {
    let _session = Session;
    STOCK.with_borrow_mut(|stock| stock.start(FIRST));
    let interleavings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&interleavings);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        STOCK.with_borrow_mut(Stock::fill);
        model();
    });
    interleavings.load(Ordering::Relaxed)
}

/// Ends the session however the model ends.
struct Session;

impl Drop for Session {
    fn drop(&mut self) {
        STOCK.with_borrow_mut(|stock| stock.start(0));
        fault::uproot();
    }
}

std::thread_local! {
    // Loom runs all threads of a model on the thread that called `check`, so they share this.
    static STOCK: RefCell<Stock> = RefCell::new(Stock::new());
}

/// The objects of one interleaving that nobody has taken yet.
struct Stock {
    /// The name of the interleaving.
    interleaving: usize,
    words: Kind<loom::sync::atomic::AtomicU64>,
    cells: Kind<loom::cell::UnsafeCell<()>>,
}

/// The objects of one kind.
struct Kind<T> {
    /// How many the next interleaving gets; 0 outside of a session.
    wanted: usize,
    most_used: usize,
    given: usize,
    left: Vec<T>,
}

/// Where an atomic or a cell keeps its loom object. All zeroes is a slot without one, so that
/// modelled structures may live in zeroed memory as the real ones do.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    /// 0 or the interleaving `object` belongs to, and with it the only thread that may touch it.
    interleaving: AtomicUsize,
    object: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: only the thread that runs the interleaving named in the slot touches the object, and no
// two threads run interleavings of one name. Loom objects are made to be shared within a model.
unsafe impl<T> Sync for Slot<T> {}
// SAFETY: as for `Sync`.
unsafe impl<T> Send for Slot<T> {}

impl<T> Slot<T> {
    /// A slot without an object.
    pub(crate) const fn new() -> Self {
        Self { interleaving: AtomicUsize::new(0), object: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The object, made by `take` if this is the first use.
    fn get(&self, take: impl FnOnce(&mut Stock) -> T) -> &T {
        STOCK.with_borrow_mut(|stock| {
            let here = stock.interleaving;
            // Relaxed: the value is this thread's own or it stops here.
            match self.interleaving.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed)
            {
                // SAFETY: the slot has just become this thread's, which does nothing else between
                // here and the end of the write.
                Ok(_) => unsafe { (*self.object.get()).write(take(stock)) },
                Err(there) => {
                    assert!(
                        here == there,
                        "an atomic or a cell outlived its interleaving: make it inside the model"
                    );
                    // SAFETY: this thread has written the object when it took the slot.
                    unsafe { (*self.object.get()).assume_init_ref() }
                }
            }
        })
    }
}

impl Slot<loom::sync::atomic::AtomicU64> {
    /// A word that began as zero.
    pub(crate) fn word(&self) -> &loom::sync::atomic::AtomicU64 {
        self.get(|stock| stock.words.take(new_word))
    }
}

impl Slot<loom::cell::UnsafeCell<()>> {
    /// What watches a cell.
    pub(crate) fn cell(&self) -> &loom::cell::UnsafeCell<()> {
        self.get(|stock| stock.cells.take(new_cell))
    }
}

fn new_word() -> loom::sync::atomic::AtomicU64 {
    loom::sync::atomic::AtomicU64::new(0)
}

fn new_cell() -> loom::cell::UnsafeCell<()> {
    loom::cell::UnsafeCell::new(())
}

/// A name no interleaving of this process has had.
fn next_interleaving() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    // Relaxed: only the addition has to be one step.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Stock {
    fn new() -> Self {
        Self { interleaving: next_interleaving(), words: Kind::new(), cells: Kind::new() }
    }

    fn start(&mut self, wanted: usize) {
        self.words = Kind { wanted, ..Kind::new() };
        self.cells = Kind { wanted, ..Kind::new() };
    }

    fn fill(&mut self) {
        self.interleaving = next_interleaving();
        self.words.fill(new_word);
        self.cells.fill(new_cell);
    }
}

impl<T> Kind<T> {
    const fn new() -> Self {
        Self { wanted: 0, most_used: 0, given: 0, left: Vec::new() }
    }

    fn fill(&mut self, make: impl FnMut() -> T) {
        if self.given != 0 {
            self.most_used = self.most_used.max(self.given - self.left.len());
            self.wanted = 2 * self.most_used + SPARE;
        }
        self.given = self.wanted;
        self.left.clear();
        self.left.extend(std::iter::repeat_with(make).take(self.wanted));
    }

    fn take(&mut self, make: impl FnOnce() -> T) -> T {
        assert!(
            self.given == 0 || !self.left.is_empty(),
            "the model uses more atomics or cells than were made for it: {} this time, at most {} \
             in an interleaving before",
            self.given,
            self.most_used
        );
        self.left.pop().unwrap_or_else(make)
    }
}
