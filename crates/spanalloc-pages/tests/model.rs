//! The page heap against a naive one, operation by operation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/mod.rs"]
mod common;
#[path = "common/model.rs"]
mod naive;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/pair.rs"]
mod pair;

use common::{Place, Simulated};
use operation::{limited_ops, ops};
use pair::run;
use proptest::prelude::*;
use spanalloc_os::{Any32, Any64, IosArm64, Mips32, Mmap, Native, Windows64};
use spanalloc_testkit::amount::{config, config_of};

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Low), Just(Place::High), Just(Place::BothEnds)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn native(place in place(), ops in ops(false)) {
        run::<_, Native>(Simulated::new::<Native>(place, 4096), &ops, false, false);
    }

    #[test]
    fn faults_in_real_memory(ops in ops(true)) {
        run::<_, Native>(Mmap::new(), &ops, true, true);
    }
}

proptest! {
    #![proptest_config(config_of(128))]

    #[test]
    fn real_memory(ops in ops(false)) {
        run::<_, Native>(Mmap::new(), &ops, false, true);
    }

    #[test]
    fn faults(place in place(), ops in ops(true)) {
        run::<_, Any32>(Simulated::new::<Any32>(place, 4096), &ops, true, false);
    }
}

proptest! {
    #![proptest_config(config_of(128))]

    #[test]
    fn limits(place in place(), ops in limited_ops()) {
        run::<_, Native>(Simulated::new::<Native>(place, 4096), &ops, true, false);
    }

    #[test]
    fn limits_of_real_memory(ops in limited_ops()) {
        run::<_, Native>(Mmap::new(), &ops, true, true);
    }
}

proptest! {
    #![proptest_config(config_of(32))]

    #[test]
    fn native_with_large_os_pages(place in place(), shift in 13_u32..19, ops in ops(false)) {
        run::<_, Native>(Simulated::new::<Native>(place, 1 << shift), &ops, false, false);
    }

    #[test]
    fn parts_of_arenas(place in place(), ops in ops(false)) {
        run::<_, Any64>(
            Simulated::new::<Any64>(place, 4096).without_whole_arenas(),
            &ops,
            false,
            false,
        );
        run::<_, Any32>(
            Simulated::new::<Any32>(place, 16384).without_whole_arenas(),
            &ops,
            false,
            false,
        );
    }

    #[test]
    fn every_geometry(place in place(), ops in ops(false)) {
        run::<_, Any64>(Simulated::new::<Any64>(place, 4096), &ops, false, false);
        run::<_, Windows64>(Simulated::new::<Windows64>(place, 4096), &ops, false, false);
        run::<_, IosArm64>(Simulated::new::<IosArm64>(place, 16384), &ops, false, false);
        run::<_, Any32>(Simulated::new::<Any32>(place, 4096), &ops, false, false);
        run::<_, Mips32>(Simulated::new::<Mips32>(place, 4096), &ops, false, false);
    }
}
