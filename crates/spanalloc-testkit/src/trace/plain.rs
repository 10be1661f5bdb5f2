//! The plain form of operations.

use std::alloc::Layout;

use super::Trace;
use crate::Operation;

/// Whether a trace may ask for this.
pub(super) fn is_sound(size: usize, align: usize) -> bool {
    size <= Trace::MOST_BYTES && Layout::from_size_align(size, align).is_ok()
}

pub(super) fn plain(caches: u16, operations: &[Operation]) -> Vec<Operation> {
    let mut plain = Plain { caches, cache: 0, aligns: Vec::new(), operations: Vec::new() };
    for operation in operations {
        plain.add(operation);
    }
    plain.operations
}

struct Plain {
    caches: u16,
    cache: u16,
    /// Of the live objects, in their order.
    aligns: Vec<usize>,
    operations: Vec<Operation>,
}

impl Plain {
    fn add(&mut self, operation: &Operation) {
        match *operation {
            Operation::Alloc { size, align } | Operation::AllocZeroed { size, align } => {
                if is_sound(size, align) {
                    self.aligns.push(align);
                    self.operations.push(*operation);
                }
            }
            Operation::AllocMany { size, align, more } => {
                (0..=more).for_each(|_| self.add(&Operation::Alloc { size, align }));
            }
            Operation::Realloc { index, size } => {
                let Some(index) = self.choose(index) else { return };
                if is_sound(size, self.aligns[index as usize]) {
                    self.operations.push(Operation::Realloc { index, size });
                }
            }
            Operation::Free { index } => {
                let Some(index) = self.choose(index) else { return };
                self.aligns.swap_remove(index as usize);
                self.operations.push(Operation::Free { index });
            }
            Operation::FreeMany { index, more } => {
                (0..=more).for_each(|_| self.add(&Operation::Free { index }));
            }
            Operation::FreeRemote { index } => {
                if !self.aligns.is_empty() {
                    let own = self.cache;
                    self.switch((u32::from(own) + 1) % u32::from(self.caches));
                    self.add(&Operation::Free { index });
                    self.switch(own.into());
                }
            }
            Operation::Switch { cache } => self.switch(u32::from(cache % self.caches)),
            Operation::Restart { cache } => {
                self.operations.push(Operation::Restart { cache: cache % self.caches });
            }
            Operation::Release { most: 0 }
            | Operation::Advance { microseconds: 0 }
            | Operation::Scavenge { pieces: 0 } => {}
            Operation::OsFails { verb, .. } if Operation::verb_number(verb).is_none() => {}
            Operation::Release { .. }
            | Operation::Advance { .. }
            | Operation::Scavenge { .. }
            | Operation::OsFails { .. }
            | Operation::OsWorks
            | Operation::Fork => {
                self.operations.push(*operation);
            }
        }
    }

    fn choose(&self, index: u32) -> Option<u32> {
        let live = u32::try_from(self.aligns.len()).unwrap_or(u32::MAX);
        index.checked_rem(live)
    }

    fn switch(&mut self, cache: u32) {
        // Below the number of caches, which fits.
        let cache = cache as u16;
        if cache != self.cache {
            self.cache = cache;
            self.operations.push(Operation::Switch { cache });
        }
    }
}
