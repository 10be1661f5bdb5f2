//! The heap, page by page.

use spanalloc_central::{Central as _, LARGE};
use spanalloc_pages::{PAGE_BYTES, PageState};

use super::Checked;
use super::heap::GATE;
use crate::program::Program;

/// What pages of the heap are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing: address space only.
    Untouched,
    /// Nothing, with memory behind them.
    Free,
    /// Slots of one size class.
    Small,
    /// One large object.
    Large,
    /// What threads keep for their next spans, or tables of the allocator.
    Kept,
}

/// Calls `visit` for the pages of the heap, lowest address first: with the address of the first of
/// neighbouring pages of one use, and how many there are. A longer run may come in pieces.
///
/// The heap's lock is held: `visit` must not allocate. Of nothing in a signal handler that interrupted
/// the allocator.
pub fn for_each_run(mut visit: impl FnMut(usize, usize, Use)) {
    if super::is_inside() {
        return;
    }
    let Some(_outsider) = GATE.wait_as_outsider() else { return };
    let central = Checked::central();
    central.heap().for_each_run(|address, pages, state| match state {
        PageState::Untouched => visit(address, pages, Use::Untouched),
        PageState::Free => visit(address, pages, Use::Free),
        PageState::Taken => {
            for page in 0..pages {
                let address = address + page * PAGE_BYTES;
                let used = match central.span_at(address) {
                    Some(span) if span.class() == LARGE => Use::Large,
                    Some(_) => Use::Small,
                    None => Use::Kept,
                };
                visit(address, 1, used);
            }
        }
    });
}
