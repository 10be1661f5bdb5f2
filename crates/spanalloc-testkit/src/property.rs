use std::cell::{Cell, RefCell};
use std::fmt::{self, Display, Formatter};

use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use crate::{Failure, Mix, Operation, Summary, amount, operations};

/// What a property test came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tested {
    /// Lists of operations.
    pub cases: usize,
    /// Operations in all of them.
    pub operations: usize,
    /// The sums of what came of them; the peaks are those of the largest one.
    pub summary: Summary,
}

impl Display for Tested {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { cases, operations, summary: it } = self;
        writeln!(out, "{cases} lists, {operations} operations")?;
        let Summary { allocated, reallocated, in_place, freed, refused, forks, .. } = it;
        writeln!(out, "objects    {allocated} allocated, {freed} freed, {refused} refused")?;
        writeln!(out, "new sizes  {reallocated}, {in_place} of them in place")?;
        writeln!(out, "forks      {forks}")?;
        write!(out, "at once    {} objects, {} bytes", it.peak_objects, it.peak_bytes)
    }
}

/// Makes lists of operations of `mix`, as many and as long as [`amount`] says, and does `run` to each.
///
/// # Errors
/// The smallest list that was found to fail, and how it does.
pub fn test(
    mix: Mix,
    run: impl FnMut(&[Operation]) -> Result<Summary, Failure>,
) -> Result<Tested, TestError<Vec<Operation>>> {
    let (run, tested) = (RefCell::new(run), Cell::new(Tested::default()));
    let lists = operations(mix, amount::length());
    TestRunner::new(amount::config()).run(&lists, |list| {
        let result = (*run.borrow_mut())(&list);
        let summary = result.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        let mut sum = tested.get();
        sum.cases += 1;
        sum.operations += list.len();
        sum.summary.add(&summary);
        tested.set(sum);
        Ok(())
    })?;
    Ok(tested.get())
}
