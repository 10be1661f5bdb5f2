//! An allocator of one's own, put together from the layers and tested:
//!
//! ```text
//! cargo run -p spanalloc-testkit --example custom
//! ```
//!
//! It has five classes and lives in a buffer. The test makes lists of operations of two threads on it, in
//! which calls to the system fail and work again, and checks the objects and the accounts after each.

use std::mem::MaybeUninit;

use spanalloc_classes::{ClassTable, Rule, SizeClasses};
use spanalloc_testkit::layers::Layers;
use spanalloc_testkit::sources::Fixed;
use spanalloc_testkit::{Mix, test};

/// Packets, and what is kept of them.
#[derive(Debug)]
struct Packets;

impl ClassTable for Packets {
    const CLASSES: &'static SizeClasses =
        &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 256, 1536, 9216]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut buffer = vec![MaybeUninit::uninit(); 4 << 20];
    let allocator = Layers::<Packets>::new().caches(2).scarce();
    let mix = Mix::new().caches(2).max_size(20_000).max_align(4096).faults(2);
    let tested = test(mix, |list| allocator.run(Fixed::new(&mut buffer), list))?;
    println!("{tested}");
    assert_eq!(tested.summary.allocated, tested.summary.freed);
    Ok(())
}
