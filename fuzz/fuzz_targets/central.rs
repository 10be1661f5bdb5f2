//! Central lists against the model of their property test: who owns which span, its slots, marks and
//! tokens. Four bytes are an operation: which, an owner, and what it is done to.
#![no_main]

#[path = "../../crates/spanalloc-central/tests/model/operation.rs"]
mod operation;
#[path = "../../crates/spanalloc-central/tests/model/run.rs"]
mod run;

use libfuzzer_sys::fuzz_target;
use operation::Operation;
use run::{CLASSES, OWNERS, Run};
use spanalloc_fuzz::{AUDIT_EVERY, ground};
use spanalloc_pages::PageHeap;

fn decode([kind, who, low, high]: [u8; 4]) -> Operation {
    let owner = usize::from(who) % OWNERS;
    let which = usize::from(u16::from_le_bytes([low, high]));
    let class = usize::from(low) % CLASSES.len();
    match kind % 32 {
        0..=2 => Operation::Cut { owner, class },
        3..=4 => Operation::Take { owner, class },
        5..=10 => Operation::Slots { owner, span: low.into(), count: usize::from(high) % 12 },
        11..=19 => Operation::Free { owner, object: which },
        20 => Operation::FreeAgain { span: low.into(), slot: high.into() },
        21..=23 => Operation::Deliver { token: which },
        24 => Operation::Drain { owner },
        25 => Operation::Release { owner, span: which },
        26 => Operation::Close { owner },
        27 => Operation::HandOver { owner },
        28 => Operation::AllocLarge { pages: usize::from(low) % 40, align: u32::from(high) % 5 },
        29 => Operation::FreeLarge { object: which },
        _ => Operation::ResizeLarge { object: low.into(), pages: usize::from(high) % 40 },
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut ground = ground();
    let blocks = bytes.first().is_some_and(|first| first % 8 == 7);
    let heap = PageHeap::new(ground.plot().in_blocks(blocks));
    let mut run = Run::new(&heap);
    for (number, chunk) in bytes.chunks_exact(4).take(300).enumerate() {
        run.apply(&decode([chunk[0], chunk[1], chunk[2], chunk[3]]));
        if number % AUDIT_EVERY == AUDIT_EVERY - 1 {
            run.check();
        }
    }
    run.check();
    run.finish();
});
