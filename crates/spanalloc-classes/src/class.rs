use crate::{ClassError, MAX_SLOTS, PAGE_BYTES, Rule};

/// What is to know of one size class.
///
/// The table's span is the smallest that the waste limit allows, as Go publishes it. The spans that
/// an allocator cuts are a whole multiple of it, so that even large objects come many at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Object size in bytes, a multiple of 8.
    pub bytes: u32,
    /// Pages of the table's span, of [`PAGE_BYTES`] each.
    pub pages: u32,
    /// Objects of the table's span.
    pub slots: u32,
    /// Pages of a span as cut: a multiple of `pages`.
    pub span_pages: u32,
    /// Objects of a span as cut: as many as fit, at most [`MAX_SLOTS`].
    pub span_slots: u32,
    /// The factor that divides an offset in a span by `bytes`; see [`Class::index`].
    pub magic: u32,
}

impl Class {
    /// No class: all zero. No offset is an object of it.
    pub const NONE: Self =
        Self { bytes: 0, pages: 0, slots: 0, span_pages: 0, span_slots: 0, magic: 0 };

    /// The class of objects of `bytes` whose table span has `pages` pages, proven, or why there is
    /// none. `bytes` is not 0 and not above the span.
    pub(crate) const fn prove(rule: &Rule, bytes: u32, pages: u32) -> Result<Self, ClassError> {
        let mut span_pages = pages;
        while span_pages * PAGE_BYTES / bytes < rule.min_slots
            && (span_pages + pages) * PAGE_BYTES <= rule.max_cut_bytes
        {
            span_pages += pages;
        }
        let class = Self {
            bytes,
            pages,
            slots: pages * PAGE_BYTES / bytes,
            span_pages,
            span_slots: span_pages * PAGE_BYTES / bytes,
            magic: magic(bytes),
        };
        if class.span_slots > MAX_SLOTS as u32 {
            return Err(ClassError::TooManySlots { bytes, slots: class.span_slots });
        }
        if !divides_exactly(bytes, class.magic, class.span_bytes()) {
            return Err(ClassError::InexactDivision { bytes, pages: span_pages });
        }
        Ok(class)
    }

    /// Index of the slot that byte `offset` of a span lies in: `offset / bytes`, by a
    /// multiplication. Exact for every offset in a span as cut; behind the last object it is
    /// `span_slots`.
    #[inline(always)]
    pub const fn index(&self, offset: u32) -> u32 {
        ((offset as u64 * self.magic as u64) >> 32) as u32
    }

    /// Index of the slot that begins at byte `offset` of a span as cut; None if no slot
    /// begins there: an interior pointer, the tail behind the last slot, or beyond the span.
    ///
    /// The test is `index * bytes == offset`. The low half of the product with `magic` is small
    /// at the start of a slot, but over spans of many pages not there alone, so it does not tell.
    #[inline(always)]
    pub const fn slot_at(&self, offset: u32) -> Option<u32> {
        let index = self.index(offset);
        // The tail may begin at a multiple of `bytes` too, hence the bound. Beyond the
        // span the index may be too large, but is never too small, so the bound holds there as well;
        // and the product cannot wrap, as `index < span_slots` was asked first.
        if index < self.span_slots && index * self.bytes == offset { Some(index) } else { None }
    }

    /// Bytes of a span as cut.
    #[inline]
    pub const fn span_bytes(&self) -> u32 {
        self.span_pages * PAGE_BYTES
    }

    /// Bytes behind the last object of the table's span.
    #[inline]
    pub const fn tail_waste(&self) -> u32 {
        self.pages * PAGE_BYTES - self.slots * self.bytes
    }

    /// Bytes behind the last object of a span as cut.
    #[inline]
    pub const fn span_tail_waste(&self) -> u32 {
        self.span_bytes() - self.span_slots * self.bytes
    }

    /// The largest alignment that every object of the class has, in bytes: the largest power of two
    /// that divides `bytes`, but no more than a page, to which spans are aligned. 0 for no class.
    #[inline]
    pub const fn min_align(&self) -> u32 {
        let align = self.bytes & self.bytes.wrapping_neg();
        if align < PAGE_BYTES { align } else { PAGE_BYTES }
    }
}

/// `2^32 / bytes`, rounded up. `bytes` is at least 2.
const fn magic(bytes: u32) -> u32 {
    u32::MAX / bytes + 1
}

/// Whether `offset * magic >> 32 == offset / bytes` is proven for every offset below `span`.
///
/// Let `e = magic * bytes - 2^32`; rounding up makes it `0 <= e < bytes`. With
/// `offset = q * bytes + r` the exact product is
/// `offset * magic / 2^32 = q + (r + offset * e / 2^32) / bytes`.
/// As `r <= bytes - 1`, the fraction stays below 1, and the shift gives `q`, whenever
/// `offset * e < 2^32`. The left side is largest at the last offset.
const fn divides_exactly(bytes: u32, magic: u32, span: u32) -> bool {
    let product = magic as u64 * bytes as u64;
    if product < 1 << 32 {
        return false;
    }
    (product - (1 << 32)) * (span as u64 - 1) < 1 << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exactly_offset_times_excess_below_two_to_the_32() {
        // 8 * 2^29 is 2^32: no excess, so any span will do.
        assert!(divides_exactly(8, 1 << 29, u32::MAX));
        // One more makes the excess 8: the last offset has to be below 2^29.
        assert!(divides_exactly(8, (1 << 29) + 1, 1 << 29));
        assert!(!divides_exactly(8, (1 << 29) + 1, (1 << 29) + 1));
        // One less is rounded down, and wrong at the first slot already.
        assert!(!divides_exactly(8, (1 << 29) - 1, 8));
    }

    #[test]
    fn every_size_is_proven_over_128_kilobytes() {
        for bytes in (8..=32768).step_by(8) {
            assert!(divides_exactly(bytes, magic(bytes), 128 << 10), "{bytes}");
        }
    }

    #[test]
    fn the_division_goes_wrong_beyond_the_proof() {
        let class = Class { bytes: 8960, magic: magic(8960), ..Class::NONE };
        let wrong = (1..u32::MAX / 8960)
            .map(|slot| slot * 8960 - 1)
            .find(|last| class.index(*last) != last / 8960);
        let wrong = wrong.unwrap();
        assert!(!divides_exactly(8960, class.magic, wrong + 1));
        // The proof is not far from the truth: it ends within one object of it.
        assert!(divides_exactly(8960, class.magic, wrong - 8960));
    }

    #[test]
    fn the_low_half_of_the_product_does_not_tell_a_slot() {
        // At the start of a slot the low half is `slot * excess`, which is only small for few slots.
        let class = Class { bytes: 48, span_slots: 1024, magic: magic(48), ..Class::NONE };
        assert_eq!(class.slot_at(1000 * 48), Some(1000));
        assert!((class.magic.wrapping_mul(1000 * 48)) > class.magic.wrapping_mul(48));
        assert_eq!(class.slot_at(1000 * 48 + 1), None);
    }
}
