//! The slots of a thread in the allocators that check: one pointer in thread-local storage for each.
//!
//! One of them is made for shared libraries: that of [`Checked`](crate::Checked), or with the feature
//! `hardened-slot` that of [`Hardened`](crate::Hardened). On Linux it is a symbol of the initial-exec model: two instructions, without a call to the C
//! library even in a shared library (where `thread_local!` would call `__tls_get_addr`, which may
//! allocate). Elsewhere it is a `thread_local!`.

pub(crate) use self::imp::identity;
#[cfg(not(feature = "hardened-slot"))]
pub(crate) use self::{imp as of_checked, local as of_hardened};
#[cfg(feature = "hardened-slot")]
pub(crate) use self::{imp as of_hardened, local as of_checked};

use crate::checked::heap::CacheState;
#[cfg(not(feature = "hardened-slot"))]
use crate::{checked::heap::STAGES, hardened::heap::STAGES as OTHERS};
#[cfg(feature = "hardened-slot")]
use crate::{checked::heap::STAGES as OTHERS, hardened::heap::STAGES};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod imp {
    use core::arch::{asm, global_asm};

    use super::{CacheState, STAGES};

    // The label stands behind the slot, which is read at a distance of -8 from it. So in a library
    // that is called before the dynamic linker has filled in the distance (it is 0 then), the slot
    // reads as the last word before the thread's control block, which holds null at that time.
    global_asm!(
        ".pushsection .tdata.spanalloc_slot_0_1_0,\"awT\",@progbits",
        ".balign 8",
        ".quad {first}",
        ".hidden spanalloc_slot_0_1_0",
        ".globl spanalloc_slot_0_1_0",
        ".type spanalloc_slot_0_1_0,@object",
        "spanalloc_slot_0_1_0:",
        ".popsection",
        first = sym STAGES,
    );

    /// What the calling thread's slot holds; null before the library is relocated.
    #[inline(always)]
    pub(crate) fn read() -> *const CacheState {
        let state;
        // SAFETY: reads the thread's own slot, which is there as long as the thread.
        unsafe {
            asm!(
                "mov {state}, qword ptr [rip + spanalloc_slot_0_1_0@GOTTPOFF]",
                "mov {state}, qword ptr fs:[{state} - 8]",
                state = out(reg) state,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        state
    }

    /// Sets the calling thread's slot.
    #[inline]
    pub(crate) fn write(state: *const CacheState) {
        // SAFETY: writes the thread's own slot, which is there as long as the thread.
        unsafe {
            asm!(
                "mov {at}, qword ptr [rip + spanalloc_slot_0_1_0@GOTTPOFF]",
                "mov qword ptr fs:[{at} - 8], {state}",
                at = out(reg) _,
                state = in(reg) state,
                options(nostack, preserves_flags),
            );
        }
    }

    /// A number that no other thread has at the same time.
    #[inline]
    pub(crate) fn identity() -> usize {
        let thread;
        // SAFETY: the first word of the thread's control block is its own address.
        unsafe {
            asm!(
                "mov {thread}, qword ptr fs:[0]",
                thread = out(reg) thread,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        thread
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub(crate) mod imp {
    use core::arch::{asm, global_asm};

    use super::{CacheState, STAGES};

    // The label stands before the slot, which is read at a distance of 8 from it. So in a library that
    // is called before the dynamic linker has filled in the distance (it is 0 then), the slot reads
    // as the second word of the thread's control block, which is null.
    global_asm!(
        ".pushsection .tdata.spanalloc_slot_0_1_0,\"awT\",@progbits",
        ".balign 8",
        ".hidden spanalloc_slot_0_1_0",
        ".globl spanalloc_slot_0_1_0",
        ".type spanalloc_slot_0_1_0,@object",
        "spanalloc_slot_0_1_0:",
        ".xword 0",
        ".xword {first}",
        ".popsection",
        first = sym STAGES,
    );

    /// Address of the calling thread's slot.
    #[inline(always)]
    fn address() -> *mut *const CacheState {
        let at: *mut *const CacheState;
        // SAFETY: adds the slot's distance to the thread pointer.
        unsafe {
            asm!(
                "adrp {at}, :gottprel:spanalloc_slot_0_1_0",
                "ldr {at}, [{at}, :gottprel_lo12:spanalloc_slot_0_1_0]",
                "mrs {thread}, tpidr_el0",
                "add {at}, {at}, {thread}",
                "add {at}, {at}, #8",
                at = out(reg) at,
                thread = out(reg) _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        at
    }

    /// What the calling thread's slot holds.
    #[inline(always)]
    pub(crate) fn read() -> *const CacheState {
        // SAFETY: the thread's own slot, which is there as long as the thread.
        unsafe { address().read() }
    }

    /// Sets the calling thread's slot.
    #[inline]
    pub(crate) fn write(state: *const CacheState) {
        // SAFETY: as in `read`.
        unsafe { address().write(state) }
    }

    /// A number that no other thread has at the same time.
    #[inline]
    pub(crate) fn identity() -> usize {
        address().addr()
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) mod imp {
    use core::cell::Cell;
    use core::ptr;

    use super::{CacheState, STAGES};

    std::thread_local! {
        static SLOT: Cell<*const CacheState> = const { Cell::new(&raw const STAGES.unset) };
    }

    /// What the calling thread's slot holds.
    #[inline(always)]
    pub(crate) fn read() -> *const CacheState {
        SLOT.get()
    }

    /// Sets the calling thread's slot.
    #[inline]
    pub(crate) fn write(state: *const CacheState) {
        SLOT.set(state);
    }

    /// A number that no other thread has at the same time.
    #[inline]
    pub(crate) fn identity() -> usize {
        SLOT.with(|slot| ptr::from_ref(slot).addr())
    }
}

/// The slot that is not made for shared libraries.
pub(crate) mod local {
    use core::cell::Cell;

    use super::{CacheState, OTHERS};

    std::thread_local! {
        static SLOT: Cell<*const CacheState> = const { Cell::new(&raw const OTHERS.unset) };
    }

    /// What the calling thread's slot holds.
    #[inline(always)]
    pub(crate) fn read() -> *const CacheState {
        SLOT.get()
    }

    /// Sets the calling thread's slot.
    #[inline]
    pub(crate) fn write(state: *const CacheState) {
        SLOT.set(state);
    }
}

#[cfg(test)]
mod tests {
    /// Two versions in one program have two heaps, so their slots have different names.
    #[test]
    fn the_symbol_has_the_version_in_its_name() {
        assert_eq!(env!("CARGO_PKG_VERSION").replace('.', "_"), "0_1_0");
    }
}
