//! The arena map at every geometry's full width, over memory that faults if it is not Ready.
#![cfg(all(feature = "mmap", not(loom)))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod support;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use proptest::prelude::*;
use spanalloc_os::{
    Any32, Any64, ArenaMap, Counted, Faulty, Fixed, Geometry, IosArm64, Limited, Mips32, Mmap,
    OsError, OsSource, Verb, Windows64,
};
use spanalloc_testkit::amount::{config, length};
use support::returning;

/// A pointer to tell from others; nobody reads what it points to.
fn value(number: usize) -> NonNull<u64> {
    NonNull::new(std::ptr::without_provenance_mut(number * 8 + 8)).unwrap()
}

/// The first address past the geometry's address space, if this machine can say it.
fn end<G: Geometry>() -> Option<usize> {
    usize::try_from(1_u64 << G::ADDRESS_BITS).ok()
}

/// The address of the last arena that this machine can say.
fn last<G: Geometry>() -> usize {
    end::<G>().unwrap_or(0).wrapping_sub(G::ARENA_BYTES)
}

fn publish<G: Geometry, O: OsSource>(
    map: &ArenaMap<G, u64>,
    os: &O,
    address: usize,
    value: NonNull<u64>,
) -> Result<(), OsError> {
    // SAFETY: these tests have one thread and one source for each map.
    unsafe { map.publish(os, address, value) }
}

fn works_at_both_ends<G: Geometry>() {
    let os = returning(Counted::new(Mmap::new()));
    let map = ArenaMap::<G, u64>::new();
    let middle = last::<G>() / 2 / G::ARENA_BYTES * G::ARENA_BYTES;
    let arenas = [middle, last::<G>(), 0];
    let beyond = end::<G>().map_or(vec![], |end| {
        vec![end, end + 1, end + G::ARENA_BYTES, (end - 1) * 2 + 1, usize::MAX / 2 + 1]
    });
    let empty: Vec<_> = beyond
        .iter()
        .copied()
        .chain([usize::MAX, usize::MAX - G::ARENA_BYTES, G::ARENA_BYTES, middle + G::ARENA_BYTES])
        .chain([middle - 1, last::<G>() - 1])
        .filter(|address| !arenas.contains(&(address / G::ARENA_BYTES * G::ARENA_BYTES)))
        .collect();

    for address in arenas.iter().chain(&empty) {
        assert!(map.get(*address).is_null(), "{address:#x} of an empty map");
    }
    assert_eq!(os.inner().reserved(), 0, "an empty map reserves nothing");

    for (number, arena) in arenas.iter().enumerate() {
        publish(&map, &os, arena + G::ARENA_BYTES / 2, value(number)).unwrap();
        for (other, address) in arenas.iter().enumerate() {
            let expected =
                if other <= number { value(other).as_ptr() } else { std::ptr::null_mut() };
            for inside in [0, 1, G::ARENA_BYTES / 2, G::ARENA_BYTES - 1] {
                assert_eq!(map.get(address + inside), expected, "{:#x}", address + inside);
            }
        }
        for address in &empty {
            assert!(map.get(*address).is_null(), "{address:#x}");
        }
        assert_eq!(map.reserved_bytes(), os.inner().reserved());
        assert_eq!(map.committed_bytes(), os.inner().committed());
    }
    for address in beyond {
        let refused = publish(&map, &os, address, value(9));
        assert!(matches!(refused, Err(OsError::OutOfMemory { .. })), "{address:#x}");
        assert!(map.get(address).is_null());
    }
    let mut seen = vec![];
    map.for_each(|address, value| seen.push((address, value)));
    assert_eq!(seen, [(0, value(2)), (middle, value(0)), (last::<G>(), value(1))]);

    publish(&map, &os, last::<G>(), value(7)).unwrap();
    assert_eq!(map.get(last::<G>()), value(7).as_ptr(), "the later value counts");
}

#[test]
fn any_64() {
    works_at_both_ends::<Any64>();
}

#[test]
fn windows_64() {
    works_at_both_ends::<Windows64>();
}

#[test]
fn ios_arm64() {
    works_at_both_ends::<IosArm64>();
}

#[test]
fn any_32() {
    works_at_both_ends::<Any32>();
}

#[test]
fn mips_32() {
    works_at_both_ends::<Mips32>();
}

#[test]
fn a_map_is_small_in_itself_and_commits_one_page_for_its_first_arena() {
    assert!(size_of::<ArenaMap<Any64, u64>>() <= 4096);
    let os = returning(Mmap::new());
    let map = ArenaMap::<Any64, u64>::new();
    publish(&map, &os, last::<Any64>() / 3, value(1)).unwrap();
    assert_eq!(map.reserved_bytes(), Any64::L2_ENTRIES * size_of::<usize>());
    assert_eq!(map.committed_bytes(), os.page_bytes());
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_refused_table_is_made_smaller_around_the_first_arena() {
    let page = Mmap::new().page_bytes();
    for (budget, reserved) in [
        (32 << 20, 32 << 20),
        ((32 << 20) - 1, 512 << 10),
        ((512 << 10) - 1, 8 << 10),
        (page, page),
    ] {
        let os = returning(Limited::new(Mmap::new(), budget));
        let map = ArenaMap::<Any64, u64>::new();
        let first = 0x4012_3456_7000;
        publish(&map, &os, first, value(1)).unwrap();
        assert_eq!(map.reserved_bytes(), reserved);
        assert_eq!(map.get(first), value(1).as_ptr());
        let whole = reserved == 32 << 20;
        // What lies within a small table works, on both sides; what lies outside is refused.
        let reach = if whole { 1 } else { reserved / 8 / 2 - 1 } * Any64::ARENA_BYTES;
        for near in [first - reach, first + reach] {
            publish(&map, &os, near, value(2)).unwrap();
            assert_eq!(map.get(near), value(2).as_ptr());
        }
        let beyond = reach + 2 * Any64::ARENA_BYTES;
        for far in [0, last::<Any64>(), first - beyond, first + beyond] {
            assert_eq!(publish(&map, &os, far, value(3)).is_ok(), whole, "{far:#x} of {reserved}");
            assert_eq!(map.get(far).is_null(), !whole);
        }
        assert_eq!(map.get(first), value(1).as_ptr());
    }
}

#[test]
fn a_small_table_at_either_end_lies_inside_the_address_space() {
    for address in [0, last::<Any64>()] {
        let os = returning(Limited::new(Mmap::new(), Mmap::new().page_bytes()));
        let map = ArenaMap::<Any64, u64>::new();
        publish(&map, &os, address, value(1)).unwrap();
        assert_eq!(map.get(address), value(1).as_ptr());
        assert!(map.get(usize::MAX).is_null() || address > usize::MAX - Any64::ARENA_BYTES);
        assert_eq!(map.reserved_bytes(), os.page_bytes());
    }
}

#[test]
fn nothing_at_all_is_an_error_and_leaves_the_map_as_it_was() {
    let os = returning(Faulty::new(Mmap::new()));
    let map = ArenaMap::<Windows64, u64>::new();
    // Two arenas of one table, more than an OS page of entries apart.
    let here = Windows64::ARENA_BYTES * 5;
    let apart = Windows64::ARENA_BYTES.checked_mul(os.page_bytes() / size_of::<usize>());
    // With 32 bits, all that an address can name may be entries of one page.
    let far = apart.and_then(|apart| here.checked_add(apart));
    assert!(far.is_some() || usize::BITS == 32);
    os.inner().fail_from(Verb::Reserve, 1);
    assert!(publish(&map, &os, here, value(1)).is_err());
    assert_eq!((map.reserved_bytes(), map.committed_bytes()), (0, 0));
    os.inner().heal();
    os.inner().fail_nth(Verb::Commit, 1);
    assert!(publish(&map, &os, here, value(1)).is_err());
    assert_eq!(map.committed_bytes(), 0);
    assert!(map.get(here).is_null());
    publish(&map, &os, here, value(1)).unwrap();
    if let Some(far) = far {
        os.inner().fail_nth(Verb::Commit, 1);
        assert!(publish(&map, &os, far, value(2)).is_err());
        assert!(map.get(far).is_null());
    }
    assert_eq!(map.get(here), value(1).as_ptr());
    assert_eq!(map.committed_bytes(), os.page_bytes());
}

#[test]
fn a_buffer_serves_as_the_memory_of_a_map() {
    let mut buffer = vec![MaybeUninit::new(0xAA_u8); 1 << 20];
    let os = Fixed::new(&mut buffer);
    let map = ArenaMap::<Any64, u64>::new();
    let arena = 3 * Any64::ARENA_BYTES;
    publish(&map, &os, arena, value(1)).unwrap();
    assert_eq!(map.get(arena), value(1).as_ptr());
    assert!(map.get(arena - 1).is_null());
    assert!(map.get(arena + Any64::ARENA_BYTES).is_null(), "the entries were cleared");
}

#[derive(Clone, Debug)]
enum Op {
    Publish(usize, usize),
    Get(usize),
}

/// Addresses as they come: near each other, at the borders of arenas, and anything.
fn address() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => (0_usize..64, any::<usize>()).prop_map(|(arena, low)| {
            (0x7f00_0000_0000_u64 as usize)
                .wrapping_add(arena << 26)
                .wrapping_add(low & ((1 << 26) - 1))
        }),
        2 => (0_usize..1024, 0_usize..3).prop_map(|(arena, low)| (arena << 22).wrapping_sub(low)),
        1 => (0_u32..usize::BITS, 0_usize..3)
            .prop_map(|(bit, low)| (1_usize << bit).wrapping_sub(low)),
        1 => any::<usize>(),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (address(), 0_usize..1000).prop_map(|(address, number)| Op::Publish(address, number)),
        address().prop_map(Op::Get),
    ]
}

fn agrees_with_a_tree<G: Geometry>(ops: &[Op]) {
    let os = returning(Mmap::new());
    let map = ArenaMap::<G, u64>::new();
    let mut model = BTreeMap::new();
    for op in ops {
        match *op {
            Op::Publish(address, number) => {
                let inside = end::<G>().is_none_or(|end| address < end);
                assert_eq!(publish(&map, &os, address, value(number)).is_ok(), inside);
                if inside {
                    model.insert(address / G::ARENA_BYTES, value(number));
                }
            }
            Op::Get(address) => {
                let expected = model.get(&(address / G::ARENA_BYTES)).copied();
                assert_eq!(NonNull::new(map.get(address)), expected, "{address:#x}");
            }
        }
    }
    for (arena, value) in &model {
        assert_eq!(map.get(arena * G::ARENA_BYTES), value.as_ptr());
    }
    if map.committed_bytes() < 1 << 18 {
        let mut seen = BTreeMap::new();
        map.for_each(|address, value| {
            assert!(seen.insert(address / G::ARENA_BYTES, value).is_none());
        });
        assert_eq!(seen, model);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_64_agrees(ops in prop::collection::vec(op(), length())) {
        agrees_with_a_tree::<Any64>(&ops);
    }

    #[test]
    fn windows_64_agrees(ops in prop::collection::vec(op(), length())) {
        agrees_with_a_tree::<Windows64>(&ops);
    }

    #[test]
    fn ios_arm64_agrees(ops in prop::collection::vec(op(), length())) {
        agrees_with_a_tree::<IosArm64>(&ops);
    }

    #[test]
    fn any_32_agrees(ops in prop::collection::vec(op(), length())) {
        agrees_with_a_tree::<Any32>(&ops);
    }

    #[test]
    fn mips_32_agrees(ops in prop::collection::vec(op(), length())) {
        agrees_with_a_tree::<Mips32>(&ops);
    }
}
