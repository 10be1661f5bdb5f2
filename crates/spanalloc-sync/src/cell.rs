//! The interior mutability the lock uses: `core`'s cell, or loom's, which reports data races.

#[cfg(loom)]
use crate::model::Slot;
#[cfg(loom)]
use std::thread::panicking;

/// Memory that is changed behind a shared reference by whoever holds the right to it.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `read` with a pointer that may be read while nobody writes.
    #[inline(always)]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with a pointer that may be written while nobody else has one.
    #[inline(always)]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }

    /// The one access to the cell until the claim is dropped. In a model, loom reports every other
    /// access in between, and every one before that did not happen before.
    #[inline(always)]
    pub fn claim(&self) -> Claim<T> {
        Claim(self.0.get())
    }
}

/// The only access to an [`UnsafeCell`], from [`UnsafeCell::claim`].
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Claim<T>(*mut T);

#[cfg(not(loom))]
impl<T> Claim<T> {
    /// A pointer that may be read and written until the claim is dropped or the cell is.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0
    }
}

/// Memory that is changed behind a shared reference; loom checks every access against the others.
#[cfg(loom)]
#[derive(Debug)]
pub struct UnsafeCell<T> {
    value: core::cell::UnsafeCell<T>,
    races: Slot<loom::cell::UnsafeCell<()>>,
}

#[cfg(loom)]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self { value: core::cell::UnsafeCell::new(value), races: Slot::new() }
    }

    /// Calls `read` with a pointer that may be read while nobody writes.
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        if panicking() {
            return read(self.value.get());
        }
        self.races.cell().with(|_| read(self.value.get()))
    }

    /// Calls `write` with a pointer that may be written while nobody else has one.
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        if panicking() {
            return write(self.value.get());
        }
        self.races.cell().with_mut(|_| write(self.value.get()))
    }

    /// The one access to the cell until the claim is dropped. Loom reports every other access in
    /// between, and every one before that did not happen before.
    pub fn claim(&self) -> Claim<T> {
        Claim {
            pointer: self.value.get(),
            races: (!panicking()).then(|| self.races.cell().get_mut()),
        }
    }
}

/// The only access to an [`UnsafeCell`], from [`UnsafeCell::claim`].
#[cfg(loom)]
#[derive(Debug)]
pub struct Claim<T> {
    pointer: *mut T,
    races: Option<loom::cell::MutPtr<()>>,
}

#[cfg(loom)]
impl<T> Claim<T> {
    /// A pointer that may be read and written until the claim is dropped or the cell is.
    pub const fn as_ptr(&self) -> *mut T {
        self.pointer
    }
}

#[cfg(loom)]
impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        // While a panic unwinds the model is over, and loom cannot be told.
        if panicking() {
            core::mem::forget(self.races.take());
        }
    }
}
