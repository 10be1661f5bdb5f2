//! The operations of a case.

use proptest::prelude::*;
use spanalloc_testkit::amount::length;

#[derive(Clone, Debug)]
pub enum Op {
    Alloc { pages: usize, align: u32 },
    Free { which: usize },
    FreePart { which: usize, from: usize, count: usize },
    FreeNeighbours { which: usize },
    FreeAgain { which: usize, before: usize, after: usize },
    Extend { which: usize, more: usize },
    Relocate { which: usize, more: usize },
    CacheAlloc { pages: usize },
    CacheFree { which: usize },
    Flush,
    Release { most: usize },
    Scavenge { pass_ms: u64, pieces: usize },
    Fail { verb: usize, nth: usize, forever: bool },
    Heal,
    HardLimit { room: usize },
    SoftLimit { room: usize },
    Heed { heard: usize },
    MakeRoom { pages: usize },
}

fn pages() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1_usize..6, 6 => 1_usize..70, 3 => 60_usize..600, 1 => 500_usize..1400]
}

pub fn op(faults: bool) -> impl Strategy<Value = Op> {
    let fault_weight = if faults { 3 } else { 1 };
    prop_oneof![
        10 => (pages(), prop_oneof![5 => Just(0_u32), 2 => 1_u32..5, 1 => 5_u32..10])
            .prop_map(|(pages, align)| Op::Alloc { pages, align }),
        9 => any::<usize>().prop_map(|which| Op::Free { which }),
        3 => (any::<usize>(), any::<usize>(), any::<usize>())
            .prop_map(|(which, from, count)| Op::FreePart { which, from, count }),
        2 => any::<usize>().prop_map(|which| Op::FreeNeighbours { which }),
        2 => (any::<usize>(), 0_usize..3, 0_usize..3)
            .prop_map(|(which, before, after)| Op::FreeAgain { which, before, after }),
        3 => (any::<usize>(), 1_usize..80).prop_map(|(which, more)| Op::Extend { which, more }),
        3 => (any::<usize>(), 0_usize..80).prop_map(|(which, more)| Op::Relocate { which, more }),
        8 => (1_usize..18).prop_map(|pages| Op::CacheAlloc { pages }),
        8 => any::<usize>().prop_map(|which| Op::CacheFree { which }),
        1 => Just(Op::Flush),
        2 => prop_oneof![0_usize..40, 0_usize..2000].prop_map(|most| Op::Release { most }),
        2 => (0_u64..4000, 1_usize..20)
            .prop_map(|(pass_ms, pieces)| Op::Scavenge { pass_ms, pieces }),
        fault_weight => (0_usize..3, 1_usize..4, any::<bool>()).prop_map(
            move |(verb, nth, forever)| {
                if faults { Op::Fail { verb, nth, forever } } else { Op::Flush }
            }
        ),
        fault_weight => Just(Op::Heal),
    ]
}

/// Operations on a heap whose limits come and go.
pub fn limited_ops() -> impl Strategy<Value = Vec<Op>> {
    let room = || prop_oneof![4 => 0_usize..1500, 1 => Just(usize::MAX)];
    let limits = prop_oneof![
        2 => room().prop_map(|room| Op::HardLimit { room }),
        2 => room().prop_map(|room| Op::SoftLimit { room }),
        3 => (0_usize..30).prop_map(|heard| Op::Heed { heard }),
        3 => pages().prop_map(|pages| Op::MakeRoom { pages }),
    ];
    prop::collection::vec(prop_oneof![5 => op(false), 1 => limits], length())
}

pub fn ops(faults: bool) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(faults), length())
}
