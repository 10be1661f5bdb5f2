/// One thing a program does to its allocator.
///
/// An operation holds no addresses, so that a list of them means the same in every run: an `index`
/// counts the live objects in the order the [`Shadow`](crate::Shadow) keeps them and a `cache` the
/// caches of the [`Subject`](crate::Subject), both modulo how many there are. What cannot be done
/// (a free when nothing lives) does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Allocates `size` bytes, 0 included.
    Alloc {
        /// Bytes.
        size: usize,
        /// A power of two.
        align: usize,
    },
    /// Allocates `size` bytes that must read as zero.
    AllocZeroed {
        /// Bytes.
        size: usize,
        /// A power of two.
        align: usize,
    },
    /// As many [`Alloc`](Self::Alloc) in a row, until one is refused: what it takes to fill a
    /// magazine or a span.
    AllocMany {
        /// Bytes of each.
        size: usize,
        /// A power of two.
        align: usize,
        /// How many, less one.
        more: u8,
    },
    /// Gives an object a new size.
    Realloc {
        /// Which object.
        index: u32,
        /// Its new size in bytes.
        size: usize,
    },
    /// Frees an object.
    Free {
        /// Which object.
        index: u32,
    },
    /// Frees an object through the cache after the current one.
    FreeRemote {
        /// Which object.
        index: u32,
    },
    /// As many [`Free`](Self::Free) in a row, each at the same index.
    FreeMany {
        /// Which object first.
        index: u32,
        /// How many, less one.
        more: u8,
    },
    /// Goes on with another cache, as if another thread ran.
    Switch {
        /// Which cache.
        cache: u16,
    },
    /// Ends a cache, as if its thread ended, and begins a new one in its place.
    Restart {
        /// Which cache.
        cache: u16,
    },
    /// Gives memory that is not in use back to the system.
    Release {
        /// Units the subject understands, pages as a rule.
        most: u16,
    },
    /// Time passes.
    Advance {
        /// How much.
        microseconds: u32,
    },
}
