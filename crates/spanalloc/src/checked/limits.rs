//! The limits of the heap of [`Checked`] alone: a program that has no other needs nothing of it.

use spanalloc_central::Central as _;
pub use spanalloc_pages::Listener;

use super::Checked;
use super::heap::GATE;
use crate::program::Program as _;

/// As [`limits::set_soft`](crate::limits::set_soft). Does nothing in a signal handler that interrupted the
/// allocator.
pub fn set_soft_limit(bytes: usize) {
    if !super::is_inside() {
        if let Some(_outsider) = GATE.wait_as_outsider() {
            Checked::central().heap().set_soft_limit(bytes);
        }
    }
}

/// As [`limits::set_hard`](crate::limits::set_hard).
pub fn set_hard_limit(bytes: usize) {
    Checked::central().heap().set_hard_limit(bytes);
}

/// As [`limits::on_pressure`](crate::limits::on_pressure). Does nothing in a signal handler that
/// interrupted the allocator.
pub fn set_listener(listener: Option<Listener>) {
    if !super::is_inside() {
        if let Some(_outsider) = GATE.wait_as_outsider() {
            Checked::central().heap().set_listener(listener);
        }
    }
}
