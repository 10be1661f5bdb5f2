//! A snapshot of the heap that is not on the stack, which may be small.

use core::ptr::NonNull;

use crate::heap;
use spanalloc::stats::{Figures, Snapshot};

use crate::system;

/// Calls `visit` with what the heap holds now.
pub(crate) fn with_snapshot<R>(visit: impl FnOnce(&Snapshot) -> R) -> R {
    let Some(room) = Room::open() else { return on_stack_slow(visit) };
    // SAFETY: the room is as large as a snapshot, aligned to a page, zero, which every field may
    // be, and nobody else's.
    let snapshot = unsafe { &mut *room.0.as_ptr() };
    heap::snapshot_into(snapshot);
    visit(snapshot)
}

/// Where the bytes of the heap are now.
pub(crate) fn figures() -> Figures {
    with_snapshot(Figures::of)
}

/// When the system has no page left, the stack must do.
#[cold]
#[inline(never)]
fn on_stack_slow<R>(visit: impl FnOnce(&Snapshot) -> R) -> R {
    let mut snapshot = Snapshot::EMPTY;
    heap::snapshot_into(&mut snapshot);
    visit(&snapshot)
}

/// Pages of the system for one snapshot.
struct Room(NonNull<Snapshot>);

impl Room {
    fn open() -> Option<Self> {
        system::map(size_of::<Snapshot>()).map(|room| Self(room.cast()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the room was mapped with this size, and the borrow of the snapshot has ended.
        unsafe { system::unmap(self.0.cast(), size_of::<Snapshot>()) };
    }
}

#[cfg(test)]
mod tests {
    use core::ptr;

    use super::*;

    #[test]
    fn both_places_hold_the_same() {
        let places: [fn() -> usize; 2] = [
            || with_snapshot(|snapshot| ptr::from_ref(snapshot).addr() & 4095),
            || on_stack_slow(|snapshot| snapshot.pages.arenas),
        ];
        assert_eq!(places.map(|place| place()), [0, with_snapshot(|it| it.pages.arenas)]);
    }
}
