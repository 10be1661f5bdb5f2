use spanalloc_os::Verb;

/// One thing a program does to its allocator, or the system to both.
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
    /// Whoever gives unused memory back in the background takes a step.
    Scavenge {
        /// Pieces the subject understands.
        pieces: u16,
    },
    /// The system fails: after `after` calls of this verb that work, the next `calls` fail. Replaces
    /// what was said of the verb before.
    OsFails {
        /// The verb.
        verb: Verb,
        /// How many calls work first.
        after: u16,
        /// How many fail then; all of them if it is [`FOR_GOOD`](Self::FOR_GOOD).
        calls: u16,
    },
    /// The system works again.
    OsWorks,
    /// The process forks: the child looks at all objects, allocates, and frees everything; the parent
    /// goes on as if nothing had happened.
    Fork,
}

impl Operation {
    /// As many calls as there will be, until the system works again.
    pub const FOR_GOOD: u16 = u16::MAX;

    /// The verbs that a list of operations may name; what is written down is the place in here.
    pub(crate) const VERBS: [Verb; 5] =
        [Verb::Reserve, Verb::Commit, Verb::Decommit, Verb::Relocate, Verb::Release];

    /// The number of a verb; None for one that cannot be written down.
    pub(crate) fn verb_number(verb: Verb) -> Option<u8> {
        let place = Self::VERBS.iter().position(|each| *each == verb)?;
        u8::try_from(place).ok()
    }
}
