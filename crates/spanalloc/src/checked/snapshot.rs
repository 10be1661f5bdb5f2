//! What a heap holds.

use spanalloc_cache::Snapshot;

use super::entry::is_inside;
use super::heap::Checks;
use crate::thread;

/// See [`checked::snapshot_into`](super::snapshot_into).
pub(crate) fn snapshot_into<G: Checks>(snapshot: &mut Snapshot) {
    // Counting takes the heap's lock.
    let entered = if is_inside::<G>() { None } else { G::gate().wait_as_outsider() };
    match entered {
        Some(_outsider) => thread::slot::<G>().snapshot_into(snapshot),
        None => *snapshot = Snapshot::EMPTY,
    }
}
