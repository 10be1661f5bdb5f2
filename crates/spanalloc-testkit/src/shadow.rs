use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use crate::pattern;
use crate::{Tally, Violation};

/// A live object.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Where it is.
    pub address: NonNull<u8>,
    /// What it was allocated as; the size as of its last realloc.
    pub layout: Layout,
    id: u64,
}

impl Object {
    fn at(&self) -> usize {
        self.address.addr().get()
    }

    /// Bytes that are the object's alone: an object of 0 bytes has an address of its own too.
    fn extent(&self) -> usize {
        self.layout.size().max(1)
    }
}

/// What must be true of all live objects: where they are and what is in them.
///
/// Every object is filled with a [`pattern`] of its own when it is added.
#[derive(Debug, Default)]
pub struct Shadow {
    live: Vec<Object>,
    /// Sizes by address.
    extents: BTreeMap<usize, usize>,
    bytes: usize,
    next_id: u64,
    sparse: bool,
}

impl Shadow {
    /// A shadow of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same that writes and looks at no more than both ends and 64 bytes in every 64 KB of objects of
    /// more than 16 KB. Most of the time of a large object goes into the first touch of its pages.
    #[must_use]
    pub fn sparse(self) -> Self {
        Self { sparse: true, ..self }
    }

    /// What lives.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { objects: self.live.len(), bytes: self.bytes }
    }

    /// The object at `index` modulo the number of objects, and that index; None if there is none.
    #[must_use]
    pub fn choose(&self, index: usize) -> Option<(usize, Object)> {
        let index = index.checked_rem(self.live.len())?;
        Some((index, self.live[index]))
    }

    /// Enters an object that was just handed out and fills it; `zeroed` says that it must be zero
    /// before.
    ///
    /// # Errors
    /// What is wrong with the object. It is not entered then.
    ///
    /// # Safety
    /// The object may be read and written, for the size of the layout, until it is removed, and is
    /// only used through the shadow.
    pub unsafe fn add(
        &mut self,
        address: NonNull<u8>,
        layout: Layout,
        zeroed: bool,
    ) -> Result<(), Violation> {
        let object = Object { address, layout, id: self.next_id };
        self.claim(&object)?;
        if zeroed {
            let result = pattern::parts(layout.size(), self.sparse).try_for_each(|part| {
                // SAFETY: the caller's promise; an allocator that promises zeroes has written them.
                unsafe { pattern::check_zero_part(address.as_ptr(), part) }
            });
            if let Err(wrong) = result {
                self.extents.remove(&object.at());
                return Err(Violation::NotZero {
                    address: object.at(),
                    size: layout.size(),
                    offset: wrong.offset,
                    found: wrong.found,
                });
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.fill(&object) };
        self.next_id += 1;
        self.bytes += layout.size();
        self.live.push(object);
        Ok(())
    }

    /// Checks the contents of the object at `index`, which exists.
    ///
    /// # Errors
    /// [`Violation::Corrupted`].
    pub fn check(&self, index: usize) -> Result<(), Violation> {
        let object = &self.live[index];
        self.check_prefix(object, object.address, object.layout.size())
    }

    /// Checks the contents of all objects.
    ///
    /// # Errors
    /// [`Violation::Corrupted`] for one of them.
    pub fn check_all(&self) -> Result<(), Violation> {
        (0..self.live.len()).try_for_each(|index| self.check(index))
    }

    /// Checks the object at `index`, which exists, and forgets it: whoever called this frees it.
    /// The last object takes its index.
    ///
    /// # Errors
    /// [`Violation::Corrupted`]. The object is not forgotten then.
    pub fn remove(&mut self, index: usize) -> Result<Object, Violation> {
        self.check(index)?;
        let object = self.live.swap_remove(index);
        self.extents.remove(&object.at());
        self.bytes -= object.layout.size();
        Ok(object)
    }

    /// Enters that the object at `index`, which exists, was moved to `address` (which may be where
    /// it was) and is as `layout` says now. Checks what must have been kept and fills the rest.
    ///
    /// # Errors
    /// What is wrong with the object. It is forgotten then.
    ///
    /// # Safety
    /// As for [`add`](Self::add).
    pub unsafe fn moved(
        &mut self,
        index: usize,
        address: NonNull<u8>,
        layout: Layout,
    ) -> Result<(), Violation> {
        let old = self.live.swap_remove(index);
        self.extents.remove(&old.at());
        self.bytes -= old.layout.size();
        let new = Object { address, layout, id: old.id };
        self.claim(&new)?;
        self.check_prefix(&old, address, layout.size())?;
        // SAFETY: the caller's promise.
        unsafe { self.fill(&new) };
        self.bytes += layout.size();
        self.live.push(new);
        let last = self.live.len() - 1;
        self.live.swap(index, last);
        Ok(())
    }

    /// Writes the pattern of an object.
    ///
    /// # Safety
    /// The object may be written to.
    unsafe fn fill(&self, object: &Object) {
        for part in pattern::parts(object.layout.size(), self.sparse) {
            // SAFETY: the caller's promise.
            unsafe { pattern::fill(object.address.as_ptr(), part.start, part.end, object.id) };
        }
    }

    /// Whether the first `bytes` bytes, or fewer if it has not so many, of what was written to `object` are at
    /// `at` now.
    fn check_prefix(
        &self,
        object: &Object,
        at: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), Violation> {
        let result = pattern::parts(object.layout.size(), self.sparse).try_for_each(|part| {
            let end = part.end.min(bytes);
            // SAFETY: live objects may be read (contract of `add` and `moved`), and were filled.
            unsafe { pattern::check_part(at.as_ptr(), part.start.min(end)..end, object.id) }
        });
        result.map_err(|wrong| Violation::Corrupted {
            address: at.addr().get(),
            size: object.layout.size().min(bytes),
            offset: wrong.offset,
            expected: wrong.expected,
            found: wrong.found,
        })
    }

    /// Enters where an object is, if it may be there.
    fn claim(&mut self, object: &Object) -> Result<(), Violation> {
        let (address, size, align) = (object.at(), object.extent(), object.layout.align());
        if address % align != 0 {
            return Err(Violation::Misaligned { address, align });
        }
        let Some(end) = address.checked_add(size) else {
            return Err(Violation::Wraps { address, size });
        };
        if let Some((&other, &other_size)) = self.extents.range(..end).next_back() {
            if other + other_size > address {
                return Err(Violation::Overlap { address, size, other, other_size });
            }
        }
        self.extents.insert(address, size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 300_000;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    /// A sparse shadow of one large object, and its memory.
    fn sparse() -> (Shadow, Vec<u8>) {
        let mut memory = vec![0; LARGE];
        let mut shadow = Shadow::new().sparse();
        let address = NonNull::new(memory.as_mut_ptr()).unwrap();
        // SAFETY: the memory is the test's, which writes to it while the shadow does not look.
        unsafe { shadow.add(address, layout(LARGE), true) }.unwrap();
        (shadow, memory)
    }

    #[test]
    fn a_sparse_shadow_sees_both_ends_and_every_so_many_bytes() {
        let (shadow, mut memory) = sparse();
        for offset in [0, 1023, 65_536, 65_599, 262_144, LARGE - 1024, LARGE - 1] {
            memory[offset] ^= 1;
            assert!(matches!(shadow.check(0), Err(Violation::Corrupted { .. })), "{offset}");
            memory[offset] ^= 1;
            assert_eq!(shadow.check(0), Ok(()));
        }
        memory[30_000] ^= 1;
        assert_eq!(shadow.check(0), Ok(()));
    }

    #[test]
    fn a_sparse_shadow_knows_what_a_new_size_keeps() {
        for (size, lost) in [(200_000, 65_536), (LARGE + 100_000, LARGE - 1), (5000, 0)] {
            for wrong in [false, true] {
                let (mut shadow, old) = sparse();
                let mut new = vec![0; size];
                let kept = size.min(LARGE);
                new[..kept].copy_from_slice(&old[..kept]);
                new[lost] ^= u8::from(wrong);
                let address = NonNull::new(new.as_mut_ptr()).unwrap();
                // SAFETY: the memory is the test's, which does not write to it after this.
                let moved = unsafe { shadow.moved(0, address, layout(size)) };
                if wrong {
                    let seen =
                        matches!(moved, Err(Violation::Corrupted { offset, .. }) if offset == lost);
                    assert!(seen, "{size}: {moved:?}");
                } else {
                    assert_eq!(moved, Ok(()));
                    assert_eq!(shadow.tally(), Tally { objects: 1, bytes: size });
                    assert_eq!(shadow.check(0), Ok(()), "filled to the new end");
                }
            }
        }
    }
}
