//! The figures are what the kernel counts.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/children.rs"]
mod children;

use std::alloc::{GlobalAlloc, Layout};

use children::{job, run};
use spanalloc::stats::{Figures, Snapshot};
use spanalloc::{Checked, Spanalloc, checked, stats};
use spanalloc_testkit::resident::{Arenas, below, mappings, whole_size};

const MB: usize = 1 << 20;
/// What a child has at most: 1 % of it is more than what the heap makes ready ahead of its use.
const PEAK: usize = 512 * MB;

/// The objects of this process, which are all in memory.
struct Program<'a, A> {
    allocator: &'a A,
    snapshot: fn() -> Snapshot,
    arenas: Arenas,
    objects: Vec<(*mut u8, Layout)>,
    seed: u64,
    /// What was in memory, and what the figures said, before it all began.
    before: (usize, usize),
}

impl<A: GlobalAlloc> Program<'_, A> {
    /// Allocates objects between the sizes.
    fn make(&mut self, bytes: usize, sizes: [usize; 2]) {
        let mut left = bytes;
        while left > 0 {
            let size = whole_size(&mut self.seed, sizes);
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the size is not 0, and the object is touched within it.
            unsafe {
                let object = self.allocator.alloc(layout);
                assert!(!object.is_null());
                self.arenas.touch(object, size);
                self.objects.push((object, layout));
            }
            left = left.saturating_sub(size);
        }
    }

    /// Frees so many of a thousand objects.
    fn free(&mut self, of_thousand: usize) {
        let Self { allocator, objects, seed, .. } = self;
        objects.retain(|(object, layout)| {
            let stays = below(seed, 1000) >= of_thousand;
            if !stays {
                // SAFETY: made with this layout, and forgotten now.
                unsafe { allocator.dealloc(*object, *layout) };
            }
            stays
        });
    }

    /// Compares the figures with what the kernel says.
    #[track_caller]
    fn compare(&self, when: &str) {
        let snapshot = (self.snapshot)();
        let figures = Figures::of(&snapshot);
        let mappings = mappings().unwrap();
        let near = |name: &str, said: usize, there: usize| {
            let off = said as f64 / there as f64 * 100.0 - 100.0;
            println!("{when}: {name} {said}, in memory {there}: {off:+.2} %");
            assert!(said.abs_diff(there) <= there / 100, "{when}: {name} {off:+.2} %: {figures:?}");
        };
        assert!(snapshot.adds_up(), "{when}: {snapshot:?}");
        near("heap", figures.ready, self.arenas.resident(&mappings));
        let all: usize = mappings.iter().map(|it| it.resident).sum();
        near("all", figures.resident() - self.before.1, all - self.before.0);
        let named = mappings.iter().filter(|it| it.name == "[anon:spanalloc metadata]");
        let metadata: usize = named.map(|it| it.resident).sum();
        // Without names nothing is known. With them, a last step of the tables may be untouched.
        println!("{when}: metadata {}, in memory {metadata}", figures.metadata);
        assert!(metadata <= figures.metadata + (64 << 10), "{when}: {figures:?}");
    }
}

fn live<A: GlobalAlloc>(allocator: &A, snapshot: fn() -> Snapshot, release: fn() -> usize) {
    let mut objects = Vec::with_capacity(2 * MB);
    objects.resize(2 * MB, (std::ptr::null_mut(), Layout::new::<u8>()));
    objects.clear();
    let mut program = Program {
        allocator,
        snapshot,
        arenas: Arenas::default(),
        objects,
        seed: 1,
        before: (0, 0),
    };
    program.make(MB, [16, 32 << 10]);
    program.before.0 = mappings().unwrap().iter().map(|it| it.resident).sum();
    program.before.1 = Figures::of(&snapshot()).resident();
    program.make(PEAK / 2, [16, 32 << 10]);
    program.make(PEAK / 2, [64 << 10, 4 * MB]);
    program.compare("at the peak");
    program.free(300);
    program.compare("with holes");
    program.make(PEAK / 8, [24, 64 << 10]);
    program.compare("filled again");
    program.free(150);
    assert!(release() > PEAK / 16);
    program.compare("released");
    program.make(PEAK / 2, [100, MB]);
    program.compare("grown again");
}

#[test]
fn child() {
    match job().as_deref() {
        None => {}
        Some("spanalloc") => live(&Spanalloc, stats::snapshot, spanalloc::release),
        Some("checked") => live(&Checked, checked::snapshot, checked::release),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn the_figures_of_spanalloc_are_what_is_in_memory() {
    run("spanalloc");
}

#[test]
fn the_figures_of_checked_are_what_is_in_memory() {
    run("checked");
}
