//! The limits of one heap alone: a program that has no other needs nothing of it.

use spanalloc_central::Central as _;
use spanalloc_pages::Listener;

use super::entry::is_inside;
use super::heap::Checks;

/// See [`checked::set_soft_limit`](super::set_soft_limit).
pub(crate) fn set_soft_limit<G: Checks>(bytes: usize) {
    if !is_inside::<G>() {
        if let Some(_outsider) = G::gate().wait_as_outsider() {
            G::central().heap().set_soft_limit(bytes);
        }
    }
}

/// See [`checked::set_listener`](super::set_listener).
pub(crate) fn set_listener<G: Checks>(listener: Option<Listener>) {
    if !is_inside::<G>() {
        if let Some(_outsider) = G::gate().wait_as_outsider() {
            G::central().heap().set_listener(listener);
        }
    }
}
