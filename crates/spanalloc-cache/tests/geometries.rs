//! Every layer under every geometry, over real memory at the low and the high end of what its addresses
//! can name: random operations on caches, every object written to and verified.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use spanalloc_cache::{Checked, Fast, Policy};
use spanalloc_classes::Go67;
use spanalloc_os::{
    Any32, Any64, Geometry, IosArm64, Mips32, Mmap, OsError, OsSource, Purpose, Report, Request,
    Windows64,
};
use spanalloc_testkit::layers::Layers;
use spanalloc_testkit::{Mix, operations};

/// The lowest address that is tried: 16 MB.
const LOWEST: usize = 16 << 20;
/// How far below the end of the addresses of programs the highest one is tried.
const BELOW: usize = 64 << 20;
/// Bytes between two tries.
const STEP: usize = 16 << 20;

/// The first address behind those of `G` that a program of this machine may have.
fn end<G: Geometry>() -> usize {
    // x86-64 and aarch64 have 47 bits for programs; with 32, the system has the highest part.
    let machine = if usize::BITS == 32 { 0xc000_0000 } else { (1_u64 << 47) - (1 << 40) };
    (1_u64 << G::ADDRESS_BITS).min(machine) as usize
}

/// Real memory for a heap whose addresses are those of another machine: arenas lie at the low end and at
/// the high end in turn.
struct Placed {
    inner: Mmap,
    end: usize,
    tries: AtomicUsize,
    /// How many arenas were found at the low end, and at the high end.
    found: [AtomicUsize; 2],
}

impl Placed {
    /// Every second one begins at the high end, so that heaps of one arena are at both ends.
    fn new<G: Geometry>(begin: usize) -> Self {
        let tries = (begin % 2).into();
        Self { inner: Mmap::new(), end: end::<G>(), tries, found: [0.into(), 0.into()] }
    }
}

// SAFETY: everything is done by the source below; what lies at another place than it should goes back.
unsafe impl OsSource for Placed {
    type Wait = <Mmap as OsSource>::Wait;

    fn below(&self) -> Option<&(impl OsSource + ?Sized)> {
        Some(&self.inner)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        if request.purpose == Purpose::Metadata {
            return self.inner.reserve(request);
        }
        for _ in 0..64 {
            let number = self.tries.fetch_add(1, Ordering::Relaxed);
            let (high, step) = (number % 2, number / 2 * STEP);
            let at = if high == 1 {
                self.end.checked_sub(BELOW + step + request.bytes)
            } else {
                LOWEST.checked_add(step + request.align - 1)
            };
            let Some(at) = at.filter(|at| *at >= LOWEST) else { continue };
            let hint = at & !(request.align - 1);
            let reserved = self.inner.reserve(Request { hint, ..request })?;
            if reserved.addr().get() == hint {
                self.found[high].fetch_add(1, Ordering::Relaxed);
                return Ok(reserved);
            }
            // SAFETY: reserved above, and not used.
            unsafe { self.inner.release(reserved, request.bytes) }.unwrap();
        }
        Err(OsError::OutOfMemory { bytes: request.bytes })
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes) }
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

/// Does random operations under `G` with a policy. Returns how many arenas lay at the low end, and how many
/// at the high end.
fn check<G: Geometry, P: Policy>() -> [usize; 2] {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() };
    let (heaps, found) = (Cell::new(0), Cell::new([0; 2]));
    let list = operations(Mix::new().max_align(1 << 22), 1..80);
    TestRunner::new(config)
        .run(&list, |list| {
            let os = Placed::new::<G>(heaps.replace(heaps.get() + 1));
            let summary = Layers::<Go67, P>::new()
                .arenas_of::<G>()
                .run(&os, &list)
                .map_err(|failure| TestCaseError::fail(failure.to_string()))?;
            prop_assert_eq!(summary.refused, 0);
            prop_assert_eq!(summary.allocated, summary.freed);
            let arenas = os.found.each_ref().map(|count| count.load(Ordering::Relaxed));
            found.set([found.get()[0] + arenas[0], found.get()[1] + arenas[1]]);
            Ok(())
        })
        .unwrap();
    found.get()
}

/// Both policies under `G`, with arenas at both ends of its addresses.
fn works_at_both_ends<G: Geometry>() {
    for found in [check::<G, Fast>(), check::<G, Checked>()] {
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }
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
