use std::alloc::Layout;
use std::ptr::NonNull;

use crate::replay::calls_of;
use crate::{Operation, Subject, Tally};

/// A live object, or the place of one that was refused.
#[derive(Clone, Copy, Debug)]
struct Held {
    address: Option<NonNull<u8>>,
    layout: Layout,
}

/// What one operation did to the objects of a [`Playback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No object was made or resized.
    None,
    /// An object lies here, with so many bytes.
    Placed(NonNull<u8>, usize),
    /// The subject had no memory.
    Refused,
}

/// Does the operations of a [`Trace`](crate::Trace) to a subject and looks at no object: for
/// measuring, where [`Replay`](crate::Replay) is for testing.
///
/// An object that the subject refuses keeps its place among the live ones, so that the operations
/// after it mean what they meant in the program. Operations that are not in the plain form are left
/// out, and so are forks, which there is nothing to measure of.
#[derive(Debug)]
pub struct Playback<S> {
    subject: S,
    live: Vec<Held>,
    tally: Tally,
}

impl<S: Subject> Playback<S> {
    /// Begins with a subject in which nothing lives.
    pub fn new(subject: S) -> Self {
        Self { subject, live: Vec::new(), tally: Tally::default() }
    }

    /// The subject.
    pub fn subject(&mut self) -> &mut S {
        &mut self.subject
    }

    /// What lives; what was refused does not.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Does one operation.
    #[inline]
    pub fn apply(&mut self, operation: &Operation) -> Effect {
        match *operation {
            Operation::Alloc { size, align } => self.alloc(size, align, false),
            Operation::AllocZeroed { size, align } => self.alloc(size, align, true),
            Operation::Realloc { index, size } => self.realloc(index as usize, size),
            Operation::Free { index } => {
                if (index as usize) < self.live.len() {
                    let held = self.live.swap_remove(index as usize);
                    self.free(held);
                }
                Effect::None
            }
            Operation::Switch { cache } => {
                if usize::from(cache) < self.subject.caches() {
                    self.subject.switch(cache.into());
                }
                Effect::None
            }
            Operation::Restart { cache } => {
                if usize::from(cache) < self.subject.caches() {
                    self.subject.restart(cache.into());
                }
                Effect::None
            }
            Operation::Release { most } => {
                self.subject.release(most.into());
                Effect::None
            }
            Operation::Advance { microseconds } => {
                self.subject.advance(microseconds);
                Effect::None
            }
            Operation::Scavenge { pieces } => {
                self.subject.scavenge(pieces.into());
                Effect::None
            }
            Operation::OsFails { verb, after, calls } => {
                self.subject.os_fails(verb, after.into(), calls_of(calls));
                Effect::None
            }
            Operation::OsWorks => {
                self.subject.os_works();
                Effect::None
            }
            Operation::Fork
            | Operation::AllocMany { .. }
            | Operation::FreeMany { .. }
            | Operation::FreeRemote { .. } => Effect::None,
        }
    }

    /// Frees what lives, the oldest first as far as their order tells.
    pub fn finish(&mut self) {
        for held in std::mem::take(&mut self.live) {
            self.free(held);
        }
    }

    fn alloc(&mut self, size: usize, align: usize, zeroed: bool) -> Effect {
        let Ok(layout) = Layout::from_size_align(size, align) else { return Effect::None };
        let address = match zeroed {
            true => self.subject.alloc_zeroed(layout),
            false => self.subject.alloc(layout),
        };
        self.live.push(Held { address, layout });
        self.placed(address, size)
    }

    fn placed(&mut self, address: Option<NonNull<u8>>, size: usize) -> Effect {
        let Some(address) = address else { return Effect::Refused };
        self.tally.objects += 1;
        self.tally.bytes += size;
        Effect::Placed(address, size)
    }

    fn realloc(&mut self, index: usize, size: usize) -> Effect {
        let Some(held) = self.live.get_mut(index) else { return Effect::None };
        let Ok(layout) = Layout::from_size_align(size, held.layout.align()) else {
            return Effect::None;
        };
        // One that was refused may be had with another size.
        let Some(address) = held.address else {
            held.layout = layout;
            let address = self.subject.alloc(layout);
            held.address = address;
            return self.placed(address, size);
        };
        // SAFETY: the object is live with this layout, and the new size is valid.
        let moved = unsafe { self.subject.realloc(address, held.layout, size) };
        let Some(moved) = moved else { return Effect::Refused };
        self.tally.bytes = self.tally.bytes - held.layout.size() + size;
        *held = Held { address: Some(moved), layout };
        Effect::Placed(moved, size)
    }

    fn free(&mut self, held: Held) {
        let Some(address) = held.address else { return };
        self.tally.objects -= 1;
        self.tally.bytes -= held.layout.size();
        // SAFETY: the object was live with this layout, and is forgotten.
        unsafe { self.subject.free(address, held.layout) };
    }
}
