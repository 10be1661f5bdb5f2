//! 512 bits, one a page of a chunk, changed and searched by words.

/// log2 of [`CHUNK_PAGES`].
pub(crate) const CHUNK_PAGE_BITS: u32 = 9;
/// Pages of a chunk.
pub(crate) const CHUNK_PAGES: usize = 1 << CHUNK_PAGE_BITS;
/// Words of a chunk's bitmap.
const WORDS: usize = CHUNK_PAGES / 64;

/// One bit for each page of a chunk. All zeros is a valid value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bits([u64; WORDS]);

/// The lowest `count` bits; `count` is at most 64.
#[inline]
pub(crate) fn low_ones(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// The bits at which `length` consecutive ones of `word` begin.
#[inline]
pub(crate) fn runs_of(mut word: u64, length: u32) -> u64 {
    // Each bit of `word` says that `known` ones begin there; known doubles until it is `length`.
    let mut known = 1;
    while known < length && word != 0 {
        let step = known.min(length - known).min(63);
        word &= word >> step;
        known += step;
    }
    word
}

/// The words that the bits `from .. from + count` lie in, each with the mask of its part.
#[inline]
fn parts(from: usize, count: usize) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    let end = from + count;
    (from / 64..end.div_ceil(64)).map(move |index| {
        let first = from.saturating_sub(index * 64);
        let last = (end - index * 64).min(64);
        (index, low_ones(last - first) << first)
    })
}

impl Bits {
    /// The 64 bits from `64 * index`.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// Sets the bits of `mask` in word `index`.
    #[inline]
    pub(crate) fn set_word(&mut self, index: usize, mask: u64) {
        if let Some(word) = self.0.get_mut(index) {
            *word |= mask;
        }
    }

    /// Clears the bits of `mask` in word `index`.
    #[inline]
    pub(crate) fn clear_word(&mut self, index: usize, mask: u64) {
        if let Some(word) = self.0.get_mut(index) {
            *word &= !mask;
        }
    }

    /// Sets the bits `from .. from + count`.
    #[inline]
    pub(crate) fn set(&mut self, from: usize, count: usize) {
        for (index, mask) in parts(from, count) {
            self.set_word(index, mask);
        }
    }

    /// Clears the bits `from .. from + count`.
    #[inline]
    pub(crate) fn clear(&mut self, from: usize, count: usize) {
        for (index, mask) in parts(from, count) {
            self.clear_word(index, mask);
        }
    }

    /// Whether every bit of `from .. from + count` is set.
    #[inline]
    pub(crate) fn all(&self, from: usize, count: usize) -> bool {
        parts(from, count).all(|(index, mask)| self.word(index) & mask == mask)
    }

    /// Whether a bit of `from .. from + count` is set.
    #[inline]
    pub(crate) fn any(&self, from: usize, count: usize) -> bool {
        parts(from, count).any(|(index, mask)| self.word(index) & mask != 0)
    }

    /// How many bits of `from .. from + count` are set.
    pub(crate) fn count(&self, from: usize, count: usize) -> usize {
        parts(from, count)
            .map(|(index, mask)| (self.word(index) & mask).count_ones() as usize)
            .sum()
    }

    /// The bits that are set here and not in `other`.
    #[inline]
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut result = *self;
        for (word, minus) in result.0.iter_mut().zip(&other.0) {
            *word &= !minus;
        }
        result
    }

    /// The bits that are set in both.
    #[inline]
    pub(crate) fn both(&self, other: &Self) -> Self {
        let mut result = *self;
        for (word, and) in result.0.iter_mut().zip(&other.0) {
            *word &= and;
        }
        result
    }

    /// The first bit of `from .. CHUNK_PAGES` that is `value`.
    pub(crate) fn next(&self, from: usize, value: bool) -> Option<usize> {
        let flip = if value { 0 } else { u64::MAX };
        parts(from, CHUNK_PAGES.saturating_sub(from)).find_map(|(index, mask)| {
            let hits = (self.word(index) ^ flip) & mask;
            (hits != 0).then(|| index * 64 + hits.trailing_zeros() as usize)
        })
    }

    /// The last bit of `0 .. end` that is `value`.
    pub(crate) fn last(&self, end: usize, value: bool) -> Option<usize> {
        let flip = if value { 0 } else { u64::MAX };
        parts(0, end).rev().find_map(|(index, mask)| {
            let hits = (self.word(index) ^ flip) & mask;
            (hits != 0).then(|| index * 64 + hits.ilog2() as usize)
        })
    }

    /// Where the first `length` consecutive ones begin; `length` is at least 1.
    #[inline]
    pub(crate) fn find(&self, length: usize) -> Option<usize> {
        // Ones at the upper end of the words before.
        let mut before = 0;
        for (index, &word) in self.0.iter().enumerate() {
            if before + word.trailing_ones() as usize >= length {
                return Some(index * 64 - before);
            }
            if word == u64::MAX {
                before += 64;
                continue;
            }
            if length < 64 {
                let starts = runs_of(word, length as u32);
                if starts != 0 {
                    return Some(index * 64 + starts.trailing_zeros() as usize);
                }
            }
            before = word.leading_ones() as usize;
        }
        None
    }

    /// The ones at the lower end, the longest run of ones, the ones at the upper end.
    #[inline]
    pub(crate) fn runs(&self) -> (usize, usize, usize) {
        let mut start = None;
        let mut longest = 0;
        let mut run = 0;
        for &word in &self.0 {
            if word == u64::MAX {
                run += 64;
                continue;
            }
            run += word.trailing_ones() as usize;
            if start.is_none() {
                start = Some(run);
            }
            longest = longest.max(run);
            run = word.leading_ones() as usize;
        }
        longest = longest.max(run);
        // Runs that touch neither end of their word: only longer ones than known so far matter.
        for &word in &self.0 {
            if longest >= 62 {
                break;
            }
            let mut starts = runs_of(word, longest as u32 + 1);
            while starts != 0 {
                longest += 1;
                starts &= starts >> 1;
                // `starts` now marks runs of `longest + 1`.
                if longest >= 64 {
                    break;
                }
            }
        }
        (start.unwrap_or(run), longest, run)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    /// A small generator of numbers that are the same in every run.
    pub(crate) fn noise(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    fn naive(bits: &Bits) -> Vec<bool> {
        (0..CHUNK_PAGES).map(|i| bits.0[i / 64] >> (i % 64) & 1 == 1).collect()
    }

    fn naive_runs(flags: &[bool]) -> (usize, usize, usize) {
        let start = flags.iter().take_while(|&&f| f).count();
        let end = flags.iter().rev().take_while(|&&f| f).count();
        let longest = flags.split(|&f| !f).map(<[bool]>::len).max().unwrap_or(0);
        (start, longest, end)
    }

    fn naive_find(flags: &[bool], length: usize) -> Option<usize> {
        flags.windows(length).position(|window| window.iter().all(|&f| f))
    }

    pub(crate) fn samples() -> Vec<Bits> {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let mut samples = Vec::new();
        for round in 0..400 {
            let mut bits = Bits::default();
            for _ in 0..round % 12 {
                let from = noise(&mut seed) as usize % CHUNK_PAGES;
                let count = noise(&mut seed) as usize % (CHUNK_PAGES - from) + 1;
                if noise(&mut seed) % 3 == 0 {
                    bits.clear(from, count.min(70));
                } else {
                    bits.set(from, count);
                }
            }
            if round % 5 == 0 {
                for word in &mut bits.0 {
                    *word &= noise(&mut seed) | noise(&mut seed);
                }
            }
            samples.push(bits);
        }
        let mut all = Bits::default();
        all.set(0, CHUNK_PAGES);
        samples.push(all);
        samples
    }

    #[test]
    fn runs_and_find_agree_with_a_walk_over_the_bits() {
        for bits in samples() {
            let flags = naive(&bits);
            assert_eq!(bits.runs(), naive_runs(&flags), "{bits:x?}");
            for length in (1..70).chain([127, 128, 129, 400, 511, 512]) {
                assert_eq!(bits.find(length), naive_find(&flags, length), "{length} in {bits:x?}");
            }
        }
    }

    #[test]
    fn ranges_agree_with_a_walk_over_the_bits() {
        let mut seed = 77;
        for bits in samples() {
            let flags = naive(&bits);
            for _ in 0..20 {
                let from = noise(&mut seed) as usize % CHUNK_PAGES;
                let count = noise(&mut seed) as usize % (CHUNK_PAGES - from) + 1;
                let part = &flags[from..from + count];
                assert_eq!(bits.all(from, count), part.iter().all(|&f| f));
                assert_eq!(bits.any(from, count), part.iter().any(|&f| f));
                assert_eq!(bits.count(from, count), part.iter().filter(|&&f| f).count());
                for value in [false, true] {
                    let next = flags[from..].iter().position(|&f| f == value).map(|i| i + from);
                    assert_eq!(bits.next(from, value), next);
                    let last = flags[..from].iter().rposition(|&f| f == value);
                    assert_eq!(bits.last(from, value), last);
                }
                let mut set = bits;
                set.set(from, count);
                let mut clear = bits;
                clear.clear(from, count);
                let (set, clear) = (naive(&set), naive(&clear));
                for i in 0..CHUNK_PAGES {
                    let inside = (from..from + count).contains(&i);
                    assert_eq!(set[i], inside || flags[i]);
                    assert_eq!(clear[i], !inside && flags[i]);
                }
            }
        }
    }

    #[test]
    fn an_empty_range_is_no_bits() {
        let mut bits = Bits::default();
        bits.set(64, 0);
        assert_eq!(bits, Bits::default());
        assert!(bits.all(64, 0));
        assert_eq!(bits.next(CHUNK_PAGES, false), None);
        assert_eq!((bits.last(0, false), bits.last(CHUNK_PAGES, false)), (None, Some(511)));
    }

    #[test]
    fn words_combine_bit_by_bit() {
        let all = samples();
        for pair in all.windows(2) {
            let (a, b) = (naive(&pair[0]), naive(&pair[1]));
            let without = naive(&pair[0].without(&pair[1]));
            let both = naive(&pair[0].both(&pair[1]));
            for i in 0..CHUNK_PAGES {
                assert_eq!(without[i], a[i] && !b[i]);
                assert_eq!(both[i], a[i] && b[i]);
            }
        }
    }
}
