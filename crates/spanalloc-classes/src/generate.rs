//! From a rule, or a user's list, to the sizes and spans of a table.

use crate::{ClassError, MAX_CLASSES, MAX_SMALL, PAGE_BYTES, Rule};

/// Largest size that is looked up by the byte; above, the step is [`COARSE_STEP`].
pub(crate) const FINE_MAX: usize = 1024;
/// Every size up to [`TINY_MAX`] is a multiple of this.
pub(crate) const TINY_STEP: usize = 2;
/// Sizes up to this are tiny.
pub(crate) const TINY_MAX: usize = 16;
/// Every size above [`TINY_MAX`] is a multiple of this.
pub(crate) const FINE_STEP: usize = 8;
/// Every size above [`FINE_MAX`] is a multiple of this.
pub(crate) const COARSE_STEP: usize = 128;

/// Sizes and the pages of their spans; class `n` is entry `n - 1`.
pub(crate) struct Plan {
    pub(crate) bytes: [u32; MAX_CLASSES - 1],
    pub(crate) pages: [u32; MAX_CLASSES - 1],
    pub(crate) count: usize,
}

#[allow(clippy::indexing_slicing, reason = "runs in const evaluation; indices stay below `count`")]
impl Plan {
    const EMPTY: Self = Self { bytes: [0; MAX_CLASSES - 1], pages: [0; MAX_CLASSES - 1], count: 0 };

    /// A user's own sizes.
    pub(crate) const fn from_sizes(rule: &Rule, sizes: &[u32]) -> Result<Self, ClassError> {
        if let Err(error) = rule.check() {
            return Err(error);
        }
        if sizes.is_empty() {
            return Err(ClassError::Empty);
        }
        let mut plan = Self::EMPTY;
        let mut at = 0;
        while at < sizes.len() {
            let pages = match plan.pages_of_next(rule, sizes[at]) {
                Ok(pages) => pages,
                Err(error) => return Err(error),
            };
            if let Err(error) = plan.push(sizes[at], pages) {
                return Err(error);
            }
            at += 1;
        }
        Ok(plan)
    }

    /// The sizes that `rule` generates.
    pub(crate) const fn generate(rule: &Rule) -> Result<Self, ClassError> {
        if let Err(error) = rule.check() {
            return Err(error);
        }
        let mut plan = Self::EMPTY;
        let mut bytes = rule.smallest();
        while bytes <= rule.largest {
            let pages = match plan.pages_of_next(rule, bytes) {
                Ok(pages) => pages,
                Err(error) => return Err(error),
            };
            if plan.ends_with_span(pages, pages * PAGE_BYTES / bytes) {
                plan.count -= 1;
            }
            if let Err(error) = plan.push(bytes, pages) {
                return Err(error);
            }
            bytes += rule.step(bytes);
        }
        plan.raise();
        Ok(plan)
    }

    /// The pages of the span of a next class of `bytes`, if it may follow the last one.
    const fn pages_of_next(&self, rule: &Rule, bytes: u32) -> Result<u32, ClassError> {
        let before = if self.count == 0 { 0 } else { self.bytes[self.count - 1] };
        match check_size(before, bytes) {
            Ok(()) => rule.pages(bytes),
            Err(error) => Err(error),
        }
    }

    /// Whether the last class has a span of `pages` pages with `slots` objects.
    const fn ends_with_span(&self, pages: u32, slots: u32) -> bool {
        if self.count == 0 {
            return false;
        }
        let last = self.count - 1;
        self.pages[last] == pages && pages * PAGE_BYTES / self.bytes[last] == slots
    }

    const fn push(&mut self, bytes: u32, pages: u32) -> Result<(), ClassError> {
        if self.count == self.bytes.len() {
            return Err(ClassError::TooMany);
        }
        self.bytes[self.count] = bytes;
        self.pages[self.count] = pages;
        self.count += 1;
        Ok(())
    }

    /// Makes every object as large as its span allows without losing one, in steps of 128 bytes;
    /// but not as large as the class after it (which rules unlike Go's would bring about). From the
    /// largest class down, so that the class after is at its final size.
    ///
    /// The result passes [`check_size`] as well. Raised sizes are multiples of 128. None exceeds
    /// [`MAX_SMALL`]: the waste limit takes the shortest span that holds `slots` objects, as a longer
    /// one with no more objects wastes a larger part of itself; objects of at most 4 pages need at most
    /// 4 pages each; so `span / slots` is at most 4 pages, which is [`MAX_SMALL`].
    const fn raise(&mut self) {
        let mut after = u32::MAX;
        let mut left = self.count;
        while left > 0 {
            left -= 1;
            let span = self.pages[left] * PAGE_BYTES;
            let slots = span / self.bytes[left];
            let raised = (span / slots) & !(COARSE_STEP as u32 - 1);
            if raised > self.bytes[left] && raised < after {
                self.bytes[left] = raised;
            }
            after = self.bytes[left];
        }
    }
}

/// Whether a class of `bytes` may follow one of `before` (0 for none).
const fn check_size(before: u32, bytes: u32) -> Result<(), ClassError> {
    if bytes == 0 {
        return Err(ClassError::Zero);
    }
    if bytes > MAX_SMALL as u32 {
        return Err(ClassError::TooLarge { bytes });
    }
    let multiple = if bytes <= TINY_MAX as u32 {
        TINY_STEP
    } else if bytes <= FINE_MAX as u32 {
        FINE_STEP
    } else {
        COARSE_STEP
    } as u32;
    if bytes % multiple != 0 {
        return Err(ClassError::NotMultiple { bytes, multiple });
    }
    if bytes <= before {
        return Err(ClassError::Unsorted { before, bytes });
    }
    Ok(())
}
