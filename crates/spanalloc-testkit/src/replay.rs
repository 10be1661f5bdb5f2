use std::alloc::Layout;

use crate::{Failure, Operation, Shadow, Subject, Tally, Violation};

/// Bytes that may live at once unless [`Replay::with_budget`] says otherwise: 64 MB.
const BUDGET: usize = 64 << 20;

/// Sizes that the child of a fork allocates.
const CHILD_SIZES: [usize; 4] = [8, 100, 5000, 70_000];

/// What came of a list of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Objects allocated.
    pub allocated: usize,
    /// Objects given a new size.
    pub reallocated: usize,
    /// Objects given a new size where they were.
    pub in_place: usize,
    /// Objects freed, those left at the end included.
    pub freed: usize,
    /// Allocations and reallocations that the subject refused.
    pub refused: usize,
    /// Forks whose child found nothing wrong.
    pub forks: usize,
    /// Most objects that lived at once.
    pub peak_objects: usize,
    /// Most bytes that lived at once.
    pub peak_bytes: usize,
}

impl Summary {
    /// What came of two lists together; the peaks are those of the larger one.
    pub fn add(&mut self, other: &Self) {
        self.allocated += other.allocated;
        self.reallocated += other.reallocated;
        self.in_place += other.in_place;
        self.freed += other.freed;
        self.refused += other.refused;
        self.forks += other.forks;
        self.peak_objects = self.peak_objects.max(other.peak_objects);
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// A subject, its shadow, and what happened so far.
#[derive(Debug)]
pub struct Replay<S> {
    subject: S,
    shadow: Shadow,
    summary: Summary,
    cache: usize,
    steps: usize,
    budget: usize,
    audit_every: usize,
}

/// Does `operations` to `subject`, frees what is left, and says what came of it.
///
/// # Errors
/// The first promise that was not kept, and at which operation. Objects may still live then.
pub fn run<S: Subject>(subject: S, operations: &[Operation]) -> Result<Summary, Failure> {
    let mut replay = Replay::new(subject);
    for operation in operations {
        replay.apply(operation)?;
    }
    replay.finish()?;
    Ok(replay.summary())
}

impl<S: Subject> Replay<S> {
    /// Begins with a subject in which nothing lives.
    pub fn new(subject: S) -> Self {
        Self::with_budget(subject, BUDGET)
    }

    /// As [`new`](Self::new); allocations that would make more than `budget` bytes live are left
    /// out.
    pub fn with_budget(subject: S, budget: usize) -> Self {
        let (shadow, summary) = (Shadow::new(), Summary::default());
        Self { subject, shadow, summary, cache: 0, steps: 0, budget, audit_every: 1 }
    }

    /// The same with an audit after every so many operations instead of each, and in the end.
    #[must_use]
    pub fn audit_every(self, operations: usize) -> Self {
        Self { audit_every: operations.max(1), ..self }
    }

    /// The same with a [`sparse`](Shadow::sparse) shadow.
    #[must_use]
    pub fn sparse(self) -> Self {
        Self { shadow: self.shadow.sparse(), ..self }
    }

    /// The subject, which is not used any more.
    pub fn into_subject(self) -> S {
        self.subject
    }

    /// The subject.
    pub fn subject(&mut self) -> &mut S {
        &mut self.subject
    }

    /// What happened so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// What lives.
    pub fn tally(&self) -> Tally {
        self.shadow.tally()
    }

    /// Does one operation.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), Failure> {
        let step = self.steps;
        self.steps += 1;
        let mut result = self.dispatch(operation);
        let Tally { objects, bytes } = self.shadow.tally();
        self.summary.peak_objects = self.summary.peak_objects.max(objects);
        self.summary.peak_bytes = self.summary.peak_bytes.max(bytes);
        if self.steps % self.audit_every == 0 {
            result = result.and_then(|()| self.audit());
        }
        result.map_err(|violation| Failure { step, operation: Some(*operation), violation })
    }

    /// Frees everything, through the caches in turn.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let step = self.steps;
        let result = self.free_everything();
        result.map_err(|violation| Failure { step, operation: None, violation })
    }

    fn free_everything(&mut self) -> Result<(), Violation> {
        let caches = self.subject.caches().max(1);
        while let Some((index, _)) = self.shadow.choose(self.summary.freed) {
            self.subject.switch(self.summary.freed % caches);
            self.free(index)?;
        }
        self.subject.switch(self.cache);
        self.audit()
    }

    fn audit(&mut self) -> Result<(), Violation> {
        let tally = self.shadow.tally();
        self.subject.audit(tally).map_err(Violation::Accounts)
    }

    fn dispatch(&mut self, operation: &Operation) -> Result<(), Violation> {
        match *operation {
            Operation::Alloc { size, align } => self.alloc(size, align, false),
            Operation::AllocZeroed { size, align } => self.alloc(size, align, true),
            Operation::AllocMany { size, align, more } => {
                let refused = self.summary.refused;
                for _ in 0..=more {
                    self.alloc(size, align, false)?;
                    if self.summary.refused > refused {
                        break;
                    }
                }
                Ok(())
            }
            Operation::Realloc { index, size } => self.realloc(index as usize, size),
            Operation::Free { index } => self.free_at(index as usize),
            Operation::FreeRemote { index } => {
                self.subject.switch((self.cache + 1) % self.subject.caches().max(1));
                let result = self.free_at(index as usize);
                self.subject.switch(self.cache);
                result
            }
            Operation::FreeMany { index, more } => {
                (0..=more).try_for_each(|_| self.free_at(index as usize))
            }
            Operation::Switch { cache } => {
                self.cache = usize::from(cache) % self.subject.caches().max(1);
                self.subject.switch(self.cache);
                Ok(())
            }
            Operation::Restart { cache } => {
                self.subject.restart(usize::from(cache) % self.subject.caches().max(1));
                Ok(())
            }
            Operation::Release { most } => {
                self.subject.release(most.into());
                Ok(())
            }
            Operation::Advance { microseconds } => {
                self.subject.advance(microseconds);
                Ok(())
            }
            Operation::Scavenge { pieces } => {
                self.subject.scavenge(pieces.into());
                Ok(())
            }
            Operation::OsFails { verb, after, calls } => {
                self.subject.os_fails(verb, after.into(), calls_of(calls));
                Ok(())
            }
            Operation::OsWorks => {
                self.subject.os_works();
                Ok(())
            }
            Operation::Fork => self.fork(),
        }
    }

    /// In a child everything is a copy, so what it frees lives on in the parent.
    fn fork(&mut self) -> Result<(), Violation> {
        let Self { subject, shadow, .. } = self;
        let child = |subject: &mut S| {
            be_a_child(subject, shadow).map_err(|violation| violation.to_string())
        };
        let Some(result) = subject.fork(child) else { return Ok(()) };
        result.map_err(Violation::Child)?;
        self.summary.forks += 1;
        Ok(())
    }

    fn fits(&self, more: usize) -> bool {
        self.shadow.tally().bytes.checked_add(more).is_some_and(|sum| sum <= self.budget)
    }

    fn alloc(&mut self, size: usize, align: usize, zeroed: bool) -> Result<(), Violation> {
        let Ok(layout) = Layout::from_size_align(size, align) else { return Ok(()) };
        if !self.fits(size) {
            return Ok(());
        }
        let object = match zeroed {
            true => self.subject.alloc_zeroed(layout),
            false => self.subject.alloc(layout),
        };
        let Some(object) = object else {
            self.summary.refused += 1;
            return Ok(());
        };
        self.summary.allocated += 1;
        // SAFETY: the contract of `Subject`; only the shadow uses the object.
        unsafe { self.shadow.add(object, layout, zeroed) }
    }

    fn realloc(&mut self, index: usize, size: usize) -> Result<(), Violation> {
        let Some((index, object)) = self.shadow.choose(index) else { return Ok(()) };
        let Ok(layout) = Layout::from_size_align(size, object.layout.align()) else {
            return Ok(());
        };
        if !self.fits(size) {
            return Ok(());
        }
        self.shadow.check(index)?;
        // SAFETY: the object is live with this layout, and the new size is valid.
        match unsafe { self.subject.realloc(object.address, object.layout, size) } {
            None => {
                self.summary.refused += 1;
                self.shadow.check(index)
            }
            Some(address) => {
                self.summary.reallocated += 1;
                self.summary.in_place += usize::from(address == object.address);
                // SAFETY: the contract of `Subject`; only the shadow uses the object.
                unsafe { self.shadow.moved(index, address, layout) }
            }
        }
    }

    fn free_at(&mut self, index: usize) -> Result<(), Violation> {
        match self.shadow.choose(index) {
            Some((index, _)) => self.free(index),
            None => Ok(()),
        }
    }

    fn free(&mut self, index: usize) -> Result<(), Violation> {
        let object = self.shadow.remove(index)?;
        self.summary.freed += 1;
        // SAFETY: the object was live with this layout, and the shadow has forgotten it.
        unsafe { self.subject.free(object.address, object.layout) };
        Ok(())
    }
}

/// As many calls to the system as an operation says.
pub(crate) fn calls_of(calls: u16) -> usize {
    if calls == Operation::FOR_GOOD { usize::MAX } else { calls.into() }
}

/// What the child of a fork does: all objects are as they were, there is memory for others, and all of
/// them can be freed.
fn be_a_child<S: Subject>(subject: &mut S, shadow: &mut Shadow) -> Result<(), Violation> {
    shadow.check_all()?;
    for size in CHILD_SIZES {
        let Ok(layout) = Layout::from_size_align(size, 16) else { continue };
        for zeroed in [false, true] {
            let object = if zeroed { subject.alloc_zeroed(layout) } else { subject.alloc(layout) };
            if let Some(object) = object {
                // SAFETY: the contract of `Subject`; only the shadow uses the object.
                unsafe { shadow.add(object, layout, zeroed)? };
            }
        }
    }
    subject.audit(shadow.tally()).map_err(Violation::Accounts)?;
    while let Some((index, _)) = shadow.choose(0) {
        let object = shadow.remove(index)?;
        // SAFETY: the object was live with this layout, and the shadow has forgotten it.
        unsafe { subject.free(object.address, object.layout) };
    }
    subject.audit(shadow.tally()).map_err(Violation::Accounts)
}
