//! The order in which locks are taken.
//!
//! A thread that holds a lock may only take locks of a higher rank: [`Lock::lock_under`] takes the
//! guard of the lock already held and refuses, when it is compiled, a rank that does not rise.
//!
//! [`Lock::lock_under`]: crate::Lock::lock_under

/// The facade's cache for threads that have none of their own.
pub const FALLBACK: u8 = 10;
/// The register of thread caches.
pub const CACHES: u8 = 20;
/// The spans of one size class that no thread holds.
pub const CENTRAL: u8 = 30;
/// The free list of span descriptors.
pub const SPANS: u8 = 40;
/// Who gives memory back to the system.
pub const SCAVENGER: u8 = 45;
/// The limits of a heap's memory.
pub const LIMITS: u8 = 48;
/// The page heap.
pub const HEAP: u8 = 50;
/// The metadata allocator.
pub const METADATA: u8 = 60;
/// Tables inside an operating-system source.
pub const OS: u8 = 70;

const _: () = assert!(
    FALLBACK < CACHES
        && CACHES < CENTRAL
        && CENTRAL < SPANS
        && SPANS < SCAVENGER
        && SCAVENGER < LIMITS
        && LIMITS < HEAP
        && HEAP < METADATA
        && METADATA < OS,
    "the ranks rise in the order of this file"
);
