//! The model, and one step of both. The fuzz target `central` uses it too.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};

use spanalloc_central::remote::Marked;
use spanalloc_central::{
    Central, CentralLists, Owner, Place, Put, SpanRef, Stash, TINY, TINY_BYTES, TinyDrop,
};
use spanalloc_classes::{ClassTable, Rule, SizeClasses};
use spanalloc_os::OsSource;
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};

use super::operation::Operation;

mod large;

/// Owners of spans.
pub const OWNERS: usize = 3;

/// Few slots in a span, so that spans are often full and often empty.
#[derive(Debug)]
struct Few;

impl ClassTable for Few {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(
        &Rule { min_slots: 1, max_cut_bytes: 0, ..Rule::GO },
        &[16, 1024, 4096, 32768],
    );
}

/// The classes used: tiny ones with 512 slots in a span, then 8, 2 and 1.
pub const CLASSES: [u8; 4] = [TINY, 2, 3, 4];

/// What the model knows of a used slot: how many objects live in it, and how many more frees wait
/// for a fold. A slot that is not tiny has one object.
#[derive(Clone, Copy, Debug)]
struct Slot {
    live: u8,
    marked: u8,
}

#[derive(Debug)]
struct Known {
    span: SpanRef,
    owner: Option<usize>,
    slots: BTreeMap<usize, Slot>,
}

impl Known {
    fn marks(&self) -> usize {
        self.slots.values().map(|slot| usize::from(slot.marked)).sum()
    }

    /// What a fold does.
    fn fold(&mut self) {
        for slot in self.slots.values_mut() {
            slot.marked = 0;
        }
        self.slots.retain(|_, slot| slot.live > 0);
    }
}

struct Member {
    owner: &'static Owner,
    stash: Stash,
    /// Spans whose tokens were delivered, oldest first.
    queued: Vec<usize>,
    closed: bool,
}

/// The lists, and all that the model knows of them.
pub struct Run<'a, O: OsSource> {
    heap: &'a PageHeap<O>,
    lists: CentralLists<Few, &'a PageHeap<O>>,
    members: Vec<Member>,
    /// By the address of the first byte.
    spans: BTreeMap<usize, Known>,
    /// The spans that central can hand out, the next one last.
    partial: BTreeMap<u8, Vec<usize>>,
    /// Objects that live: an entry each, so a tiny slot may be here several times.
    objects: Vec<(usize, usize)>,
    /// Tokens that this test has not delivered yet, by span.
    tokens: Vec<usize>,
    large: Vec<SpanRef>,
}

fn word_of(address: usize) -> *mut u64 {
    ptr::with_exposed_provenance_mut(address)
}

/// What is written to a slot while it is used.
fn value_of(address: usize) -> u64 {
    (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn pick<T: Copy>(from: &[T], number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[number % from.len()])
}

impl<'a, O: OsSource> Run<'a, O> {
    pub fn new(heap: &'a PageHeap<O>) -> Self {
        let lists = CentralLists::new(heap);
        let mut run = Self {
            heap,
            lists,
            members: Vec::new(),
            spans: BTreeMap::new(),
            partial: BTreeMap::new(),
            objects: Vec::new(),
            tokens: Vec::new(),
            large: Vec::new(),
        };
        run.members = (0..OWNERS).map(|_| run.member()).collect();
        run
    }

    fn member(&self) -> Member {
        // SAFETY: the layout is always this one; owners stay as long as the heap's source.
        let owner = unsafe { self.lists.register(Layout::new::<Owner>()).unwrap().as_ref() };
        assert!(owner.is_active() && owner.queue.is_empty());
        Member { owner, stash: Stash::new(), queued: Vec::new(), closed: false }
    }

    fn owned(&self, owner: usize) -> Vec<usize> {
        self.spans
            .iter()
            .filter(|(_, known)| known.owner == Some(owner))
            .map(|(at, _)| *at)
            .collect()
    }

    pub fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Cut { owner, class } => self.cut(owner, CLASSES[class]),
            Operation::Take { owner, class } => self.take(owner, CLASSES[class]),
            Operation::Slots { owner, span, count } => {
                if let Some(at) = pick(&self.owned(owner), span) {
                    self.take_slots(at, count);
                }
            }
            Operation::Free { owner, object } => {
                if !self.objects.is_empty() {
                    let object = self.objects.swap_remove(object % self.objects.len());
                    self.free(Some(owner), object);
                }
            }
            Operation::FreeAgain { span, slot } => self.free_again(span, slot),
            Operation::Deliver { token } => {
                if !self.tokens.is_empty() {
                    let at = self.tokens.swap_remove(token % self.tokens.len());
                    self.deliver(at);
                }
            }
            Operation::Drain { owner } => self.drain(owner),
            Operation::Release { owner, span } => {
                let mut empty = self.owned(owner);
                empty.retain(|at| self.spans[at].slots.is_empty());
                if let Some(at) = pick(&empty, span) {
                    self.release(owner, at);
                }
            }
            Operation::Close { owner } => self.close(owner),
            Operation::HandOver { owner } => self.hand_over(owner),
            Operation::AllocLarge { pages, align } => self.alloc_large(pages, 1 << align),
            Operation::FreeLarge { object } => {
                if !self.large.is_empty() {
                    let span = self.large.swap_remove(object % self.large.len());
                    self.free_large(span);
                }
            }
            Operation::ResizeLarge { object, pages } => {
                if let Some(span) = pick(&self.large, object) {
                    self.resize_large(span, pages);
                }
            }
        }
    }

    fn cut(&mut self, owner: usize, class: u8) {
        let member = &self.members[owner];
        if member.closed {
            return;
        }
        let span = self.lists.cut(class, &member.owner.queue, &member.stash).unwrap();
        let slot_bytes = if class == TINY { 16 } else { Few::CLASSES.class(class).bytes as usize };
        assert_eq!((span.class(), span.bytes(), span.used()), (class, slot_bytes, 0));
        assert_eq!(span.place(), Place::Current);
        let known = Known { span, owner: Some(owner), slots: BTreeMap::new() };
        assert!(self.spans.insert(span.base(), known).is_none(), "pages in two hands");
    }

    fn take(&mut self, owner: usize, class: u8) {
        let member = &self.members[owner];
        if member.closed {
            return;
        }
        let expected = self.partial.entry(class).or_default().pop();
        let taken = self.lists.take(class, &member.owner.queue);
        assert_eq!(taken.map(|span| span.base()), expected);
        if let Some(span) = taken {
            assert_eq!(span.place(), Place::Current);
            self.spans.get_mut(&span.base()).unwrap().owner = Some(owner);
        }
    }

    fn take_slots(&mut self, at: usize, count: usize) {
        let known = self.spans.get_mut(&at).unwrap();
        let span = known.span;
        let mut out = vec![ptr::null_mut(); count];
        // SAFETY: the owner's part of the test; there is room.
        let taken = unsafe { span.take(out.as_mut_ptr(), count) };
        assert_eq!(taken.count, count.min(span.slots() - known.slots.len()));
        for (index, slot) in out[..taken.count].iter().rev().enumerate() {
            let address = slot.addr();
            let number = span.slot_of(address);
            assert_eq!(span.address_of(number), address);
            assert!(number < span.slots());
            // SAFETY: the slot is the test's from now on, and holds a word.
            unsafe {
                let word = word_of(address);
                assert!(!taken.zeroed || *word == 0, "said to be zero");
                *word = value_of(address);
            }
            let live = if span.class() == TINY { 1 + index as u8 % 3 } else { 1 };
            if span.class() == TINY {
                // SAFETY: the model's owner holds the span, which is tiny and has the slot.
                unsafe { span.add_tiny(number, live) };
            }
            let before = known.slots.insert(number, Slot { live, marked: 0 });
            assert!(before.is_none(), "a slot in two hands");
            self.objects.extend([(at, number)].repeat(live.into()));
        }
    }

    /// Frees an object, as `owner` or as a thread that owns nothing.
    fn free(&mut self, owner: Option<usize>, (at, number): (usize, usize)) {
        let known = self.spans.get_mut(&at).unwrap();
        let span = known.span;
        let address = span.address_of(number);
        // SAFETY: the object's slot was not free until now.
        assert_eq!(unsafe { *word_of(address) }, value_of(address), "a slot in two hands");
        assert_eq!(self.lists.span_at(address + span.bytes() - 1), Some(span));
        let marks = known.marks();
        let slot = known.slots.get_mut(&number).unwrap();
        slot.live -= 1;
        if owner.is_some() && owner == known.owner {
            let dead = slot.live == 0 && slot.marked == 0;
            if span.class() == TINY {
                // SAFETY: as where it was added.
                let dropped = unsafe { span.drop_tiny(number, 1) };
                assert_eq!(dropped, if dead { TinyDrop::Dead } else { TinyDrop::Live });
            }
            if dead {
                known.slots.remove(&number);
                // SAFETY: the owner's part of the test; nothing lives in the slot.
                assert_ne!(unsafe { span.put(number) }, Put::Twice);
            }
            return;
        }
        slot.marked += 1;
        // SAFETY: the object was freed once.
        let marked = unsafe {
            if span.class() == TINY { span.mark_tiny(number) } else { span.mark(number) }
        };
        assert_eq!(marked, if marks == 0 { Marked::Token } else { Marked::Done });
        if marked == Marked::Token {
            self.tokens.push(at);
        }
    }

    /// Frees a slot that is free already, or marked.
    fn free_again(&mut self, span: usize, slot: usize) {
        let spans: Vec<_> = self.spans.keys().copied().collect();
        let Some(known) = pick(&spans, span).map(|at| &self.spans[&at]) else { return };
        let slot = slot % known.span.slots();
        if known.span.class() == TINY {
            return;
        }
        match known.slots.get(&slot) {
            // SAFETY: misuse that changes nothing.
            None => unsafe {
                assert_eq!(known.span.put(slot), Put::Twice);
                assert_eq!(known.span.mark(slot), Marked::Twice);
            },
            Some(Slot { marked: 1, .. }) => {
                // SAFETY: as above.
                assert_eq!(unsafe { known.span.mark(slot) }, Marked::Twice);
            }
            Some(_) => {}
        }
    }

    fn deliver(&mut self, at: usize) {
        let known = self.spans.get_mut(&at).unwrap();
        // SAFETY: the test has the token.
        unsafe { self.lists.deliver(known.span) };
        match known.owner {
            Some(owner) if self.members[owner].closed => {}
            Some(owner) => self.members[owner].queued.push(at),
            None => {
                known.fold();
                self.partial.entry(known.span.class()).or_default().retain(|each| *each != at);
                self.settle(at);
            }
        }
    }

    /// A span without an owner is where the number of its used slots says.
    fn settle(&mut self, at: usize) {
        let known = self.spans.get_mut(&at).unwrap();
        known.owner = None;
        if known.slots.is_empty() {
            self.gone(at);
        } else if known.slots.len() < known.span.slots() {
            assert_eq!(known.span.place(), Place::Partial);
            self.partial.entry(known.span.class()).or_default().push(at);
        } else {
            assert_eq!(known.span.place(), Place::Full);
        }
    }

    fn gone(&mut self, at: usize) {
        let known = self.spans.remove(&at).unwrap();
        assert!(known.slots.is_empty());
        assert_eq!(known.span.place(), Place::Pool);
        assert_eq!(self.lists.span_at(at), None);
    }

    fn drain(&mut self, owner: usize) {
        if !self.members[owner].closed {
            let drained = self.members[owner].owner.queue.drain();
            self.take_in(owner, drained.collect());
        }
    }

    fn take_in(&mut self, owner: usize, drained: Vec<NonNull<spanalloc_central::Span>>) {
        let queued = std::mem::take(&mut self.members[owner].queued);
        let expected = queued.iter().rev().map(|at| self.spans[at].span.as_ptr());
        assert_eq!(drained, expected.collect::<Vec<_>>());
        for at in queued.iter().rev() {
            let known = self.spans.get_mut(at).unwrap();
            assert_eq!(known.owner, Some(owner));
            // SAFETY: the owner's part of the test; the token came off the queue.
            assert_eq!(unsafe { known.span.fold() }, None);
            known.fold();
        }
    }

    fn release(&mut self, owner: usize, at: usize) {
        let span = self.spans[&at].span;
        // SAFETY: the owner's part of the test; no slot is used.
        unsafe { self.lists.release(span, &self.members[owner].stash) };
        self.gone(at);
    }

    fn close(&mut self, owner: usize) {
        if !self.members[owner].closed {
            let drained = self.members[owner].owner.queue.close();
            self.take_in(owner, drained.collect());
            self.members[owner].closed = true;
        }
    }

    fn hand_over(&mut self, owner: usize) {
        self.close(owner);
        for at in self.owned(owner) {
            let known = self.spans.get_mut(&at).unwrap();
            if known.slots.is_empty() {
                self.release(owner, at);
                continue;
            }
            // A token that is still in the test's hands finds the span in central.
            let waits = !self.tokens.contains(&at);
            // SAFETY: the owner's part of the test; its queue is closed.
            unsafe { self.lists.give(known.span) };
            if waits {
                known.fold();
            }
            self.settle(at);
        }
        let member = &self.members[owner];
        // SAFETY: the owner owns nothing, and its queue is closed.
        unsafe {
            self.lists.flush(&member.stash);
            self.lists.unregister(member.owner);
        }
        assert!(!member.owner.is_active());
        let left = member.owner;
        self.members[owner] = self.member();
        assert!(ptr::eq(self.members[owner].owner, left), "the owner that left last comes first");
    }

    /// Whether all numbers are as the model says.
    pub fn check(&self) {
        for known in self.spans.values() {
            let span = known.span;
            assert_eq!((span.used(), span.unfolded()), (known.slots.len(), known.marks()));
            for (index, member) in self.members.iter().enumerate() {
                assert_eq!(span.ownership().is(&member.owner.queue), known.owner == Some(index));
            }
            if span.class() == TINY {
                let live: usize = known.slots.values().map(|slot| usize::from(slot.live)).sum();
                assert_eq!(span.tiny_objects(), live);
            }
        }
        let mut spans = 0;
        self.lists.for_each_span(|_| spans += 1);
        assert_eq!(spans, self.spans.len() + self.large.len());
        let stats = self.heap.stats();
        let cached: usize = self.members.iter().map(|member| member.stash.free_pages()).sum();
        let spans = self.spans.values().map(|known| known.span).chain(self.large.iter().copied());
        assert_eq!(stats.pages_in_use, spans.map(SpanRef::pages).sum::<usize>() + cached);
    }

    /// Frees every object, delivers every token, ends every owner: nothing is left.
    pub fn finish(&mut self) {
        for owner in 0..OWNERS {
            if owner % 2 == 0 {
                self.hand_over(owner);
            }
        }
        for object in std::mem::take(&mut self.objects) {
            self.free(None, object);
        }
        while let Some(at) = self.tokens.pop() {
            self.deliver(at);
        }
        for span in std::mem::take(&mut self.large) {
            self.free_large(span);
        }
        for owner in 0..OWNERS {
            self.hand_over(owner);
        }
        self.check();
        assert!(self.spans.is_empty());
        let stats = self.heap.stats();
        assert_eq!(stats.pages_in_use, 0);
        assert_eq!(stats.pages_free * PAGE_BYTES, stats.reserved);
        let mut owners = 0;
        self.lists.for_each_owner(|_| owners += 1);
        assert_eq!(owners, OWNERS, "owners are used again");
    }
}

const _: () = assert!(TINY_BYTES == 16 && Few::CLASSES.class_of(TINY_BYTES) == 1);
