//! Models of one's own composition: its code in every interleaving of its threads. Only there in a build
//! with `--cfg loom`, in which the atomics and cells of `spanalloc-sync` are loom's.
//!
//! A model is a function that makes what it needs, starts threads with `loom::thread`, and asserts. It is run
//! again for each interleaving, which makes all atomics and cells anew.
//!
//! ```no_run
//! # #[cfg(loom)] {
//! use std::sync::Arc;
//!
//! use loom::thread;
//! use spanalloc_sync::Lock;
//! use spanalloc_testkit::models::{Futex, check, explored};
//!
//! let interleavings = check(|| {
//!     Futex::reset();
//!     let pool = Arc::new(Lock::<Vec<u32>, Futex, 10>::new(vec![1, 2]));
//!     let other = Arc::clone(&pool);
//!     let thread = thread::spawn(move || other.lock().pop());
//!     assert_ne!(pool.lock().pop(), thread.join().unwrap());
//! });
//! explored("pool", interleavings, 20);
//! # }
//! ```
//!
//! | here | is |
//! |---|---|
//! | [`check`], [`check_bounded`] | every interleaving, or those with so many preemptions; how many there were |
//! | [`explored`] | tells the number, and fails if the model has shrunk |
//! | [`Futex`] | a way to wait, with which a lost wake-up is a deadlock that loom reports |
//! | [`FakePages`] | a page heap whose pages are numbers: the layers above it can be modelled whole |
//! | [`with_fault`] | a model with a mistake planted in the code of the layers: a test of it must panic |

use std::sync::Arc;

mod fake_pages;
mod futex;

pub use fake_pages::FakePages;
pub use futex::Futex;
pub use spanalloc_sync::fault::Fault;
pub use spanalloc_sync::model::{Builder, check, check_bounded, check_with};

/// The most preemptions of a model with a mistake.
const PREEMPTIONS: usize = 3;

/// Prints how many interleavings a model had.
///
/// # Panics
/// If there were fewer than `at_least`: a model that has shrunk to a few paths proves nothing.
pub fn explored(name: &str, interleavings: usize, at_least: usize) {
    println!("{name}: {interleavings} interleavings");
    assert!(interleavings >= at_least, "{name} has shrunk to {interleavings}");
}

/// Runs a model with a mistake in the code, in the interleavings of one preemption at most, then of two, then of
/// three: most mistakes show where there are few, of which there are few.
///
/// # Panics
/// As soon as the mistake shows. A test of it is marked `should_panic`, with what the panic says.
pub fn with_fault(fault: Fault, model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    for preemptions in 1..=PREEMPTIONS {
        spanalloc_sync::fault::plant(fault);
        let model = Arc::clone(&model);
        check_bounded(preemptions, move || model());
    }
}
