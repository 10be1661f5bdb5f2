//! Models of [`CentralLists`], whole: its locks, lists, descriptors and pools.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;

use loom::thread;
use spanalloc_central::remote::Marked;
use spanalloc_central::{Central, CentralLists, Owner, Place, SpanRef, Stash};
use spanalloc_classes::{ClassTable, Rule, SizeClasses};
use spanalloc_sync::model;
use spanalloc_testkit::models::{FakePages, Futex, explored};

/// Spans of one page with two slots, or four.
#[derive(Debug)]
pub struct Parts;

impl ClassTable for Parts {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(
        &Rule { min_slots: 1, max_cut_bytes: 0, ..Rule::GO },
        &[16, 2048, 4096],
    );
}

pub const QUARTER: u8 = 2;
const HALF: u8 = 3;
const SLOTS: usize = 2;
const _: () = assert!(Parts::CLASSES.class(HALF).slots as usize == SLOTS);
const _: () = assert!(Parts::CLASSES.class(QUARTER).slots as usize == 2 * SLOTS);

pub type Lists = CentralLists<Parts, FakePages>;

/// Lists that were never used, as an image of new ones: they are larger than a model's stack.
static IMAGE: Lists = Lists::new(FakePages);

pub fn new_lists() -> Arc<Lists> {
    Futex::reset();
    FakePages::reset();
    let mut lists = Arc::<Lists>::new_uninit();
    let memory = Arc::get_mut(&mut lists).unwrap();
    // SAFETY: lists hold no pointer to themselves, need no drop, and the image is never used.
    unsafe {
        ptr::copy_nonoverlapping(&raw const IMAGE, memory.as_mut_ptr(), 1);
        lists.assume_init()
    }
}

/// What the models need of a thread cache: it owns spans, takes slots and gives them back.
#[derive(Debug)]
pub struct Agent {
    lists: Arc<Lists>,
    owner: &'static Owner,
    stash: Stash,
    spans: Vec<SpanRef>,
}

/// An object: its span and slot.
type Object = (SpanRef, usize);

impl Agent {
    pub fn new(lists: &Arc<Lists>) -> Self {
        // SAFETY: the layout is always this; owners stay until the interleaving is over.
        let owner = unsafe { lists.register(Layout::new::<Owner>()).unwrap().as_ref() };
        Self { lists: Arc::clone(lists), owner, stash: Stash::new(), spans: Vec::new() }
    }

    fn cut(&mut self) -> SpanRef {
        self.cut_of(HALF)
    }

    pub fn cut_of(&mut self, class: u8) -> SpanRef {
        let span = self.lists.cut(class, &self.owner.queue, &self.stash).unwrap();
        assert_eq!((span.used(), span.class(), span.place()), (0, class, Place::Current));
        self.spans.push(span);
        span
    }

    fn take(&mut self) -> Option<SpanRef> {
        let span = self.lists.take(HALF, &self.owner.queue)?;
        assert_eq!(span.place(), Place::Current);
        assert!(span.ownership().is(&self.owner.queue) && span.used() < span.slots());
        self.spans.push(span);
        Some(span)
    }

    /// Takes `count` slots of a span and returns how many there were.
    fn objects(&self, span: SpanRef, count: usize) -> usize {
        let mut addresses = [ptr::null_mut(); SLOTS];
        assert!(span.ownership().is(&self.owner.queue));
        // SAFETY: this agent owns the span; there is room for every slot of it.
        let taken = unsafe { span.take(addresses.as_mut_ptr(), count) };
        assert!(taken.count <= count);
        for address in &addresses[..taken.count] {
            assert_eq!((address.addr() - span.base()) % span.bytes(), 0);
        }
        taken.count
    }

    fn drain(&self) {
        for span in self.owner.queue.drain() {
            // SAFETY: only spans are queued.
            self.take_in(unsafe { SpanRef::from_descriptor(span) });
        }
    }

    fn take_in(&self, span: SpanRef) {
        assert_ne!(span.place(), Place::Pool, "a span that was given back has a token");
        // SAFETY: the token came with the span.
        unsafe {
            if span.ownership().is(&self.owner.queue) {
                assert_eq!(span.fold(), None);
            } else {
                self.lists.deliver(span);
            }
        }
    }

    fn exit(mut self) {
        for span in self.owner.queue.close() {
            // SAFETY: only spans are queued.
            self.take_in(unsafe { SpanRef::from_descriptor(span) });
        }
        for span in self.spans.drain(..) {
            // SAFETY: this agent owns the span and has closed its queue.
            unsafe {
                if span.used() == 0 {
                    self.lists.release(span, &self.stash);
                } else {
                    self.lists.give(span);
                }
            }
        }
        // SAFETY: the queue is closed and no span is owned.
        unsafe { self.lists.unregister(self.owner) };
    }
}

/// Frees an object as a thread that does not own the span.
fn free_remote(lists: &Lists, (span, slot): Object) {
    let class = span.class();
    // SAFETY: the object is freed once, and this thread gets the token.
    unsafe {
        match span.mark(slot) {
            Marked::Done => {}
            Marked::Token => {
                assert_ne!(span.place(), Place::Pool, "a span that was given back has a token");
                LATE_TOKENS.set(LATE_TOKENS.get() + usize::from(span.class() != class));
                lists.deliver(span);
            }
            Marked::Twice => panic!("freed once, found twice"),
        }
    }
}

/// The spans in use, as places and used slots.
fn spans(lists: &Lists) -> Vec<(Place, usize)> {
    let mut found = Vec::new();
    lists.for_each_span(|span| found.push((span.place(), span.used())));
    assert_eq!(found.len(), FakePages::runs(), "a span without pages, or pages without a span");
    found
}

/// Two threads of one class: one gives the span that the other could take.
pub fn give_against_take_of_the_last_span() {
    let lists = new_lists();
    let mut giver = Agent::new(&lists);
    let span = giver.cut();
    assert_eq!(giver.objects(span, 1), 1);
    let mut taker = Agent::new(&lists);
    let other = thread::spawn(move || giver.exit());
    let got = taker.take();
    other.join().unwrap();
    match got {
        Some(found) => assert_eq!((found, taker.objects(found, SLOTS)), (span, 1)),
        None => assert_eq!(spans(&lists), [(Place::Partial, 1)]),
    }
    // What was not taken then is there now, and never both.
    assert_eq!(taker.take().is_some(), got.is_none());
    assert_eq!(spans(&lists).len(), 1);
}

// Exhaustive: 26 interleavings.
#[test]
fn give_against_take() {
    explored("give and take", model::check(give_against_take_of_the_last_span), 25);
}

/// Two threads take of a class that has one span; each gives back what it got.
fn take_against_take() {
    let lists = new_lists();
    let mut first = Agent::new(&lists);
    let span = first.cut();
    assert_eq!(first.objects(span, 1), 1);
    first.exit();
    let takers = [(); 2].map(|()| {
        let mut taker = Agent::new(&lists);
        thread::spawn(move || {
            let got = taker.take();
            let objects = got.map_or(0, |span| taker.objects(span, SLOTS));
            taker.exit();
            (usize::from(got.is_some()), objects)
        })
    });
    let got = takers.map(|taker| taker.join().unwrap());
    // The slot is handed out once; the span is given full then, and cannot be taken again.
    assert_eq!(got[0].0 + got[1].0, 1);
    assert_eq!(got[0].1 + got[1].1, 1);
    assert_eq!(spans(&lists), [(Place::Full, 2)]);
}

// Bounded at 6 preemptions: 48,718 interleavings.
#[test]
fn two_threads_take_the_last_span() {
    explored("take and take", model::check_bounded(6, take_against_take), 15_000);
}

/// Two threads cut, exit and leave their spans; nobody's descriptor is anybody else's.
fn cut_and_give_twice() {
    let lists = new_lists();
    let agents = [(); 2].map(|()| {
        let mut agent = Agent::new(&lists);
        thread::spawn(move || {
            let span = agent.cut();
            agent.objects(span, 1);
            agent.exit();
            span
        })
    });
    let cut = agents.map(|agent| agent.join().unwrap());
    assert_ne!(cut[0], cut[1]);
    assert_eq!(spans(&lists), [(Place::Partial, 1); 2]);
    let mut taker = Agent::new(&lists);
    let taken = [taker.take().unwrap(), taker.take().unwrap()];
    assert!(taken == cut || taken == [cut[1], cut[0]]);
    assert_eq!(taker.take(), None);
}

// Bounded at 5 preemptions: 6,545 interleavings.
#[test]
fn two_threads_cut_and_give() {
    explored("cut and give", model::check_bounded(5, cut_and_give_twice), 6000);
}

/// Two threads free the last two objects of a span that central keeps: it leaves the full list,
/// and goes back to the heap once.
pub fn last_frees_of_an_unowned_span() {
    let lists = new_lists();
    let mut owner = Agent::new(&lists);
    let span = owner.cut();
    assert_eq!(owner.objects(span, SLOTS), SLOTS);
    owner.exit();
    assert_eq!(spans(&lists), [(Place::Full, 2)]);
    let freers = [0, 1].map(|slot| {
        let lists = Arc::clone(&lists);
        thread::spawn(move || free_remote(&lists, (span, slot)))
    });
    for freer in freers {
        freer.join().unwrap();
    }
    assert_eq!(span.unfolded(), 0, "a free was announced and never folded");
    assert_eq!(spans(&lists), []);
}

// Bounded at 5 preemptions: 136,810 interleavings; all are 1,194,462.
#[test]
fn last_frees_in_central() {
    explored("last frees", model::check_bounded(5, last_frees_of_an_unowned_span), 4000);
}

/// Objects of a span in central are freed while another thread takes it and gives it back.
fn late_free_against_take() {
    let lists = new_lists();
    let mut owner = Agent::new(&lists);
    let span = owner.cut();
    assert_eq!(owner.objects(span, SLOTS), SLOTS);
    owner.exit();
    let mut taker = Agent::new(&lists);
    let freer = {
        let lists = Arc::clone(&lists);
        thread::spawn(move || {
            free_remote(&lists, (span, 0));
            free_remote(&lists, (span, 1));
        })
    };
    if taker.take().is_some() {
        taker.drain();
    }
    taker.exit();
    freer.join().unwrap();
    assert_eq!(spans(&lists), [], "all objects are free and all owners gone");
}

// Bounded at 6 preemptions: 42,128 interleavings.
#[test]
fn late_frees_against_take() {
    explored("late frees and take", model::check_bounded(6, late_free_against_take), 10_000);
}

/// The whole life: a thread exits, two others free what it left, one of them the last object.
pub fn exit_against_late_frees() {
    let lists = new_lists();
    let mut owner = Agent::new(&lists);
    let span = owner.cut();
    assert_eq!(owner.objects(span, SLOTS), SLOTS);
    let freers = [0, 1].map(|slot| {
        let lists = Arc::clone(&lists);
        thread::spawn(move || free_remote(&lists, (span, slot)))
    });
    owner.exit();
    for freer in freers {
        freer.join().unwrap();
    }
    assert_eq!(spans(&lists), [], "all objects are free and all owners gone");
}

// Bounded at 3 preemptions: 375,042 interleavings.
#[test]
fn a_thread_exits_against_late_frees() {
    explored("exit in central", model::check_bounded(3, exit_against_late_frees), 15_000);
}

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static REUSED: Cell<usize> = const { Cell::new(0) };
    static LATE_TOKENS: Cell<usize> = const { Cell::new(0) };
}

/// As soon as a span is empty its descriptor serves the next one, of another class, whatever freers
/// still have to announce. The token of the next span may be theirs then.
pub fn descriptor_reuse_against_late_announcement() {
    let lists = new_lists();
    let mut owner = Agent::new(&lists);
    let span = owner.cut();
    assert_eq!(owner.objects(span, SLOTS), SLOTS);
    let freer = {
        let lists = Arc::clone(&lists);
        thread::spawn(move || free_remote(&lists, (span, 0)))
    };
    free_remote(&lists, (span, 1));
    owner.drain();
    if span.used() == 0 {
        owner.spans.clear();
        // SAFETY: the agent owns the span, in which no slot is used.
        unsafe { lists.release(span, &owner.stash) };
        let next = owner.cut_of(QUARTER);
        assert_eq!(next, span, "the descriptor freed last is used first");
        assert_eq!(owner.objects(next, 1), 1);
        free_remote(&lists, (next, 0));
        REUSED.set(REUSED.get() + 1);
    }
    owner.exit();
    freer.join().unwrap();
    assert_eq!(span.unfolded(), 0, "a free was announced and never folded");
    assert_eq!(spans(&lists), [], "all objects are free and all owners gone");
}

// Bounded at 3 preemptions: all interleavings take a quarter of an hour.
#[test]
fn a_descriptor_is_reused_against_a_late_announcement() {
    let interleavings = model::check_bounded(3, descriptor_reuse_against_late_announcement);
    explored("descriptor reuse", interleavings, 1_000);
    assert!(REUSED.get() > 0 && LATE_TOKENS.get() > 0);
}

/// Two threads register: each has an owner of its own, and one that left is used again.
fn two_register() {
    let lists = new_lists();
    let other = {
        let lists = Arc::clone(&lists);
        thread::spawn(move || Agent::new(&lists))
    };
    let here = Agent::new(&lists);
    let there = other.join().unwrap();
    assert!(!ptr::eq(here.owner, there.owner));
    let mut owners = 0;
    lists.for_each_owner(|_| owners += 1);
    assert_eq!(owners, 2);
    let left = here.owner;
    here.exit();
    assert!(!left.is_active());
    assert!(ptr::eq(Agent::new(&lists).owner, left));
}

// Exhaustive: 42 interleavings.
#[test]
fn two_threads_register() {
    explored("register", model::check(two_register), 40);
}
