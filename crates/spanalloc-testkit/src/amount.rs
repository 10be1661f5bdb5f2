//! How much tests with random operations do: little on every change, and more when the environment says
//! so.
//!
//! | variable | says | else |
//! |---|---|---|
//! | `PROPTEST_CASES` | cases of a test | 256; tests whose cases take long have a part of it |
//! | `SPANALLOC_TEST_OPERATIONS` | operations of a case, on average | 100 |

use std::env;
use std::ops::RangeInclusive;
use std::str::FromStr;

use proptest::test_runner::Config;

/// Cases of a test unless the environment says otherwise.
const CASES: u32 = 256;
/// Operations of a case.
const OPERATIONS: usize = 100;

fn said<T: FromStr>(variable: &str) -> Option<T> {
    env::var(variable).ok()?.parse().ok()
}

/// The settings of a test that has as many cases as most.
#[must_use]
pub fn config() -> Config {
    config_of(CASES)
}

/// The settings of a test that has `cases` cases where most have 256, and as many times more where the
/// environment wants more. Failures are printed, not written to files.
#[must_use]
pub fn config_of(cases: u32) -> Config {
    let all = said::<u32>("PROPTEST_CASES").unwrap_or(CASES);
    let part = u64::from(all) * u64::from(cases) / u64::from(CASES);
    let cases = u32::try_from(part).unwrap_or(u32::MAX).max(1);
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Lengths of the lists of operations: any from 1 to twice the average, so that what fails can shrink.
#[must_use]
pub fn length() -> RangeInclusive<usize> {
    let average = said("SPANALLOC_TEST_OPERATIONS").unwrap_or(OPERATIONS);
    1..=2 * average.max(1) - 1
}
