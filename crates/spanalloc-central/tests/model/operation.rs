//! The operations of a case.

use proptest::prelude::*;

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

pub fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let (owner, any) = (0..crate::OWNERS, any::<usize>());
    prop_oneof![
        3 => (owner.clone(), 0..crate::CLASSES.len()).prop_map(|(owner, class)| Cut { owner, class }),
        3 => (owner.clone(), 0..crate::CLASSES.len()).prop_map(|(owner, class)| Take { owner, class }),
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
