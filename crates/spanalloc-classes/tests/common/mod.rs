//! Tables of users, at random.

use proptest::prelude::*;
use spanalloc_classes::{MAX_SMALL, Rule};

/// Sizes that a table may have, in order.
pub fn valid_sizes() -> Vec<u32> {
    (4..16)
        .step_by(2)
        .chain((16..=1024).step_by(8))
        .chain((1152..=MAX_SMALL as u32).step_by(128))
        .collect()
}

prop_compose! {
    /// Rules under which every list of valid sizes makes a table.
    pub fn safe_rule()(
        waste_divisor in 1..=8u32,
        min_slots in 1..=512u32,
        max_cut_bytes in 0..=128u32 << 10,
    ) -> Rule {
        Rule { waste_divisor, min_slots, max_cut_bytes, ..Rule::GO }
    }
}
