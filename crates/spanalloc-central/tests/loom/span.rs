//! A span made of the production kernels, with everything that is not atomic in watched cells.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Plain};

use spanalloc_central::handover::{Owned, Ownership, Stranded, deliver};
use spanalloc_central::queue::{Linked, Queue};
use spanalloc_central::remote::{Balance, Marked};
use spanalloc_sync::atomic::{AtomicPtr, AtomicU64};
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_sync::{Lock, rank};
use spanalloc_testkit::models::Futex;

/// Slots of a span.
pub const SLOTS: usize = 3;
/// The free bitmap of a span in which no slot is used.
pub const ALL: u64 = (1 << SLOTS) - 1;

/// How often something rare happened in the models of a test, which are worth nothing without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// A token waited with its span for the owner to hand it over.
    pub stranded: usize,
    /// An object of the next span of a descriptor was freed by a freer of the last one.
    pub freed_after_reuse: usize,
}

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static SEEN: RefCell<Seen> = RefCell::default();
}

pub fn saw(what: impl FnOnce(&mut Seen)) {
    SEEN.with_borrow_mut(what);
}

pub fn seen() -> Seen {
    SEEN.with_borrow(|seen| *seen)
}

/// What the holder of a span has for itself.
#[derive(Debug)]
pub struct Holder {
    /// One bit a slot, set while it is free.
    pub free: u64,
    /// How often the span was given back with no slot used.
    pub recycled: usize,
}

#[derive(Debug)]
pub struct Span {
    link: AtomicPtr<Span>,
    ownership: Ownership<Span>,
    stranded: Stranded,
    balance: Balance,
    marks: [AtomicU64; 1],
    holder: UnsafeCell<Holder>,
    /// The memory of the slots, used by whoever has the object.
    objects: [UnsafeCell<u32>; SLOTS],
    /// Whether somebody has the token. Not part of the model: it changes in one step with what
    /// comes before it.
    token: AtomicBool,
    /// Tokens handed out, marks refused and slots found free by a fold.
    pub tokens: AtomicUsize,
    pub refused: AtomicUsize,
    pub found_free: AtomicUsize,
}

// SAFETY: the cells are what the model checks; loom reports every racing access to one.
unsafe impl Sync for Span {}
// SAFETY: as above.
unsafe impl Send for Span {}

// SAFETY: one field of an entry that stays where it is as long as its world.
unsafe impl Linked for Span {
    unsafe fn link<'a>(entry: NonNull<Self>) -> &'a AtomicPtr<Self> {
        // SAFETY: an entry of the world, which outlives the model's threads.
        &unsafe { entry.as_ref() }.link
    }
}

// SAFETY: as above.
unsafe impl Owned for Span {
    unsafe fn ownership<'a>(span: NonNull<Self>) -> &'a Ownership<Self> {
        // SAFETY: as above.
        &unsafe { span.as_ref() }.ownership
    }

    unsafe fn stranded<'a>(span: NonNull<Self>) -> &'a Stranded {
        // SAFETY: as above.
        &unsafe { span.as_ref() }.stranded
    }
}

impl Span {
    /// A span that nobody owns, with these slots free.
    fn new(free: u64) -> Self {
        Self {
            link: AtomicPtr::new(std::ptr::null_mut()),
            ownership: Ownership::new(),
            stranded: Stranded::new(),
            balance: Balance::new(),
            marks: [AtomicU64::new(0)],
            holder: UnsafeCell::new(Holder { free, recycled: 0 }),
            objects: [const { UnsafeCell::new(0) }; SLOTS],
            token: AtomicBool::new(false),
            tokens: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            found_free: AtomicUsize::new(0),
        }
    }

    /// What only the holder may look at.
    pub fn held<R>(&self, look: impl FnOnce(&mut Holder) -> R) -> R {
        // SAFETY: loom reports every other access in the meantime.
        self.holder.with_mut(|holder| look(unsafe { &mut *holder }))
    }

    pub fn free(&self) -> u64 {
        self.held(|holder| holder.free)
    }

    /// Takes a slot that is free, as the holder, and uses its object.
    pub fn take(&self, slot: usize) -> bool {
        let taken = self.held(|holder| {
            let free = holder.free >> slot & 1 != 0;
            holder.free &= !(1 << slot);
            free
        });
        if taken {
            self.use_object(slot);
        }
        taken
    }

    fn use_object(&self, slot: usize) {
        // SAFETY: loom reports every other access that is not ordered with this one.
        self.objects[slot].with_mut(|object| unsafe { *object += 1 });
    }

    /// Takes in what others freed, as the holder with the token.
    pub fn fold(&self) {
        assert!(self.token.load(Plain::Relaxed), "a fold without the token");
        let holder = self.holder.claim();
        let mut found_free = 0;
        self.balance.fold(&self.marks, |_, value| {
            // SAFETY: the claim is alive.
            let holder = unsafe { &mut *holder.as_ptr() };
            found_free += (holder.free & value).count_ones() as usize;
            holder.free |= value;
            value.count_ones()
        });
        // The token ends with the last step of the fold; this is still that step.
        self.token.store(false, Plain::Relaxed);
        self.found_free.fetch_add(found_free, Plain::Relaxed);
    }

    /// Gives a span without used slots back to the heap, if it is one: from here on the descriptor
    /// is another span's.
    pub fn recycle(&self) -> bool {
        let recycled = self.held(|holder| {
            holder.recycled += usize::from(holder.free == ALL);
            holder.free == ALL
        });
        assert!(!recycled || !self.token.load(Plain::Relaxed), "a recycled span has a token");
        recycled
    }

    /// Whether everything is as it should be when nobody is inside: no token, nothing announced.
    pub fn check_quiet(&self) {
        assert!(!self.token.load(Plain::Relaxed), "a token was lost");
        assert_eq!(self.balance.unfolded(), 0, "a free was announced and never folded");
        assert!(!self.stranded.take(), "a token waits for ever");
    }
}

/// The spans of one class that have no owner, under its lock.
#[derive(Debug, Default)]
pub struct Central {
    listed: [bool; 2],
}

/// Two owners, two spans and their class.
#[derive(Debug)]
pub struct World {
    pub class: Lock<Central, Futex, { rank::CENTRAL }>,
    pub queues: [Queue<Span>; 2],
    pub spans: [Span; 2],
}

impl World {
    /// Two spans with these free slots, owned by the first owner.
    pub fn new(free: [u64; 2]) -> Arc<Self> {
        Futex::reset();
        let world = Self {
            class: Lock::new(Central::default()),
            queues: [const { Queue::new() }; 2],
            spans: free.map(Span::new),
        };
        let world = Arc::new(world);
        for span in &world.spans {
            span.ownership.claim(&world.queues[0]);
        }
        world
    }

    fn number(&self, span: NonNull<Span>) -> usize {
        self.spans
            .iter()
            .position(|each| NonNull::from(each) == span)
            .expect("a span of this world")
    }

    /// Frees an object as a thread that does not own the span.
    pub fn free(&self, span: usize, slot: usize) {
        self.spans[span].use_object(slot);
        self.free_again(span, slot);
    }

    /// Frees an object that may be free already, and so may not be used any more.
    pub fn free_again(&self, number: usize, slot: usize) {
        let span = &self.spans[number];
        match span.balance.mark(&span.marks[0], 1 << slot, 1) {
            Marked::Done => {}
            Marked::Twice => _ = span.refused.fetch_add(1, Plain::Relaxed),
            Marked::Token => {
                let before = span.token.swap(true, Plain::Relaxed);
                assert!(!before, "two tokens of one span");
                span.tokens.fetch_add(1, Plain::Relaxed);
                self.deliver(span.into());
            }
        }
    }

    pub fn deliver(&self, span: NonNull<Span>) {
        let number = self.number(span);
        assert!(self.spans[number].token.load(Plain::Relaxed), "delivered without the token");
        // SAFETY: this thread has the token; the lock is that of the span's class.
        unsafe {
            deliver(span, &self.class, |central, _| {
                assert!(central.listed[number], "folded under the lock, but not there");
                self.spans[number].fold();
                central.listed[number] = !self.spans[number].recycle();
            });
        }
    }

    /// As the first (0) or second (1) owner: folds a span that was queued, or sends it on.
    pub fn take_in(&self, owner: usize, span: NonNull<Span>) {
        let number = self.number(span);
        if self.spans[number].ownership.is(&self.queues[owner]) {
            self.spans[number].fold();
        } else {
            self.deliver(span);
        }
    }

    pub fn drain(&self, owner: usize) {
        for span in self.queues[owner].drain() {
            self.take_in(owner, span);
        }
    }

    /// As an owner that leaves: closes the queue and hands its spans over.
    pub fn exit(&self, owner: usize) {
        for span in self.queues[owner].close() {
            self.take_in(owner, span);
        }
        for (number, span) in self.spans.iter().enumerate() {
            if span.ownership.is(&self.queues[owner]) {
                self.hand_over(number, span);
            }
        }
    }

    fn hand_over(&self, number: usize, span: &Span) {
        if span.recycle() {
            // Nobody has the token of a span without used slots.
            span.ownership.disclaim();
            return;
        }
        let mut central = self.class.lock();
        span.ownership.disclaim();
        if span.stranded.take() {
            span.fold();
            saw(|seen| seen.stranded += 1);
        }
        central.listed[number] = !span.recycle();
    }

    /// Takes a span from central, if it is there.
    pub fn adopt(&self, number: usize, owner: usize) -> bool {
        let mut central = self.class.lock();
        let listed = std::mem::take(&mut central.listed[number]);
        if listed {
            self.spans[number].ownership.claim(&self.queues[owner]);
        }
        listed
    }

    /// When all other threads are done: every owner takes in what it was sent, and then every span
    /// is as said, and quiet.
    pub fn check_end(&self, free: [u64; 2]) {
        while self.queues.iter().any(|queue| !queue.is_empty()) {
            for owner in 0..2 {
                if !self.queues[owner].is_empty() {
                    self.drain(owner);
                }
            }
        }
        for (span, free) in self.spans.iter().zip(free) {
            span.check_quiet();
            assert_eq!(span.free(), free, "a slot was lost");
        }
    }
}
