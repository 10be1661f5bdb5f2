use core::fmt;

use crate::generate::{COARSE_STEP, FINE_MAX, Plan};
use crate::{Class, ClassError, MAX_CLASSES, MAX_SMALL, PAGE_BYTES, Rule};

/// Entries of the coarse lookup table: a power of two, so that a mask bounds every access.
const ENTRIES: usize = 256;
const _: () = assert!(FINE_MAX.is_power_of_two());
const _: () = assert!(MAX_SMALL / COARSE_STEP == ENTRIES);
// A class number, and the one after it, fit a byte.
const _: () = assert!(MAX_CLASSES < 1 << u8::BITS);

/// A proven table of size classes.
///
/// It can only be had from the constructors below, which prove for every class, in const evaluation
/// or at run time, that the division is exact over the whole span, that a span has 1 to
/// [`MAX_SLOTS`](crate::MAX_SLOTS) slots, and that the lookup finds the smallest class.
#[derive(Clone, PartialEq, Eq)]
pub struct SizeClasses {
    /// Class of a size up to 1024 bytes, at its last byte, `size - 1`.
    by_last: [u8; FINE_MAX],
    /// Class of a size above 1024 bytes, at `(32768 - size) / 128`, from the largest down. The
    /// entries from 248 on are not used.
    by_128: [u8; ENTRIES],
    /// How many classes there are.
    count: u8,
    /// Sum of the alignments for which rounding the size up to the alignment is enough.
    rounding: u32,
    /// Whether that is enough for every alignment, as far as the size comes to at most 1024 bytes, and each
    /// of these sizes has a class.
    fine_rounding: bool,
    /// One row for each class number a byte can hold, so that no lookup needs a check.
    rows: [Class; 1 << u8::BITS],
}

impl SizeClasses {
    /// The table that `rule` makes. For use in a `const`, where a bad rule fails to compile.
    ///
    /// # Panics
    /// With the message of the [`ClassError`] if the rule makes no table. Call
    /// [`try_generate`](Self::try_generate) at run time.
    #[allow(clippy::panic, reason = "the way to make const evaluation fail")]
    pub const fn generate(rule: &Rule) -> Self {
        match Self::try_generate(rule) {
            Ok(table) => table,
            Err(error) => panic!("{}", error.message()),
        }
    }

    /// A table of the user's own sizes, in bytes. Of `rule`, the waste limit and how spans are
    /// cut apply. For use in a `const`, where a bad list fails to compile:
    ///
    /// ```compile_fail
    /// # use spanalloc_classes::{Rule, SizeClasses};
    /// const UNSORTED: SizeClasses = SizeClasses::from_sizes(&Rule::GO, &[32, 16]);
    /// ```
    ///
    /// # Panics
    /// With the message of the [`ClassError`] if the sizes make no table. Call
    /// [`try_from_sizes`](Self::try_from_sizes) at run time.
    #[allow(clippy::panic, reason = "the way to make const evaluation fail")]
    pub const fn from_sizes(rule: &Rule, sizes: &[u32]) -> Self {
        match Self::try_from_sizes(rule, sizes) {
            Ok(table) => table,
            Err(error) => panic!("{}", error.message()),
        }
    }

    /// The table that `rule` makes.
    ///
    /// # Errors
    /// [`ClassError`] if a parameter is out of bounds, or a class of the result cannot be proven.
    pub const fn try_generate(rule: &Rule) -> Result<Self, ClassError> {
        match Plan::generate(rule) {
            Ok(plan) => Self::build(rule, &plan),
            Err(error) => Err(error),
        }
    }

    /// A table of the user's own sizes, in bytes: 1 to 127 of them, rising, at most
    /// [`MAX_SMALL`], multiples of 2 up to 16 bytes, of 8 up to 1024 and of 128 above. Of `rule`, the waste
    /// limit and how spans are cut apply.
    ///
    /// # Errors
    /// [`ClassError`] if a size or a parameter breaks these bounds, or a class cannot be proven.
    pub const fn try_from_sizes(rule: &Rule, sizes: &[u32]) -> Result<Self, ClassError> {
        match Plan::from_sizes(rule, sizes) {
            Ok(plan) => Self::build(rule, &plan),
            Err(error) => Err(error),
        }
    }

    #[allow(clippy::indexing_slicing, reason = "runs in const evaluation; `count` bounds `class`")]
    const fn build(rule: &Rule, plan: &Plan) -> Result<Self, ClassError> {
        let mut table = Self {
            by_last: [0; FINE_MAX],
            by_128: [0; ENTRIES],
            count: plan.count as u8,
            rounding: 0,
            fine_rounding: false,
            rows: [Class::NONE; 1 << u8::BITS],
        };
        let mut class = 1;
        while class <= plan.count {
            table.rows[class] =
                match Class::prove(rule, plan.bytes[class - 1], plan.pages[class - 1]) {
                    Ok(row) => row,
                    Err(error) => return Err(error),
                };
            class += 1;
        }
        let mut at = 0;
        while at < FINE_MAX {
            table.by_last[at] = table.scan(at + 1);
            at += 1;
        }
        at = 0;
        while at < ENTRIES {
            table.by_128[at] = table.scan(MAX_SMALL - at * COARSE_STEP);
            at += 1;
        }
        table.fine_rounding = table.largest() >= FINE_MAX;
        let mut align = 1;
        while align <= PAGE_BYTES {
            if table.rounding_finds(align, MAX_SMALL) {
                table.rounding |= align;
            }
            table.fine_rounding &= table.rounding_finds(align, FINE_MAX);
            align *= 2;
        }
        Ok(table)
    }

    /// The smallest class that holds `size`, by looking at one after the other; 0 if none does.
    #[allow(clippy::indexing_slicing, reason = "runs in const evaluation; a u8 indexes 256 rows")]
    const fn scan(&self, size: usize) -> u8 {
        let mut class = 1;
        while class <= self.count {
            if self.rows[class as usize].bytes as usize >= size {
                return class;
            }
            class += 1;
        }
        0
    }

    /// Whether the smallest class that holds a multiple of `align` is always a multiple of it
    /// itself, for multiples of at most `most`. Then it is also the smallest such class for all sizes
    /// that round up to that multiple.
    const fn rounding_finds(&self, align: u32, most: usize) -> bool {
        let mut size = align;
        while size <= most as u32 {
            if self.class(self.class_of(size as usize)).bytes % align != 0 {
                return false;
            }
            size += align;
        }
        true
    }

    /// Number of classes; they are `1..=count`.
    #[inline]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the largest class.
    #[inline]
    pub const fn largest(&self) -> usize {
        self.class(self.count).bytes as usize
    }

    /// The facts of a class; all zero for class 0 and for every number above the count.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "a u8 indexes 256 rows")]
    pub const fn class(&self, class: u8) -> &Class {
        &self.rows[class as usize]
    }

    /// The smallest class that holds `size` bytes; 0 if none does. Size 0 has class 1.
    #[inline(always)]
    pub const fn class_of(&self, size: usize) -> u8 {
        self.class_with(size.saturating_sub(1))
    }

    /// The smallest class whose objects have a byte `last`, counted from 0; 0 if none has.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "the mask bounds each access")]
    const fn class_with(&self, last: usize) -> u8 {
        // The masks change no index. They spare the bounds checks wherever the
        // optimiser does not see that the compares do too. Counting one table up and the other
        // down keeps it from merging the branches into one with a shift by a variable.
        if last < FINE_MAX {
            self.by_last[last & (FINE_MAX - 1)]
        } else if last < MAX_SMALL {
            self.by_128[((MAX_SMALL - 1 - last) / COARSE_STEP) & (ENTRIES - 1)]
        } else {
            0
        }
    }

    /// The last byte of an object of `size` bytes that is rounded up to `align`, a power of two. The
    /// sum of both could wrap. Size 0 has a last byte that no object has.
    #[inline(always)]
    const fn last_byte(size: usize, align: usize) -> usize {
        size.wrapping_sub(1) | align.wrapping_sub(1)
    }

    /// As [`class_for`](Self::class_for), by one compare, if neither the size nor the alignment is above
    /// 1024 bytes and the size is not 0; None else, and for some tables always.
    #[inline(always)]
    pub const fn fine_class_for(&self, size: usize, align: usize) -> Option<u8> {
        let last = Self::last_byte(size, align);
        if last < FINE_MAX && self.fine_rounding { Some(self.class_with(last)) } else { None }
    }

    /// As [`class_for`](Self::class_for), by a few compares, if some class serves it, and for an alignment
    /// for which it is enough to round the size up; None else. Size 0 may have none.
    #[inline(always)]
    pub const fn class_by_rounding(&self, size: usize, align: usize) -> Option<u8> {
        let last = Self::last_byte(size, align);
        if last < FINE_MAX && self.fine_rounding {
            return Some(self.class_with(last));
        }
        if self.rounding as usize & align == 0 {
            return None;
        }
        match self.class_with(last) {
            0 => None,
            class => Some(class),
        }
    }

    /// The smallest class that holds `size` bytes and whose objects are all aligned to `align`, a
    /// power of two; 0 if only whole pages serve it, as for every `align` above [`PAGE_BYTES`].
    ///
    /// Objects have the alignment because spans are aligned to pages and the class is a
    /// multiple of `align`. An `align` that is no power of two gives some class or 0.
    #[inline(always)]
    pub const fn class_for(&self, size: usize, align: usize) -> u8 {
        if let Some(class) = self.fine_class_for(size, align) {
            return class;
        }
        if align > PAGE_BYTES as usize {
            return 0;
        }
        // Size 0 rounds up like size 1.
        let size = if size == 0 { 1 } else { size };
        let class = self.class_with(Self::last_byte(size, align));
        if self.rounding as usize & align != 0 {
            return class;
        }
        self.step_up_slow(class, align as u32)
    }

    /// The first class from `class` on that is a multiple of `align`; 0 if there is none.
    #[cold]
    #[inline(never)]
    const fn step_up_slow(&self, mut class: u8, align: u32) -> u8 {
        // Row `count + 1`, and row 0, have 0 bytes, a multiple of everything.
        while align != 0 && self.class(class).bytes % align != 0 {
            class += 1;
        }
        if class > self.count { 0 } else { class }
    }

    /// Every class and its facts, from class 1 up.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Class)> {
        (0..=self.count).zip(&self.rows).skip(1)
    }

    /// Bytes of the table's span of `class` that are wasted in the worst case: when every object is
    /// one byte larger than the class before, and so uses only that much of its slot.
    pub const fn worst_waste(&self, class: u8) -> u32 {
        let this = self.class(class);
        if this.slots == 0 {
            return 0;
        }
        let before = self.class(class - 1).bytes;
        this.tail_waste() + this.slots * (this.bytes - before - 1)
    }
}

impl fmt::Debug for SizeClasses {
    /// The classes, without the lookup tables that follow from them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClassTable, Fine72, Go67};

    #[test]
    fn rounding_is_known_to_find_the_class_where_it_does() {
        let low = 1 + 2 + 4 + 8;
        assert_eq!(Go67::CLASSES.rounding, low + 16 + 32 + 64 + 128 + 4096 + 8192);
        assert_eq!(Fine72::CLASSES.rounding, Go67::CLASSES.rounding);
        assert!(Go67::CLASSES.fine_rounding && Fine72::CLASSES.fine_rounding);
        let (of_256, rounded) =
            (Go67::CLASSES.class_of(256), Go67::CLASSES.class_by_rounding(100, 256));
        assert_eq!(rounded, Some(of_256), "as all of that is small");
        let powers = SizeClasses::from_sizes(&Rule::GO, &[16, 32, 64, 128, 256, 512, 1024]);
        assert!(powers.fine_rounding);
        assert_eq!(
            powers.rounding,
            low + 16 + 32 + 64 + 128 + 256 + 512 + 1024 + 2048 + 4096 + 8192
        );
        let odd = SizeClasses::from_sizes(&Rule::GO, &[8, 24, 40]);
        assert!(!odd.fine_rounding, "24 and 40 are no multiples of 16");
        assert_eq!(odd.rounding, low + 64 + 128 + 256 + 512 + 1024 + 2048 + 4096 + 8192);
    }

    #[test]
    fn what_no_class_serves_has_none_by_whatever_compares() {
        for largest in [248, 256, 1016, 1024, 1152, MAX_SMALL] {
            let table = SizeClasses::from_sizes(&Rule::GO, &[16, 64, largest as u32]);
            for size in [largest + 1, largest.max(FINE_MAX) + 1, MAX_SMALL + 1, usize::MAX] {
                for align in [1, 16, 1024, 8192] {
                    assert_eq!(table.class_by_rounding(size, align), None, "{size} of {largest}");
                    assert_eq!(table.fine_class_for(size, align), None, "{size} of {largest}");
                    assert_eq!(table.class_for(size, align), 0, "{size} of {largest}");
                }
            }
            assert_eq!(table.class_by_rounding(largest, 1), Some(3), "{largest}");
        }
    }
}
