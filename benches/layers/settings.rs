//! What all benchmarks of layers have in common.

use std::time::Duration;

use criterion::Criterion;

/// Half a second for each figure, without pictures.
pub fn criterion() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(50)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}
