//! What programs do, allocating on the way.

mod collections;
mod documents;
mod tasks;

use super::Workload;

pub(super) fn all() -> Vec<Workload> {
    let mut all = collections::all();
    all.extend(documents::all());
    all.extend(tasks::all());
    all
}
