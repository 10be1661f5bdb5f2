use crate::{ClassError, MAX_SLOTS, MAX_SMALL, MAX_SPAN_PAGES, PAGE_BYTES};

/// What [`SizeClasses`](crate::SizeClasses) are made by.
///
/// Start from [`Rule::GO`] and change what should differ:
///
/// ```
/// use spanalloc_classes::{Rule, SizeClasses};
///
/// const COARSE: SizeClasses = SizeClasses::generate(&Rule { steps_per_doubling: 4, ..Rule::GO });
/// assert_eq!(COARSE.count(), 54);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The generator tries no size above this, in bytes: 8 to [`MAX_SMALL`].
    pub largest: u32,
    /// Up to 16 bytes, sizes step by this, in bytes: 2, 4 or 8. The least size is 4 bytes.
    pub tiny_step: u32,
    /// From 128 bytes up, sizes step by 1/this of the power of two below them: 1, 2, 4 or 8.
    pub steps_per_doubling: u32,
    /// No step is wider than this, in bytes: a power of two from 128 to [`MAX_SMALL`].
    pub max_step: u32,
    /// A span of the table wastes at most 1/this of its bytes behind its last object: at least 1.
    pub waste_divisor: u32,
    /// Slots that a span should have when it is cut: 1 to [`MAX_SLOTS`].
    pub min_slots: u32,
    /// A span is not multiplied beyond this many bytes when it is cut: at most
    /// [`MAX_SPAN_PAGES`] pages. With 0, spans are cut as the table says.
    pub max_cut_bytes: u32,
}

impl Rule {
    /// The rule behind the 67 classes of Go, with spans cut for at least 64 slots up to 128 KB.
    pub const GO: Self = Self {
        largest: MAX_SMALL as u32,
        tiny_step: 8,
        steps_per_doubling: 8,
        max_step: 256,
        waste_divisor: 8,
        min_slots: 64,
        max_cut_bytes: 128 << 10,
    };

    /// Whether every parameter is within its bounds.
    pub(crate) const fn check(&self) -> Result<(), ClassError> {
        let bound = if self.largest < 8 || self.largest > MAX_SMALL as u32 {
            "rule of size classes: `largest` is 8 to 32768"
        } else if !matches!(self.tiny_step, 2 | 4 | 8) {
            "rule of size classes: `tiny_step` is 2, 4 or 8"
        } else if !self.steps_per_doubling.is_power_of_two() || self.steps_per_doubling > 8 {
            "rule of size classes: `steps_per_doubling` is 1, 2, 4 or 8"
        } else if !self.max_step.is_power_of_two()
            || self.max_step < 128
            || self.max_step > MAX_SMALL as u32
        {
            "rule of size classes: `max_step` is a power of two from 128 to 32768"
        } else if self.waste_divisor == 0 {
            "rule of size classes: `waste_divisor` is at least 1"
        } else if self.min_slots == 0 || self.min_slots > MAX_SLOTS as u32 {
            "rule of size classes: `min_slots` is 1 to 2048"
        } else if self.max_cut_bytes > MAX_SPAN_PAGES * PAGE_BYTES {
            "rule of size classes: `max_cut_bytes` is at most 64 pages of 8192 bytes"
        } else {
            return Ok(());
        };
        Err(ClassError::BadRule { bound })
    }

    /// The least size.
    pub(crate) const fn smallest(&self) -> u32 {
        if self.tiny_step < 4 { 4 } else { self.tiny_step }
    }

    /// How far the candidate after `size` lies from it.
    pub(crate) const fn step(&self, size: u32) -> u32 {
        if size < 16 {
            return self.tiny_step;
        }
        if size < 32 {
            return 8;
        }
        if size < 128 {
            return 16;
        }
        let step = (1 << size.ilog2()) / self.steps_per_doubling;
        if step < self.max_step { step } else { self.max_step }
    }

    /// Pages of the smallest span of objects of `bytes` (not 0) that wastes little enough.
    pub(crate) const fn pages(&self, bytes: u32) -> Result<u32, ClassError> {
        let mut pages = 1;
        while pages <= MAX_SPAN_PAGES {
            let span = pages * PAGE_BYTES;
            if span >= bytes && span % bytes <= span / self.waste_divisor {
                return Ok(pages);
            }
            pages += 1;
        }
        Err(ClassError::SpanTooLong { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_step_as_the_rule_says() {
        for (from, to, step) in [
            (8, 24, 8),
            (32, 112, 16),
            (128, 240, 16),
            (256, 480, 32),
            (512, 960, 64),
            (1024, 1920, 128),
            (2048, 32512, 256),
        ] {
            assert_eq!((Rule::GO.step(from), Rule::GO.step(to)), (step, step), "{from}");
        }
        let coarse = Rule { steps_per_doubling: 1, max_step: 32768, ..Rule::GO };
        assert_eq!(coarse.step(128), 128);
        assert_eq!(coarse.step(16384), 16384);
    }

    #[test]
    fn a_span_is_the_shortest_within_the_waste_limit() {
        assert_eq!(Rule::GO.pages(8), Ok(1));
        // One page of 7168 wastes exactly 1/8. 8 bytes less waste more than 1/8 of 1 to 6 pages,
        // until 7 pages have room for 8 objects.
        assert_eq!(Rule::GO.pages(7168), Ok(1));
        assert_eq!(Rule::GO.pages(7160), Ok(7));
        assert_eq!(Rule { waste_divisor: 1, ..Rule::GO }.pages(8200), Ok(2));
        // The longest span that may be.
        assert_eq!(Rule { waste_divisor: 1000, ..Rule::GO }.pages(13440), Ok(64));
        // 63 and 65 are odd: only so many whole pages leave no tail.
        let tight = Rule { waste_divisor: u32::MAX, ..Rule::GO };
        assert_eq!(tight.pages(63 * 128), Ok(63));
        assert_eq!(tight.pages(64 * 128), Ok(1));
        assert_eq!(tight.pages(65 * 128), Err(ClassError::SpanTooLong { bytes: 65 * 128 }));
    }
}
