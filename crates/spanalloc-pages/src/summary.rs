use crate::bitmap::{Bits, CHUNK_PAGES};

/// Bits of one field of a summary.
const FIELD_BITS: u32 = 21;
/// The largest number of pages a field can say; a field that holds it says "this many or more".
pub(crate) const SATURATED: u64 = (1 << FIELD_BITS) - 1;

/// The free runs of a piece of address space, in one word.
///
/// A word is in one of these states:
///
/// | word                | the pages of the piece                                              |
/// |---------------------|---------------------------------------------------------------------|
/// | 0                   | none is free                                                        |
/// | bit 63 alone        | all are free; how many is a matter of the level                     |
/// | bit 63 clear, not 0 | bits 0..21 free at its lower end, 21..42 longest free run, 42..63 free at its upper end |
///
/// A field that holds [`SATURATED`] means that many pages or more. Nothing is lost by that for
/// runs of at most `SATURATED` pages (16 GB): where an end is saturated, so is the longest run, and
/// a search goes down into the piece instead of using the end. Longer runs are searched for
/// differently ([`Tree::first_fit_huge_slow`](crate::tree::Tree)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Summary(u64);

impl Summary {
    /// Every page is free.
    pub(crate) const ALL: Self = Self(1 << 63);

    #[inline]
    fn new(start: u64, longest: u64, end: u64) -> Self {
        Self(
            start.min(SATURATED)
                | longest.min(SATURATED) << FIELD_BITS
                | end.min(SATURATED) << (2 * FIELD_BITS),
        )
    }

    /// The summary of a chunk whose free pages are the ones of `free`.
    #[inline]
    pub(crate) fn of_chunk(free: &Bits) -> Self {
        let (start, longest, end) = free.runs();
        if start == CHUNK_PAGES {
            Self::ALL
        } else {
            Self::new(start as u64, longest as u64, end as u64)
        }
    }

    /// The summary of neighbours of `pages` pages each, given in the order of their addresses.
    #[inline]
    pub(crate) fn of_children(children: &[Self], pages: u64) -> Self {
        let mut start = None;
        let mut longest = 0;
        let mut run = 0;
        for child in children {
            if child.is_all() {
                run += pages;
                continue;
            }
            run += child.start();
            if start.is_none() {
                start = Some(run);
            }
            longest = longest.max(run).max(child.longest());
            run = child.end();
        }
        match start {
            Some(start) => Self::new(start, longest.max(run), run),
            None => Self::ALL,
        }
    }

    /// The summary of a parent of which this is the only child with a free page, the first or the last
    /// one or one between, and has `pages` pages.
    #[inline]
    pub(crate) fn alone(self, pages: u64, first: bool, last: bool) -> Self {
        let (start, longest, end) = if self.is_all() {
            (pages, pages, pages)
        } else {
            (self.start(), self.longest(), self.end())
        };
        Self::new(if first { start } else { 0 }, longest, if last { end } else { 0 })
    }

    /// Whether no page is free.
    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether every page is free.
    #[inline]
    pub(crate) fn is_all(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Free pages at the lower end, unless all are free.
    #[inline]
    pub(crate) fn start(self) -> u64 {
        self.0 & SATURATED
    }

    /// Pages of the longest free run, unless all are free.
    #[inline]
    pub(crate) fn longest(self) -> u64 {
        self.0 >> FIELD_BITS & SATURATED
    }

    /// Free pages at the upper end, unless all are free.
    #[inline]
    pub(crate) fn end(self) -> u64 {
        self.0 >> (2 * FIELD_BITS) & SATURATED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks() {
        let mut free = Bits::default();
        assert!(Summary::of_chunk(&free).is_none());
        free.set(0, CHUNK_PAGES);
        assert_eq!(Summary::of_chunk(&free), Summary::ALL);
        free.clear(500, 1);
        let summary = Summary::of_chunk(&free);
        assert_eq!((summary.start(), summary.longest(), summary.end()), (500, 500, 11));
        assert!(!summary.is_all() && !summary.is_none());
    }

    #[test]
    fn neighbours_join() {
        let low = Summary::new(3, 5, 4);
        let high = Summary::new(6, 7, 0);
        let both = Summary::of_children(&[low, Summary::ALL, high], 512);
        assert_eq!((both.start(), both.longest(), both.end()), (3, 4 + 512 + 6, 0));
        let open = Summary::of_children(&[Summary::ALL, low, Summary::ALL], 512);
        assert_eq!((open.start(), open.longest(), open.end()), (515, 516, 516));
        assert_eq!(Summary::of_children(&[Summary::ALL; 8], 512), Summary::ALL);
        assert_eq!(Summary::of_children(&[Summary::default(); 8], 512), Summary(0));
    }

    #[test]
    fn an_only_child_is_summarised_like_one_of_many() {
        let children = [Summary::new(3, 5, 4), Summary::new(0, 9, 0), Summary::ALL];
        for child in children {
            for index in 0..8 {
                let mut all = [Summary::default(); 8];
                all[index] = child;
                let expected = Summary::of_children(&all, 512);
                assert_eq!(child.alone(512, index == 0, index == 7), expected, "{child:?} {index}");
            }
        }
    }

    #[test]
    fn long_runs_saturate_and_stay_so() {
        let piece =
            Summary::of_children(&[Summary::ALL, Summary::default(), Summary::ALL], 1 << 30);
        assert_eq!(
            (piece.start(), piece.longest(), piece.end()),
            (SATURATED, SATURATED, SATURATED)
        );
        assert!(!piece.is_all());
        let above = Summary::of_children(&[Summary::ALL, piece, Summary::default()], 1 << 33);
        assert_eq!((above.start(), above.longest(), above.end()), (SATURATED, SATURATED, 0));
    }
}
