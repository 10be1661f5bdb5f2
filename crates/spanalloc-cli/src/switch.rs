use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};
use spanalloc::Spanalloc;

/// The environment variable that names the allocator of a process.
const VARIABLE: &CStr = c"SPANALLOC_DEMO_ALLOCATOR";

/// An allocator that a process of this command can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// `spanalloc::Spanalloc`; the default.
    Spanalloc,
    /// `std::alloc::System`, the `malloc` of the C library.
    System,
}

impl Choice {
    /// The name of the environment variable that a process reads its choice from.
    pub const VARIABLE: &'static str = match VARIABLE.to_str() {
        Ok(name) => name,
        Err(_) => "",
    };

    /// The variable's value for this choice.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spanalloc => "spanalloc",
            Self::System => "system",
        }
    }

    /// What the environment asks for: `System` if it says so, else `Spanalloc`. Allocates nothing.
    fn from_environment() -> Self {
        // SAFETY: the name ends in NUL. Nothing in this program changes the environment, so no
        // other thread moves what `getenv` reads, and the value stays where it is.
        let value = unsafe {
            let value = libc::getenv(VARIABLE.as_ptr());
            if value.is_null() {
                return Self::Spanalloc;
            }
            CStr::from_ptr(value)
        };
        if value.to_bytes() == Self::System.name().as_bytes() {
            Self::System
        } else {
            Self::Spanalloc
        }
    }
}

/// An allocator that is spanalloc in one process and the system's in another.
///
/// The first allocation reads the environment and decides for the whole process, so an object is
/// always freed by the allocator it came from. From then on every call is a load, two compares and
/// a jump that never changes its direction, the same for both allocators: example `switch_cost`.
///
/// | `decided` | meaning                | leaves it by                                   |
/// |-----------|------------------------|------------------------------------------------|
/// | 0         | nothing was asked yet  | the first call -> 1 or 2, by the environment   |
/// | 1         | spanalloc              | never                                          |
/// | 2         | the system's allocator | never                                          |
#[derive(Debug)]
pub struct Switch {
    decided: AtomicU8,
}

const UNDECIDED: u8 = 0;
const SPANALLOC: u8 = 1;
const SYSTEM: u8 = 2;

const fn code(choice: Choice) -> u8 {
    match choice {
        Choice::Spanalloc => SPANALLOC,
        Choice::System => SYSTEM,
    }
}

impl Switch {
    /// A switch that has not decided yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { decided: AtomicU8::new(UNDECIDED) }
    }

    /// A switch that does not ask the environment.
    #[must_use]
    pub const fn decided(choice: Choice) -> Self {
        Self { decided: AtomicU8::new(code(choice)) }
    }

    /// The allocator of this process.
    #[must_use]
    #[inline(always)]
    pub fn choice(&self) -> Choice {
        // Relaxed: the number says everything; threads that find 0 decide alike.
        let decided = self.decided.load(Ordering::Relaxed);
        if decided == UNDECIDED {
            return self.decide_slow();
        }
        if decided == SPANALLOC { Choice::Spanalloc } else { Choice::System }
    }

    #[cold]
    #[inline(never)]
    fn decide_slow(&self) -> Choice {
        let choice = Choice::from_environment();
        self.decided.store(code(choice), Ordering::Relaxed);
        choice
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: both allocators keep the contract, and `choice` never changes within a process, so an
// object is freed and resized by the allocator that made it.
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on; an object goes back to where it came from.
        unsafe {
            match self.choice() {
                Choice::Spanalloc => Apart(Spanalloc).alloc(layout),
                Choice::System => Apart(System).alloc(layout),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on; an object goes back to where it came from.
        unsafe {
            match self.choice() {
                Choice::Spanalloc => Apart(Spanalloc).dealloc(object, layout),
                Choice::System => Apart(System).dealloc(object, layout),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on; an object goes back to where it came from.
        unsafe {
            match self.choice() {
                Choice::Spanalloc => Apart(Spanalloc).alloc_zeroed(layout),
                Choice::System => Apart(System).alloc_zeroed(layout),
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on; an object goes back to where it came from.
        unsafe {
            match self.choice() {
                Choice::Spanalloc => Apart(Spanalloc).realloc(object, layout, new_size),
                Choice::System => Apart(System).realloc(object, layout, new_size),
            }
        }
    }
}

/// An allocator in functions of its own. Where one allocator's code is inlined beside the other's,
/// each call of the one saves the registers that the other needs.
struct Apart<A>(A);

// SAFETY: everything is passed on to an allocator that keeps the contract.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Apart<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.alloc(layout) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.dealloc(object, layout) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.realloc(object, layout, new_size) }
    }
}
