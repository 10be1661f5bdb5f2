use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_os::Geometry;

use crate::bitmap::{CHUNK_PAGE_BITS, CHUNK_PAGES};
use crate::pages::PAGE_SHIFT;
use crate::summary::{SATURATED, Summary};

/// log2 of [`FANOUT`].
const FANOUT_BITS: u32 = 3;
/// Children of a node: their summaries fill one cache line.
const FANOUT: usize = 1 << FANOUT_BITS;
/// The bits of an index that choose a child.
const CHILD: u64 = FANOUT as u64 - 1;

/// A node of the tree. Never given back; zeroed memory is a node without children.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    /// The summary of each child: of chunks in a leaf, of nodes above.
    free: [Summary; FANOUT],
    /// The node above; null in the root.
    parent: *mut Node,
    /// One bit for each child that has a free page. Most nodes above an arena have but one child.
    some: u8,
    /// The nodes below; null where there is none, and everywhere in a leaf.
    children: [*mut Node; FANOUT],
}

impl Node {
    /// Sets the summary of a child; returns whether that is a change.
    #[inline(always)]
    fn put(&mut self, index: usize, value: Summary) -> bool {
        let Some(slot) = self.free.get_mut(index) else { return false };
        if *slot == value {
            return false;
        }
        *slot = value;
        let bit = 1 << index;
        self.some = if value.is_none() { self.some & !bit } else { self.some | bit };
        true
    }

    /// The summary of the node, whose children have `pages` pages each.
    #[inline(always)]
    fn summary(&self, pages: u64) -> Summary {
        let only = self.some.trailing_zeros() as usize;
        match self.free.get(only) {
            Some(child) if self.some.is_power_of_two() => {
                child.alone(pages, only == 0, only + 1 == FANOUT)
            }
            _ => Summary::of_children(&self.free, pages),
        }
    }
}

/// Where the first fit for a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The run begins at this page.
    Page(u64),
    /// The run lies inside the chunk of this index; its bitmap says where.
    Chunk(u64),
}

/// The summaries of the whole address space, as a radix tree over the index of the chunk.
///
/// A leaf holds the summaries of 8 neighbouring chunks, each node above those of 8 nodes; how many
/// levels there are follows from the geometry's address bits (9 for 48 bits). Guarded by the
/// heap's lock.
#[derive(Debug)]
pub(crate) struct Tree<G> {
    root: *mut Node,
    /// No chunk of a lower index has a free page.
    hint: u64,
    geometry: PhantomData<fn() -> G>,
}

impl<G: Geometry> Tree<G> {
    /// Levels of nodes; the root is level 0, the leaves are the last.
    const LEVELS: u32 = {
        assert!(G::ADDRESS_BITS > PAGE_SHIFT + CHUNK_PAGE_BITS, "an address space of many chunks");
        (G::ADDRESS_BITS - PAGE_SHIFT - CHUNK_PAGE_BITS).div_ceil(FANOUT_BITS)
    };

    /// A tree of nothing.
    pub(crate) const fn new() -> Self {
        Self { root: ptr::null_mut(), hint: 0, geometry: PhantomData }
    }

    /// How many bits of a chunk index lie below the child index of a node of `level`.
    #[inline]
    const fn shift(level: u32) -> u32 {
        FANOUT_BITS * (Self::LEVELS - 1 - level)
    }

    /// The lowest chunk that may have free pages.
    #[inline]
    pub(crate) fn hint(&self) -> u64 {
        self.hint
    }

    /// The leaf of `chunk`, made with all nodes above it if need be. Nodes are cut from `memory`,
    /// which returns zeroed memory that is never given back. None if it returned none; the nodes
    /// made before stay, and hold nothing.
    pub(crate) fn insert(
        &mut self,
        chunk: u64,
        mut memory: impl FnMut(Layout) -> Option<NonNull<u8>>,
    ) -> Option<*mut Node> {
        let mut make = |parent: *mut Node| {
            let node = memory(Layout::new::<Node>())?.cast::<Node>().as_ptr();
            // SAFETY: the memory is new, zeroed (a valid node) and laid out for a node.
            unsafe { (*node).parent = parent };
            Some(node)
        };
        if self.root.is_null() {
            self.root = make(ptr::null_mut())?;
        }
        let mut node = self.root;
        for level in 0..Self::LEVELS - 1 {
            let index = (chunk >> Self::shift(level) & CHILD) as usize;
            // SAFETY: nodes are never given back, and the lock that guards the tree is held.
            let slot = unsafe { (*node).children.get_mut(index)? };
            if slot.is_null() {
                *slot = make(node)?;
            }
            node = *slot;
        }
        Some(node)
    }

    /// Says that `chunk` now has the free runs of `summary`, and updates the nodes above as far as
    /// that makes a difference to them.
    ///
    /// # Safety
    /// `leaf` came from [`insert`](Self::insert) for this chunk.
    #[inline]
    pub(crate) unsafe fn set(&mut self, leaf: *mut Node, chunk: u64, summary: Summary) {
        if !summary.is_none() {
            self.hint = self.hint.min(chunk);
        }
        let mut node = leaf;
        let mut index = chunk;
        let mut pages = CHUNK_PAGES as u64;
        let mut value = summary;
        loop {
            // SAFETY: the leaf is a node by the caller's promise and parents are nodes; nodes are
            // never given back, and the lock that guards the tree is held.
            let here = unsafe { &mut *node };
            if !here.put((index & CHILD) as usize, value) || here.parent.is_null() {
                return;
            }
            value = here.summary(pages);
            pages <<= FANOUT_BITS;
            index >>= FANOUT_BITS;
            node = here.parent;
        }
    }

    /// As [`set`](Self::set), for each of several neighbouring chunks in the order of their
    /// addresses, up to `last`. A node above is updated when its last child of them was set.
    ///
    /// # Safety
    /// As for [`set`](Self::set); the tree is not searched before `last` was set.
    pub(crate) unsafe fn set_up_to(
        &mut self,
        leaf: *mut Node,
        chunk: u64,
        last: u64,
        summary: Summary,
    ) {
        if !summary.is_none() {
            self.hint = self.hint.min(chunk);
        }
        let mut node = leaf;
        let mut index = chunk;
        let mut last = last;
        let mut pages = CHUNK_PAGES as u64;
        let mut value = summary;
        loop {
            // SAFETY: as in `set`.
            let here = unsafe { &mut *node };
            here.put((index & CHILD) as usize, value);
            let more_children_come = index != last && index & CHILD != CHILD;
            if more_children_come || here.parent.is_null() {
                return;
            }
            value = here.summary(pages);
            pages <<= FANOUT_BITS;
            index >>= FANOUT_BITS;
            last >>= FANOUT_BITS;
            node = here.parent;
        }
    }

    /// The lowest run of at least `pages` free pages; `pages` is at least 1. Raises the hint.
    pub(crate) fn first_fit(&mut self, pages: u64) -> Option<Fit> {
        if pages > SATURATED {
            let mut run = 0;
            return self.first_fit_huge_slow(self.root, 0, 0, pages, &mut run).map(Fit::Page);
        }
        let mut node = self.root;
        let mut base = 0;
        // No page below `floor` is free. It rises while the search goes into the first child that
        // has any free page.
        let mut floor = 0;
        let mut at_floor = true;
        let mut level = 0;
        while !node.is_null() {
            // SAFETY: nodes are never given back, and the lock that guards the tree is held.
            let here = unsafe { &*node };
            let child_pages = (CHUNK_PAGES as u64) << Self::shift(level);
            let mut found = None;
            let mut into = None;
            let mut first = None;
            let mut run = 0;
            for (index, child) in here.free.iter().enumerate() {
                if child.is_none() {
                    run = 0;
                    continue;
                }
                first = first.or(Some(index));
                let child_base = base + index as u64 * child_pages;
                if child.is_all() {
                    run += child_pages;
                    if run >= pages {
                        found = Some(child_base + child_pages - run);
                        break;
                    }
                    continue;
                }
                if run + child.start() >= pages {
                    found = Some(child_base - run);
                    break;
                }
                if child.longest() >= pages {
                    into = Some((index, child_base));
                    break;
                }
                run = child.end();
            }
            if at_floor {
                if let Some(first) = first {
                    floor = base + first as u64 * child_pages;
                }
                at_floor = into.is_some_and(|(index, _)| first == Some(index));
            }
            if let Some(page) = found {
                self.hint = self.hint.max(floor >> CHUNK_PAGE_BITS);
                return Some(Fit::Page(page));
            }
            let Some((index, child_base)) = into else { break };
            level += 1;
            if level == Self::LEVELS {
                self.hint = self.hint.max(floor >> CHUNK_PAGE_BITS);
                return Some(Fit::Chunk(child_base >> CHUNK_PAGE_BITS));
            }
            base = child_base;
            node = here.children.get(index).copied().unwrap_or(ptr::null_mut());
        }
        self.hint = self.hint.max(floor >> CHUNK_PAGE_BITS);
        None
    }

    /// The lowest run of more than [`SATURATED`] free pages under `node`, or one that begins with
    /// the `run` free pages before it. `run` becomes the free pages at the upper end.
    ///
    /// Goes down wherever a summary is saturated, since only there it does not say enough; that is
    /// once for each 16 GB of free runs at most, and no deeper than there are levels.
    #[cold]
    #[inline(never)]
    fn first_fit_huge_slow(
        &self,
        node: *mut Node,
        level: u32,
        base: u64,
        pages: u64,
        run: &mut u64,
    ) -> Option<u64> {
        if node.is_null() || level >= Self::LEVELS {
            *run = 0;
            return None;
        }
        // SAFETY: nodes are never given back, and the lock that guards the tree is held.
        let here = unsafe { &*node };
        let child_pages = (CHUNK_PAGES as u64) << Self::shift(level);
        for (index, child) in here.free.iter().enumerate() {
            let child_base = base + index as u64 * child_pages;
            if child.is_all() {
                *run += child_pages;
                if *run >= pages {
                    return Some(child_base + child_pages - *run);
                }
            } else if child.longest() == SATURATED {
                let below = here.children.get(index).copied().unwrap_or(ptr::null_mut());
                let found = self.first_fit_huge_slow(below, level + 1, child_base, pages, run);
                if found.is_some() {
                    return found;
                }
            } else {
                if *run + child.start() >= pages {
                    return Some(child_base - *run);
                }
                *run = child.end();
            }
        }
        None
    }

    /// The highest chunk below `limit` that has a free page.
    pub(crate) fn last_free_below(&self, limit: u64) -> Option<u64> {
        // The search begins at the highest chunk below the limit and goes up where a node has
        // nothing more to the left, down where it has.
        let mut target = limit.min(1 << (FANOUT_BITS * Self::LEVELS)).checked_sub(1)?;
        let mut node = self.root;
        let mut level = 0;
        while !node.is_null() {
            // SAFETY: nodes are never given back, and the lock that guards the tree is held.
            let here = unsafe { &*node };
            let shift = Self::shift(level);
            let end = (target >> shift & CHILD) as usize + 1;
            let last = here.free.iter().take(end).rposition(|child| !child.is_none());
            if let Some(index) = last {
                let above = target >> shift >> FANOUT_BITS << FANOUT_BITS;
                let child = above | index as u64;
                if index + 1 != end {
                    // Everything in this child lies below the target.
                    target = (child << shift) | ((1 << shift) - 1);
                }
                if level + 1 == Self::LEVELS {
                    return Some(child);
                }
                node = here.children.get(index).copied().unwrap_or(ptr::null_mut());
                level += 1;
            } else {
                // Nothing here: the target becomes the last chunk before this node.
                target = (target >> shift >> FANOUT_BITS << FANOUT_BITS << shift).checked_sub(1)?;
                node = self.root;
                level = 0;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
