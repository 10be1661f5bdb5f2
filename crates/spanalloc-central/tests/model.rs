//! Central lists against a naive model: random operations of three owners, over real pages.
//!
//! The model knows of every span who owns it, which slots are used and by what, which of them were
//! freed by somebody else and not folded, and where the token is. Every object is filled with a
//! value of its own, which is looked at when it is freed: two hands on one slot would show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

#[path = "model/operation.rs"]
mod operation;
#[path = "model/run.rs"]
mod run;

use operation::Operation;
use proptest::prelude::*;
use run::{CLASSES, OWNERS, Run};
use spanalloc_os::Mmap;
use spanalloc_pages::PageHeap;
use spanalloc_testkit::Returning;
use spanalloc_testkit::amount::{config, length};

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let (owner, any) = (0..OWNERS, any::<usize>());
    prop_oneof![
        3 => (owner.clone(), 0..CLASSES.len()).prop_map(|(owner, class)| Cut { owner, class }),
        3 => (owner.clone(), 0..CLASSES.len()).prop_map(|(owner, class)| Take { owner, class }),
        8 => (owner.clone(), any, 0..12_usize)
            .prop_map(|(owner, span, count)| Slots { owner, span, count }),
        20 => (owner.clone(), any).prop_map(|(owner, object)| Free { owner, object }),
        1 => (any, any).prop_map(|(span, slot)| FreeAgain { span, slot }),
        5 => any.prop_map(|token| Deliver { token }),
        3 => owner.clone().prop_map(|owner| Drain { owner }),
        2 => (owner.clone(), any).prop_map(|(owner, span)| Release { owner, span }),
        1 => owner.clone().prop_map(|owner| Close { owner }),
        2 => owner.prop_map(|owner| HandOver { owner }),
        1 => (0..40_usize, 0..5_u32).prop_map(|(pages, align)| AllocLarge { pages, align }),
        1 => any.prop_map(|object| FreeLarge { object }),
        2 => (any, 0..40_usize).prop_map(|(object, pages)| ResizeLarge { object, pages }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn central_lists_do_as_the_model(operations in prop::collection::vec(operation(), length())) {
        // SAFETY: everything above is gone before the source is.
        let heap = PageHeap::new(unsafe { Returning::new(Mmap::new()) });
        let mut run = Run::new(&heap);
        for operation in &operations {
            run.apply(operation);
            run.check();
        }
        run.finish();
    }
}
