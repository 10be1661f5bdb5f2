//! The operations of a case.

/// What a case does; numbers choose among what there is.
#[derive(Clone, Debug)]
pub enum Operation {
    Cut { owner: usize, class: usize },
    Take { owner: usize, class: usize },
    Slots { owner: usize, span: usize, count: usize },
    Free { owner: usize, object: usize },
    FreeAgain { span: usize, slot: usize },
    Deliver { token: usize },
    Drain { owner: usize },
    Release { owner: usize, span: usize },
    Close { owner: usize },
    HandOver { owner: usize },
    AllocLarge { pages: usize, align: u32 },
    FreeLarge { object: usize },
    ResizeLarge { object: usize, pages: usize },
}
