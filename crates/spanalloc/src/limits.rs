//! Limits on the memory of the process.
//!
//! What counts are the bytes of a heap that have memory behind them, those of its own tables included, and
//! that did not go back to the system. [`Spanalloc`], [`Checked`](crate::Checked) and [`Hardened`](crate::Hardened) are three heaps, and each
//! is held to the limits; a program uses one of them, as a rule.
//!
//! ```
//! use spanalloc::limits;
//!
//! limits::set_soft(2 << 30);
//! limits::on_pressure(Some(|pressure| {
//!     // Here the program drops what it can make again.
//!     assert!(pressure.committed > pressure.limit);
//! }));
//! limits::set_hard(usize::MAX); // none, as at first
//! ```

use spanalloc_central::Central as _;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use spanalloc_os::Cgroup;
pub use spanalloc_pages::Pressure;
use spanalloc_pages::{Listener, Pages as _};

use crate::program::Program;
use crate::{Spanalloc, checked, hardened};

/// From how many bytes on memory goes back to the system: free pages first, then what the threads keep, as
/// soon as each comes by. If that is not enough, the program is told. `usize::MAX` is no limit.
///
/// No allocation fails for it. What is above the limit is looked after again when the memory has grown by
/// another sixteenth of it, or by 2 MB if that is more.
pub fn set_soft(bytes: usize) {
    Spanalloc::central().heap().set_soft_limit(bytes);
    checked::set_soft_limit(bytes);
    hardened::set_soft_limit(bytes);
}

/// How many bytes there may be at most. An allocation that would take more fails, once everything free that
/// the thread can reach went back to the system; later ones work again when something was freed.
/// `usize::MAX` is no limit. If there are more bytes already, they stay.
pub fn set_hard(bytes: usize) {
    Spanalloc::central().heap().set_hard_limit(bytes);
    checked::set_hard_limit(bytes);
    hardened::set_hard_limit(bytes);
}

/// Sets both limits by what the control group of the process may have now, in which the system does not refuse
/// memory but ends the process: the hard limit to nine tenths of it, the soft one to eight. Returns
/// what the group may have; without bounds there are no limits then.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # {
/// use spanalloc::limits;
///
/// let cgroup = limits::set_by_cgroup();
/// limits::set_hard(cgroup.hard(75));
/// # limits::set_hard(usize::MAX);
/// # limits::set_soft(usize::MAX);
/// # }
/// ```
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn set_by_cgroup() -> Cgroup {
    let cgroup = Cgroup::of_this_process();
    set_hard(cgroup.hard(Cgroup::HARD_PERCENT));
    set_soft(cgroup.soft(Cgroup::SOFT_PERCENT));
    cgroup
}

/// Who is told that there is more memory than the soft limit, and nothing that could be given back. It is
/// called once, and not again before the memory was within the limit.
///
/// It is called by a thread that has just allocated, which holds no lock of the allocator: it may allocate and
/// free, but must not panic. What it frees goes back to the system by and by. A thread may be in it for
/// one last time after another function has taken its place.
pub fn on_pressure(listener: Option<fn(Pressure)>) {
    Spanalloc::central().heap().set_listener(listener.map(Listener::of));
    checked::set_listener(listener.map(Listener::of));
    hardened::set_listener(listener.map(Listener::of));
}

/// Tells whoever listens what there is to be told. For the end of a slow path, outside of all locks.
#[inline]
pub(crate) fn tell<G: Program>() {
    if let Some(notice) = G::central().heap().take_notice() {
        notice.deliver();
    }
}
