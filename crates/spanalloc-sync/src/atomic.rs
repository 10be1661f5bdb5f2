//! The atomics every layer uses: `core`'s own, or loom's when the build says `--cfg loom`.
//!
//! Loom's atomics have no `const fn new` and may only be made inside a model. The versions here
//! keep their first value and take a loom object on first use, so that one `const fn new` serves
//! both builds and no other file needs to know which one it is compiled for.

#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use modelled::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Integer,
    Modelled, Value,
};

/// The cheap half of a fence between two threads of which one makes all threads of the process pass a full
/// fence, by a system call, and the other one does this: so the processor need do nothing here. In a model it is a
/// full fence, as that is what the system call makes of it.
#[inline(always)]
pub fn light_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

#[cfg(loom)]
mod modelled {
    use super::Ordering;
    use crate::model::Slot;
    use std::thread::panicking;

    /// A value that fits an atomic.
    pub trait Value: Copy + PartialEq {
        /// The value in the highest bits of a word, so that sums wrap where the type does.
        fn to_high_bits(self) -> u64;

        /// The value that [`to_high_bits`](Self::to_high_bits) made this word of.
        fn from_high_bits(bits: u64) -> Self;
    }

    /// A value that can be counted with.
    pub trait Integer: Value {}

    /// The two traits for an integer: the same two lines for every width.
    macro_rules! integer {
        ($($integer:ty),*) => {
            $(
                impl Value for $integer {
                    fn to_high_bits(self) -> u64 {
                        (self as u64) << (64 - <$integer>::BITS)
                    }

                    fn from_high_bits(bits: u64) -> Self {
                        (bits >> (64 - <$integer>::BITS)) as $integer
                    }
                }

                impl Integer for $integer {}
            )*
        };
    }

    integer!(u8, u16, u32, u64, usize);

    impl Value for bool {
        fn to_high_bits(self) -> u64 {
            u64::from(self)
        }

        fn from_high_bits(bits: u64) -> Self {
            bits != 0
        }
    }

    impl<T> Value for *mut T {
        fn to_high_bits(self) -> u64 {
            (self as usize).to_high_bits()
        }

        fn from_high_bits(bits: u64) -> Self {
            usize::from_high_bits(bits) as *mut T
        }
    }

    /// An atomic as loom sees it, with a `const` constructor.
    ///
    /// The loom object holds the difference to the first value, so it may be made, as zero, at the
    /// start of the model: that is before everything else in it, whichever thread is the first to
    /// use the atomic.
    ///
    /// While a panic unwinds nothing is modelled any more: loads find the first value and
    /// exchanges succeed, so that destructors come to their end and the panic to the test.
    #[derive(Debug)]
    pub struct Modelled<V> {
        first: V,
        object: Slot<loom::sync::atomic::AtomicU64>,
    }

    /// `AtomicBool` as loom sees it.
    pub type AtomicBool = Modelled<bool>;
    /// `AtomicU8` as loom sees it.
    pub type AtomicU8 = Modelled<u8>;
    /// `AtomicU16` as loom sees it.
    pub type AtomicU16 = Modelled<u16>;
    /// `AtomicU32` as loom sees it.
    pub type AtomicU32 = Modelled<u32>;
    /// `AtomicU64` as loom sees it.
    pub type AtomicU64 = Modelled<u64>;
    /// `AtomicUsize` as loom sees it.
    pub type AtomicUsize = Modelled<usize>;
    /// `AtomicPtr` as loom sees it.
    pub type AtomicPtr<T> = Modelled<*mut T>;

    // SAFETY: the first value is a plain value that is only copied, a pointer too, as in an
    // `AtomicPtr`; the object is loom's and made to be shared.
    unsafe impl<V: Value> Send for Modelled<V> {}
    // SAFETY: as for `Send`.
    unsafe impl<V: Value> Sync for Modelled<V> {}

    impl<V: Value> Modelled<V> {
        /// An atomic that holds `value`.
        pub const fn new(value: V) -> Self {
            Self { first: value, object: Slot::new() }
        }

        fn encode(&self, value: V) -> u64 {
            value.to_high_bits().wrapping_sub(self.first.to_high_bits())
        }

        fn decode(&self, difference: u64) -> V {
            V::from_high_bits(difference.wrapping_add(self.first.to_high_bits()))
        }

        /// Reads the value.
        ///
        /// Loom takes `SeqCst` for `AcqRel`. A fence before each such load stands for what is missing:
        /// of two threads that write with `SeqCst` and then read so what the other one writes, one
        /// sees the other. It also orders what was written before with a weaker ordering, which the
        /// real load does not.
        pub fn load(&self, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            if order == Ordering::SeqCst {
                super::fence(Ordering::SeqCst);
            }
            self.decode(self.object.word().load(order))
        }

        /// Writes the value.
        pub fn store(&self, value: V, order: Ordering) {
            if !panicking() {
                self.object.word().store(self.encode(value), order);
            }
        }

        /// Writes the value and returns the one before.
        pub fn swap(&self, value: V, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            self.decode(self.object.word().swap(self.encode(value), order))
        }

        /// Writes `new` if the value is `current`.
        ///
        /// # Errors
        /// The value found, if it was another one.
        pub fn compare_exchange(
            &self,
            current: V,
            new: V,
            success: Ordering,
            failure: Ordering,
        ) -> Result<V, V> {
            if panicking() {
                return Ok(current);
            }
            self.object
                .word()
                .compare_exchange(self.encode(current), self.encode(new), success, failure)
                .map(|difference| self.decode(difference))
                .map_err(|difference| self.decode(difference))
        }

        /// Writes what `change` makes of the value, and returns the one before.
        ///
        /// # Errors
        /// The value found, if `change` makes nothing of it.
        pub fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            mut change: impl FnMut(V) -> Option<V>,
        ) -> Result<V, V> {
            let mut found = self.load(fetch);
            while let Some(new) = change(found) {
                match self.compare_exchange(found, new, set, fetch) {
                    Ok(before) => return Ok(before),
                    Err(other) => found = other,
                }
            }
            Err(found)
        }

        /// As [`Self::compare_exchange`]; loom does not model a failure without a reason.
        ///
        /// # Errors
        /// The value found.
        pub fn compare_exchange_weak(
            &self,
            current: V,
            new: V,
            success: Ordering,
            failure: Ordering,
        ) -> Result<V, V> {
            self.compare_exchange(current, new, success, failure)
        }
    }

    impl<V: Integer> Modelled<V> {
        /// Adds and returns the value before.
        pub fn fetch_add(&self, value: V, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            self.decode(self.object.word().fetch_add(value.to_high_bits(), order))
        }

        /// Subtracts and returns the value before.
        pub fn fetch_sub(&self, value: V, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            self.decode(self.object.word().fetch_sub(value.to_high_bits(), order))
        }

        /// Sets bits and returns the value before.
        pub fn fetch_or(&self, value: V, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            if self.first.to_high_bits() == 0 {
                return self.decode(self.object.word().fetch_or(value.to_high_bits(), order));
            }
            self.update(|bits| bits | value.to_high_bits(), order)
        }

        /// Keeps bits and returns the value before.
        pub fn fetch_and(&self, value: V, order: Ordering) -> V {
            if panicking() {
                return self.first;
            }
            if self.first.to_high_bits() == 0 {
                return self.decode(self.object.word().fetch_and(value.to_high_bits(), order));
            }
            self.update(|bits| bits & value.to_high_bits(), order)
        }

        /// What a difference cannot do in one step: one more load, and again if it was stale.
        fn update(&self, change: impl Fn(u64) -> u64, order: Ordering) -> V {
            let mut found = self.load(Ordering::Relaxed);
            loop {
                let new = V::from_high_bits(change(found.to_high_bits()));
                match self.compare_exchange(found, new, order, Ordering::Relaxed) {
                    Ok(before) => return before,
                    Err(other) => found = other,
                }
            }
        }
    }
}
