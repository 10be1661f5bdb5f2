//! What the targets share.

use std::sync::{LazyLock, Mutex, MutexGuard};

use spanalloc_os::Mmap;
use spanalloc_testkit::Ground;

/// Address space of the heaps: room for several arenas of 64 MB, and for their tables.
const GROUND_BYTES: usize = 512 << 20;

/// How many operations lie between two looks at all accounts. One more is taken in the end.
pub const AUDIT_EVERY: usize = 8;

/// Bytes of objects that may live at once: most of the time of an input goes into these bytes, so one in eight may
/// have 2 MB and the others a quarter of that.
pub fn budget(bytes: &[u8]) -> usize {
    let large = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 8 == 0;
    if large { 2 << 20 } else { 512 << 10 }
}

static GROUND: LazyLock<Mutex<Ground<Mmap>>> = LazyLock::new(|| {
    Mutex::new(Ground::new(Mmap::new(), GROUND_BYTES).expect("there is address space"))
});

/// The system of the heap of one input after another.
pub fn ground() -> MutexGuard<'static, Ground<Mmap>> {
    GROUND.lock().expect("an input that fails is the last")
}
