//! Slots of a span: how they are numbered, taken and given back by the span's holder.

use core::ptr;

use spanalloc_classes::Class;
use spanalloc_pages::{PAGE_BYTES, Run};
use spanalloc_sync::atomic::Ordering;

use crate::span::{LARGE, Place, SpanRef};

/// `2^32 / bytes`, rounded up: the factor by which an offset in a span is divided by the `bytes` of a
/// slot. The high half of the product is the index of the slot that the offset lies in, the low
/// half is less than the factor at the first byte of a slot, and there alone.
///
/// Let `e = reciprocal * bytes - 2^32`; rounding up makes it `0 <= e < bytes`. The product of
/// `offset = q * bytes + r` and the reciprocal is `q * 2^32 + q * e + r * reciprocal`. The last
/// two terms stay below `2^32` if `(q + 1) * e <= reciprocal`, for `r` is less than `bytes`;
/// and then `q * e` is less than the reciprocal. In a span of so many slots `q` is at most `slots`, in the tail.
/// Where that is not so, which is for no class of the project's tables, it is 0: the span is to be divided.
#[inline]
pub(crate) const fn reciprocal(bytes: u32, slots: usize) -> u32 {
    if bytes < 2 {
        return 0;
    }
    let factor = u32::MAX / bytes + 1;
    let error = factor.wrapping_mul(bytes);
    if (slots as u64 + 1) * error as u64 <= factor as u64 { factor } else { 0 }
}

/// What [`SpanRef::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many slots.
    pub count: usize,
    /// Whether all of them are known to hold zeros.
    pub zeroed: bool,
}

/// What [`SpanRef::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The slot is free again.
    Done,
    /// The slot is free again, and the span may have to change its place.
    Notify,
    /// The slot was free already: nothing was done.
    Twice,
}

/// Bits of a span's free bitmap: one for each slot, and one for a tail that is too short for a slot. That
/// one is always set, as nothing there is live.
#[inline]
pub(crate) const fn bits_of(slots: usize, bytes: usize, pages: usize) -> usize {
    slots + (slots * bytes < pages * PAGE_BYTES) as usize
}

/// The bits of a word of a bitmap that stand for numbers below `end`.
#[inline]
pub(crate) const fn ones_below(end: usize, word: usize) -> u64 {
    match end.saturating_sub(word * 64) {
        left @ 0..64 => (1 << left) - 1,
        _ => u64::MAX,
    }
}

/// The product of an offset in a span and its reciprocal, or of any offset and 0.
#[inline(always)]
const fn product(offset: usize, reciprocal: u32) -> u64 {
    (offset as u64).wrapping_mul(reciprocal as u64)
}

impl SpanRef {
    /// Bits of the free bitmap that are in use.
    #[inline]
    pub(crate) fn bits(self) -> usize {
        if self.class() == LARGE {
            return 1;
        }
        bits_of(self.slots(), self.bytes(), self.pages())
    }

    /// Makes a descriptor from the pool the span of `run`, all slots free, at [`Place::Current`].
    ///
    /// # Safety
    /// The caller took the descriptor from the pool for `words` words, which hold the span's bits, and
    /// owns the run, which has room for that many slots of the class and no more.
    pub unsafe fn cut(self, words: usize, class: u8, facts: &Class, slots: usize, run: Run) {
        self.begin(words, class, slots, run);
        self.head().reciprocal.store(reciprocal(facts.bytes, slots), Ordering::Relaxed);
        let shared = self.shared();
        shared.bytes.store(facts.bytes, Ordering::Relaxed);
        shared.pages.store(run.pages as u32, Ordering::Relaxed);
        shared.fresh.store(0, Ordering::Relaxed);
        let bits = bits_of(slots, facts.bytes as usize, run.pages);
        for word in 0..words {
            self.free_word(word).store(ones_below(bits, word), Ordering::Relaxed);
        }
        self.set_place(Place::Current);
    }

    /// The slot that `address` lies in. The address is inside the span, which is not a large object.
    #[inline(always)]
    pub fn slot_of(self, address: usize) -> usize {
        let offset = self.offset_of(address);
        match self.head().reciprocal.load(Ordering::Relaxed) {
            0 => offset.checked_div(self.bytes()).unwrap_or(0),
            reciprocal => (product(offset, reciprocal) >> 32) as usize,
        }
    }

    /// The slot that starts at `address`; None if none does, and always for a large object.
    #[inline(always)]
    pub fn slot_at(self, address: usize) -> Option<usize> {
        let reciprocal = self.head().reciprocal.load(Ordering::Relaxed);
        if reciprocal == 0 {
            return self.slot_at_slow(address);
        }
        let offset = self.offset_of(address);
        if offset as u64 > u32::MAX.into() {
            return None;
        }
        let product = product(offset, reciprocal);
        let slot = (product >> 32) as usize;
        ((product as u32) < reciprocal && slot < self.slots()).then_some(slot)
    }

    #[cold]
    #[inline(never)]
    fn slot_at_slow(self, address: usize) -> Option<usize> {
        if self.class() == LARGE {
            return None;
        }
        let (offset, bytes) = (self.offset_of(address), self.bytes());
        let slot = offset.checked_div(bytes)?;
        (slot * bytes == offset && slot < self.slots()).then_some(slot)
    }

    /// As [`slot_at`](Self::slot_at), but of an address that lies in the span. It may be the number of slots, that of
    /// a tail, whose bit says that it is not live; and None although a slot starts there if to say so takes a
    /// division.
    #[inline(always)]
    pub fn slot_or_tail_at(self, address: usize) -> Option<usize> {
        let reciprocal = self.head().reciprocal.load(Ordering::Relaxed);
        let product = product(self.offset_of(address), reciprocal);
        ((product as u32) < reciprocal).then_some((product >> 32) as usize)
    }

    /// Bytes from the start of the span to `address`, which is inside it.
    #[inline(always)]
    pub fn offset_of(self, address: usize) -> usize {
        address.wrapping_sub(self.base())
    }

    /// Address of a slot.
    #[inline(always)]
    pub fn address_of(self, slot: usize) -> usize {
        self.base() + slot * self.bytes()
    }

    /// Takes up to `want` free slots, lowest first, and writes their addresses to the front of
    /// `out`, the lowest first.
    ///
    /// # Safety
    /// The caller is the holder; `out` has room for `want`.
    #[inline]
    pub unsafe fn take(self, out: *mut *mut u8, want: usize) -> Taken {
        let used = self.used();
        let count = want.min(self.slots() - used);
        let (base, bytes) = (self.base(), self.bytes());
        let (mut left, mut word) = (count, 0);
        let (mut first, mut end) = (usize::MAX, 0);
        while left > 0 {
            let mut bits = self.free_word(word).load(Ordering::Relaxed);
            if bits == 0 {
                word += 1;
                continue;
            }
            let lowest = bits.trailing_zeros();
            first = first.min(word * 64 + lowest as usize);
            if bits & bits.wrapping_add(1 << lowest) == 0 {
                // They are neighbours, as in a span that is new.
                let run = (bits >> lowest).trailing_ones().min(left as u32);
                let slot = word * 64 + lowest as usize;
                end = slot + run as usize;
                for address in (base + slot * bytes..).step_by(bytes).take(run as usize) {
                    // SAFETY: 0 < left <= count <= want, which `out` has room for (contract).
                    unsafe {
                        out.add(count - left).write(ptr::with_exposed_provenance_mut(address))
                    };
                    left -= 1;
                }
                bits &= u64::MAX.checked_shl(lowest + run).unwrap_or(0);
            }
            while bits != 0 && left > 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                end = slot + 1;
                bits &= bits - 1;
                let address = base + slot * bytes;
                // SAFETY: as above.
                unsafe { out.add(count - left).write(ptr::with_exposed_provenance_mut(address)) };
                left -= 1;
            }
            self.free_word(word).store(bits, Ordering::Relaxed);
            word += 1;
        }
        self.set_used(used + count);
        let fresh = self.handed_out_below();
        self.set_handed_out_below(fresh.max(end));
        Taken { count, zeroed: first >= fresh && self.zeroed() }
    }

    /// Gives a slot back.
    ///
    /// # Safety
    /// The caller is the holder and nobody uses the slot.
    #[inline(always)]
    pub unsafe fn put(self, slot: usize) -> Put {
        let word = self.free_word(slot / 64);
        let mask = 1 << (slot % 64);
        let bits = word.load(Ordering::Relaxed);
        if bits & mask != 0 {
            return Put::Twice;
        }
        word.store(bits | mask, Ordering::Relaxed);
        // SAFETY: the caller is the holder (contract), and the slot was used.
        unsafe { self.count_free(1) }
    }

    /// Gives the slots `mask` of a word of the bitmap back.
    ///
    /// # Errors
    /// A slot that is free already; nothing was done then.
    ///
    /// # Safety
    /// The caller is the holder, and nobody uses the slots.
    #[inline(always)]
    pub unsafe fn put_all(self, word: usize, mask: u64) -> Result<Put, usize> {
        let free = self.free_word(word);
        let bits = free.load(Ordering::Relaxed);
        if bits & mask != 0 {
            return Err(word * 64 + (bits & mask).trailing_zeros() as usize);
        }
        free.store(bits | mask, Ordering::Relaxed);
        // SAFETY: the caller is the holder (contract), and the slots were used.
        Ok(unsafe { self.count_free(mask.count_ones()) })
    }

    /// Counts slots out of the used ones.
    ///
    /// # Safety
    /// The caller is the holder and has set the bits of so many used slots.
    #[inline(always)]
    pub unsafe fn count_free(self, slots: u32) -> Put {
        let left = self.head().left.load(Ordering::Relaxed).wrapping_sub(slots as u16);
        self.head().left.store(left, Ordering::Relaxed);
        if left as i16 <= 0 { Put::Notify } else { Put::Done }
    }
}
