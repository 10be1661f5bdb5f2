//! The sizes to which large objects are rounded up, so that what one left fits the next.

/// Sizes in each doubling, from 16 pages on. Below that every number of pages is one.
const STEPS: usize = 8;
/// Numbers of pages that are all sizes of their own.
const EXACT: usize = 2 * STEPS;
/// How many sizes there are: up to 8 MB.
pub(crate) const SIZES: usize = 64;
/// No run of so many pages or more has a size.
#[cfg(test)]
const END_PAGES: usize = EXACT << ((SIZES - EXACT) / STEPS);

/// How often the steps of the sizes around so many pages, which are no fewer than `STEPS`, were doubled.
const fn doublings(pages: usize) -> u32 {
    STEPS.leading_zeros() - pages.leading_zeros()
}

/// The number of the largest size that is not above `pages`, which are not 0 and below 8 MB.
#[inline]
pub(crate) const fn size_of_run(pages: usize) -> usize {
    if pages < EXACT {
        return pages;
    }
    let doublings = doublings(pages);
    STEPS * doublings as usize + (pages >> doublings)
}

/// The least size that has so many pages, in pages.
#[inline]
pub(crate) const fn round_up(pages: usize) -> usize {
    if pages < EXACT {
        return pages;
    }
    let step = 1 << doublings(pages);
    (pages + step - 1) & !(step - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbered_in_their_order() {
        let mut last = 0;
        for pages in 1..END_PAGES {
            let size = size_of_run(pages);
            assert!(size == last || size == last + 1, "{pages}");
            assert_eq!(size == last + 1, round_up(pages) == pages, "a size of its own: {pages}");
            last = size;
        }
        assert_eq!(last, SIZES - 1);
    }

    #[test]
    fn an_eighth_more_is_the_most_that_rounding_adds() {
        for pages in 1..END_PAGES {
            let rounded = round_up(pages);
            assert!(rounded >= pages && (rounded - pages) * STEPS <= pages, "{pages}");
            assert_eq!(round_up(rounded), rounded);
        }
    }
}
