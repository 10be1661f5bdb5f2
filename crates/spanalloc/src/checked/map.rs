//! The heap, page by page.

use spanalloc_central::{Central as _, LARGE};
use spanalloc_pages::{PAGE_BYTES, PageState};

use super::entry::is_inside;
use super::heap::Checks;

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

/// See [`checked::for_each_run`](super::for_each_run).
pub(crate) fn for_each_run<G: Checks>(mut visit: impl FnMut(usize, usize, Use)) {
    if is_inside::<G>() {
        return;
    }
    let Some(_outsider) = G::gate().wait_as_outsider() else { return };
    let central = G::central();
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
