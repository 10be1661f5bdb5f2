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
}

impl Shadow {
    /// A shadow of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
            // SAFETY: the caller's promise; an allocator that promises zeroes has written them.
            let result = unsafe { pattern::check_zero(address.as_ptr(), layout.size()) };
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
        unsafe { pattern::fill(address.as_ptr(), 0, layout.size(), object.id) };
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
        Self::check_prefix(object, object.address, object.layout.size())
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
    /// it was) and has `size` bytes now. Checks what must have been kept and fills the rest.
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
        size: usize,
    ) -> Result<(), Violation> {
        let old = self.live.swap_remove(index);
        self.extents.remove(&old.at());
        self.bytes -= old.layout.size();
        let kept = old.layout.size().min(size);
        let Ok(layout) = Layout::from_size_align(size, old.layout.align()) else {
            return Err(Violation::Wraps { address: address.addr().get(), size });
        };
        let new = Object { address, layout, id: old.id };
        self.claim(&new)?;
        Self::check_prefix(&new, address, kept)?;
        // SAFETY: the caller's promise.
        unsafe { pattern::fill(address.as_ptr(), kept, size, new.id) };
        self.bytes += size;
        self.live.push(new);
        let last = self.live.len() - 1;
        self.live.swap(index, last);
        Ok(())
    }

    fn check_prefix(object: &Object, at: NonNull<u8>, bytes: usize) -> Result<(), Violation> {
        // SAFETY: live objects may be read (contract of `add` and `moved`), and were filled.
        let result = unsafe { pattern::check(at.as_ptr(), bytes, object.id) };
        result.map_err(|wrong| Violation::Corrupted {
            address: object.at(),
            size: object.layout.size(),
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
