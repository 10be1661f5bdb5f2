//! How much memory is given back when: a value that knows nothing of heaps.
//!
//! What is kept is 10 % more than a peak of the pages in use, and at least [`LEAST_KEPT`] free pages. The
//! peak decays: what it is above the pages in use halves every second. So a program whose use rises and falls
//! by turns keeps the memory, and one that is done with it loses it within seconds.
//!
//! Work is paid for from a credit that grows with time. It grows by one part in [`SLOWNESS`] of it, half of what
//! is allowed, and never beyond [`MOST_CREDIT`]; the other half makes up for the credit itself and for the last
//! piece of work, whose cost is known only when it is done. So over any time of [`WINDOW`] and longer the
//! work is at most 1 % of one processor, if no piece takes longer than [`LONGEST_PIECE`]; and what a
//! longer one takes too much is missing later.

use core::time::Duration;

/// Pages that are given back at once: 2 MB.
pub(crate) const PIECE_PAGES: usize = 256;
/// Free pages that are kept in any case: 4 MB.
pub const LEAST_KEPT: usize = 512;
/// The part of the peak that is kept above it.
const SPARE_PART: usize = 10;

/// The time over which the share of a processor is counted, at least.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The longest piece of work for which that holds.
pub const LONGEST_PIECE: Duration = Duration::from_millis(100);
/// The most work that may be done at once.
pub const MOST_CREDIT: Duration = Duration::from_millis(200);
/// How much longer time is than the work that it pays for.
const SLOWNESS: u64 = 200;

const _: () = assert!(
    MOST_CREDIT.as_nanos() + LONGEST_PIECE.as_nanos() + WINDOW.as_nanos() / SLOWNESS as u128
        <= WINDOW.as_nanos() / 100,
    "all of it is 1 % of the window"
);

/// The peak decays in steps of a sixteenth of a second,
const STEP: u64 = 62_500_000;
/// by this factor, the sixteenth root of a half, in parts of 65,536.
const STEP_FACTOR: u64 = 62_757;
/// So many steps leave nothing of any peak.
const MOST_STEPS: u64 = 16 * 64;

/// How long nobody looks again when there was nothing to give, or the system took nothing.
const AFTER_NOTHING: Duration = Duration::from_secs(1);
/// How often a peak that decays is looked at.
const WHILE_DECAYING: Duration = Duration::from_millis(250);

/// What tells the time.
pub trait Clock {
    /// The time since some moment; it never goes back.
    fn now(&self) -> Duration;

    /// The time that the calling thread has been running, or all time if that is not known.
    fn busy(&self) -> Duration {
        self.now()
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn busy(&self) -> Duration {
        (**self).busy()
    }
}

/// What a heap holds, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Pages handed out now.
    pub in_use: usize,
    /// The most that were needed since the last look: handed out, or Ready when more had to become so.
    pub most: usize,
    /// Pages that have memory, handed out or not.
    pub ready: usize,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing, and there is no need to look again before this time is over.
    Rest(Duration),
    /// To give back so many pages, and to say so to [`Pacer::gave`].
    Give(usize),
}

/// Decides how much of a heap's free memory goes back, and when. All zero is a new one.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    /// Whether anybody looked yet.
    begun: bool,
    /// When the credit was reckoned last.
    at: u64,
    /// How far the peak has decayed: a moment of which whole steps are over.
    decayed_at: u64,
    /// The decaying peak of the pages in use, in parts of 65,536 of a page.
    peak: u64,
    /// Pages to keep.
    goal: usize,
    /// How much time there was for work that is not done yet; below 0 if too much was done.
    credit: i64,
    /// Before this moment there is nothing to be had.
    not_before: u64,
    /// What the thread at work had been doing when it began.
    began: u64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The credit that allows `work`.
fn price(work: u64) -> i64 {
    i64::try_from(work.saturating_mul(SLOWNESS)).unwrap_or(i64::MAX)
}

impl Pacer {
    /// One that has seen nothing, with all of the credit.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            begun: false,
            at: 0,
            decayed_at: 0,
            peak: 0,
            goal: 0,
            credit: 0,
            not_before: 0,
            began: 0,
        }
    }

    /// How many pages are kept, those in use included, as of the last look.
    #[must_use]
    pub const fn goal(&self) -> usize {
        self.goal
    }

    /// What is to be done now. Whoever is told to give begins with it at once.
    pub fn look(&mut self, clock: &impl Clock, usage: Usage) -> Advice {
        let now = nanos(clock.now());
        if !self.begun {
            self.begun = true;
            (self.at, self.decayed_at) = (now, now);
            self.credit = price(nanos(MOST_CREDIT));
        }
        let elapsed = now.saturating_sub(self.at);
        let earned = i64::try_from(elapsed).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(price(nanos(MOST_CREDIT)));
        self.at = now.max(self.at);
        self.set_goal(usage);

        // A piece at once or nothing: what is a little above the goal is no reason to begin.
        if usage.ready < self.goal.saturating_add(PIECE_PAGES) {
            let decays = (self.peak >> 16) as usize > usage.in_use;
            return Advice::Rest(if decays { WHILE_DECAYING } else { AFTER_NOTHING });
        }
        let wait = self.not_before.saturating_sub(now);
        if wait > 0 {
            return Advice::Rest(Duration::from_nanos(wait));
        }
        if self.credit < 0 {
            return Advice::Rest(Duration::from_nanos(self.credit.unsigned_abs()));
        }
        self.began = nanos(clock.busy());
        Advice::Give(PIECE_PAGES)
    }

    /// Lets the peak decay and reckons what is to be kept.
    fn set_goal(&mut self, usage: Usage) {
        let steps = self.at.saturating_sub(self.decayed_at) / STEP;
        self.decayed_at = self.decayed_at.saturating_add(steps.saturating_mul(STEP));
        let in_use = (usage.in_use as u64).saturating_mul(1 << 16);
        let mut above = self.peak.saturating_sub(in_use);
        if steps >= MOST_STEPS {
            above = 0;
        }
        for _ in 0..steps {
            if above == 0 {
                break;
            }
            above = ((u128::from(above) * u128::from(STEP_FACTOR)) >> 16) as u64;
        }
        let most = (usage.most as u64).saturating_mul(1 << 16);
        self.peak = in_use.saturating_add(above).max(most);
        let peak = (self.peak >> 16) as usize;
        let least = usage.in_use.saturating_add(LEAST_KEPT);
        self.goal = peak.saturating_add(peak / SPARE_PART).max(least);
    }

    /// Notes that what [`look`](Self::look) told to give was given as far as possible: `pages` pages.
    pub fn gave(&mut self, clock: &impl Clock, pages: usize) {
        let cost = nanos(clock.busy()).saturating_sub(self.began);
        self.credit = self.credit.saturating_sub(price(cost));
        if pages == 0 {
            self.not_before = nanos(clock.now()).saturating_add(nanos(AFTER_NOTHING));
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Time that passes when it is told to.
    #[derive(Debug, Default)]
    struct Virtual(Cell<Duration>);

    impl Virtual {
        fn pass(&self, time: Duration) {
            self.0.set(self.0.get() + time);
        }
    }

    impl Clock for Virtual {
        fn now(&self) -> Duration {
            self.0.get()
        }
    }

    /// Pages of 1 GB.
    const GIGABYTE: usize = 128 << 10;

    fn usage(in_use: usize, ready: usize) -> Usage {
        Usage { in_use, most: in_use, ready }
    }

    /// Does what is advised until nothing is; `cost` for each piece. How much was given.
    fn work(pacer: &mut Pacer, clock: &Virtual, usage: &mut Usage, cost: Duration) -> usize {
        let before = usage.ready;
        while let Advice::Give(pages) = pacer.look(clock, *usage) {
            clock.pass(cost);
            usage.ready -= pages;
            pacer.gave(clock, pages);
        }
        before - usage.ready
    }

    #[test]
    fn a_tenth_more_than_the_peak_is_kept() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        assert!(matches!(pacer.look(&clock, usage(10_000, 11_000)), Advice::Rest(_)));
        assert_eq!(pacer.goal(), 11_000);
        pacer.look(&clock, Usage { in_use: 5_000, most: 20_000, ready: 20_000 });
        assert_eq!(pacer.goal(), 22_000, "of the most there was");
        pacer.look(&clock, usage(0, 20_000));
        assert_eq!(pacer.goal(), 22_000, "no time has passed");
    }

    #[test]
    fn nothing_is_done_below_the_goal() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        for ready in [0, 1000, 1100, 1000 + LEAST_KEPT + PIECE_PAGES - 1] {
            assert!(matches!(pacer.look(&clock, usage(1000, ready)), Advice::Rest(_)));
        }
        let enough = usage(1000, 1000 + LEAST_KEPT + PIECE_PAGES);
        assert_eq!(pacer.look(&clock, enough), Advice::Give(PIECE_PAGES));
    }

    #[test]
    fn what_the_peak_is_above_the_use_halves_every_second() {
        for step_ms in [1, 10, 50, 250, 1000, 5000] {
            let (mut pacer, clock) = (Pacer::new(), Virtual::default());
            pacer.look(&clock, usage(GIGABYTE, GIGABYTE));
            for _ in 0..5000 / step_ms {
                clock.pass(Duration::from_millis(step_ms));
                pacer.look(&clock, usage(1000, 0));
            }
            let peak = pacer.goal() * 10 / 11 - 1000;
            let expected = (GIGABYTE - 1000) / 32;
            assert!(peak.abs_diff(expected) <= expected / 50 + 2, "{peak}, by {step_ms} ms");
        }
    }

    #[test]
    fn a_gigabyte_is_gone_after_ten_seconds() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        let mut heap = usage(GIGABYTE, GIGABYTE);
        pacer.look(&clock, heap);
        heap = usage(200, GIGABYTE);
        let mut looks = 0;
        while clock.now() < Duration::from_secs(8) {
            looks += 1;
            work(&mut pacer, &clock, &mut heap, Duration::from_micros(200));
            let Advice::Rest(rest) = pacer.look(&clock, heap) else { continue };
            clock.pass(rest);
        }
        assert!(heap.ready < GIGABYTE / 50, "{}", heap.ready);
        assert!(looks < 50, "nobody looks all the time: {looks}");
    }

    #[test]
    fn who_gets_nothing_rests() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        let heap = usage(0, GIGABYTE);
        assert!(matches!(pacer.look(&clock, heap), Advice::Give(_)));
        pacer.gave(&clock, 0);
        assert_eq!(pacer.look(&clock, heap), Advice::Rest(AFTER_NOTHING));
        clock.pass(AFTER_NOTHING);
        assert!(matches!(pacer.look(&clock, heap), Advice::Give(_)));
    }

    #[test]
    fn a_peak_that_decays_is_looked_at_four_times_a_second() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        assert_eq!(pacer.look(&clock, usage(1000, 1000)), Advice::Rest(AFTER_NOTHING));
        assert_eq!(pacer.look(&clock, usage(999, 1000)), Advice::Rest(WHILE_DECAYING));
        clock.pass(Duration::from_secs(100));
        assert_eq!(pacer.look(&clock, usage(999, 1000)), Advice::Rest(AFTER_NOTHING));
    }

    /// A clock that stands still while a thread runs.
    struct Still<'a>(&'a Virtual);

    impl Clock for Still<'_> {
        fn now(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn busy(&self) -> Duration {
            self.0.now()
        }
    }

    #[test]
    fn all_of_the_credit_may_be_used() {
        let (mut pacer, running) = (Pacer::new(), Virtual::default());
        // Borrowed, a clock is the same.
        let clock = &Still(&running);
        assert_eq!(Clock::now(&clock), Duration::from_secs(1));
        let heap = usage(0, GIGABYTE);
        assert_eq!(pacer.look(&clock, heap), Advice::Give(PIECE_PAGES));
        running.pass(MOST_CREDIT);
        pacer.gave(&clock, PIECE_PAGES);
        assert_eq!(pacer.look(&clock, heap), Advice::Give(PIECE_PAGES), "none is left");
        running.pass(Duration::from_millis(1));
        pacer.gave(&clock, PIECE_PAGES);
        let owed = Duration::from_millis(SLOWNESS);
        assert_eq!(pacer.look(&clock, heap), Advice::Rest(owed), "200 times as long");
    }

    #[test]
    fn absurd_numbers_do_no_harm() {
        let (mut pacer, clock) = (Pacer::new(), Virtual::default());
        let all = usize::MAX;
        for (in_use, most, ready) in [(all, all, all), (0, all, all), (all, 0, 0), (0, 0, all)] {
            pacer.look(&clock, Usage { in_use, most, ready });
            clock.pass(Duration::from_secs(1 << 40));
            pacer.gave(&clock, 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever pieces cost (up to the longest) and however time passes.
        #[test]
        fn never_more_than_one_percent(
            steps in prop::collection::vec((0_u64..30_000, 5_000_u64..=100_000), 1..60),
        ) {
            let (mut pacer, clock) = (Pacer::new(), Virtual::default());
            let mut pieces: Vec<(Duration, Duration)> = Vec::new();
            for (pass_ms, cost_us) in steps {
                while let Advice::Give(pages) = pacer.look(&clock, usage(0, usize::MAX / 2)) {
                    let began = clock.now();
                    clock.pass(Duration::from_micros(cost_us));
                    pacer.gave(&clock, pages);
                    pieces.push((began, clock.now()));
                }
                clock.pass(Duration::from_millis(pass_ms));
            }
            // The worst windows begin with a piece and end with one.
            for (first, &(from, _)) in pieces.iter().enumerate() {
                let mut busy = Duration::ZERO;
                for &(began, ended) in &pieces[first..] {
                    busy += ended - began;
                    let window = (ended - from).max(WINDOW);
                    if window > 3 * WINDOW {
                        break;
                    }
                    prop_assert!(busy <= window / 100, "{busy:?} of {window:?}");
                }
            }
        }

        /// Memory comes to lie between the goal and a piece above it, and stays there.
        #[test]
        fn converges_to_the_goal(
            in_use in 0_usize..200_000, more in 0_usize..400_000, cost_us in 1_u64..2000,
        ) {
            let (mut pacer, clock) = (Pacer::new(), Virtual::default());
            pacer.look(&clock, usage(in_use + more, in_use + more));
            let mut heap = usage(in_use, in_use + more);
            for _ in 0..4000 {
                work(&mut pacer, &clock, &mut heap, Duration::from_micros(cost_us));
                clock.pass(Duration::from_millis(250));
            }
            let settled = (in_use + in_use / SPARE_PART).max(in_use + LEAST_KEPT);
            prop_assert!(pacer.goal().abs_diff(settled) <= 1);
            prop_assert!(heap.ready < settled + PIECE_PAGES + 1);
            prop_assert!(heap.ready >= settled.min(in_use + more), "{} of {settled}", heap.ready);
        }

        /// The peak never grows by itself, and never falls below what is in use.
        #[test]
        fn the_peak_decays(
            looks in prop::collection::vec((0_u64..3000, 0_usize..100_000), 1..100),
        ) {
            let (mut pacer, clock) = (Pacer::new(), Virtual::default());
            let mut before = 0;
            for (pass_ms, in_use) in looks {
                clock.pass(Duration::from_millis(pass_ms));
                pacer.look(&clock, usage(in_use, in_use));
                let most = before.max(in_use + (in_use / SPARE_PART).max(LEAST_KEPT));
                prop_assert!(pacer.goal() <= most, "{} above {most}", pacer.goal());
                prop_assert!(pacer.goal() >= in_use + in_use / SPARE_PART);
                before = pacer.goal();
            }
        }
    }
}
