//! The allocators that are compared, and the one way in which all of them are called.

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::rc::Rc;

use spanalloc::{Checked, Spanalloc};

use crate::workload::{Plan, Running, Session};

/// An allocator of the comparison. The type selects it; nothing is dispatched at run time inside
/// a measured loop.
pub trait Contender: 'static {
    /// Its name in the table.
    const NAME: &'static str;
    /// Its implementation of the global allocator interface.
    type Allocator: GlobalAlloc;
    /// A value of it.
    const ALLOCATOR: Self::Allocator;

    /// Which version of it is linked.
    fn version() -> String;

    /// Why its times would not be those of an optimised build, if so.
    fn flaw() -> Option<String> {
        None
    }
}

/// Allocates as a program does through `__rust_alloc`: one call that is not inlined, into which
/// the allocator's own Rust code (if any) may be.
///
/// # Safety
/// `size` is not 0, `align` is a power of two, and `size` rounded up to it fits an `isize`.
#[inline(never)]
pub unsafe fn allocate<C: Contender>(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { C::ALLOCATOR.alloc(Layout::from_size_align_unchecked(size, align)) }
}

/// Frees as a program does through `__rust_dealloc`.
///
/// # Safety
/// The object came from [`allocate`] of the same contender with this size and alignment, and is
/// not used any more.
#[inline(never)]
pub unsafe fn deallocate<C: Contender>(object: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promise.
    unsafe { C::ALLOCATOR.dealloc(object, Layout::from_size_align_unchecked(size, align)) }
}

/// Ends the process as a Rust program out of memory does.
#[cold]
#[inline(never)]
pub(crate) fn out_of_memory(size: usize, align: usize) -> ! {
    handle_alloc_error(Layout::from_size_align(size, align).unwrap_or(Layout::new::<u8>()))
}

/// A contender as a value, for lists.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in the table.
    pub name: &'static str,
    /// Which version of it is linked.
    pub version: fn() -> String,
    /// Why its times would not be those of an optimised build, if so.
    pub flaw: fn() -> Option<String>,
    /// Makes a workload ready to run on it.
    pub open: fn(&Rc<Plan>) -> Box<dyn Running>,
}

impl Entry {
    /// The entry of a contender.
    #[must_use]
    pub const fn of<C: Contender>() -> Self {
        Self {
            name: C::NAME,
            version: C::version,
            flaw: C::flaw,
            open: |plan| Box::new(Session::<C>::open(plan)),
        }
    }
}

/// All contenders: spanalloc first, then the peers (if built), the system's malloc, and spanalloc's
/// other allocator.
#[must_use]
pub fn contenders() -> Vec<Entry> {
    let mut all = vec![Entry::of::<This>()];
    #[cfg(feature = "peers")]
    all.extend(crate::peers::PEERS);
    all.extend([Entry::of::<Malloc>(), Entry::of::<Other>()]);
    all
}

/// spanalloc's facade.
#[derive(Debug)]
pub struct This;

impl Contender for This {
    const NAME: &'static str = "spanalloc";
    type Allocator = Spanalloc;
    const ALLOCATOR: Spanalloc = Spanalloc;

    fn version() -> String {
        format!("{}, policy Fast", env!("CARGO_PKG_VERSION"))
    }
}

/// The facade's allocator that checks the program.
#[derive(Debug)]
pub struct Other;

impl Contender for Other {
    const NAME: &'static str = "spanalloc, checked";
    type Allocator = Checked;
    const ALLOCATOR: Checked = Checked;

    fn version() -> String {
        format!("{}, policy Checked", env!("CARGO_PKG_VERSION"))
    }
}

/// The system's malloc.
#[derive(Debug)]
pub struct Malloc;

impl Contender for Malloc {
    const NAME: &'static str = "system";
    type Allocator = System;
    const ALLOCATOR: System = System;

    fn version() -> String {
        format!("malloc of {}", std::env::consts::OS)
    }
}
