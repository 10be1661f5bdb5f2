#![doc = include_str!("../README.md")]

mod codec;
#[cfg(unix)]
mod forking;
mod global;
mod operation;
pub mod pattern;
mod playback;
mod replay;
pub mod resident;
mod returning;
mod shadow;
#[cfg(feature = "proptest")]
mod strategy;
mod subject;
mod trace;
mod violation;

#[cfg(unix)]
pub use forking::Forking;
pub use global::Global;
pub use operation::Operation;
pub use playback::{Effect, Playback};
pub use replay::{Replay, Summary, run};
pub use returning::Returning;
pub use shadow::{Object, Shadow};
#[cfg(feature = "proptest")]
pub use strategy::{Mix, operations};
pub use subject::{Subject, Tally};
pub use trace::{Trace, TraceError};
pub use violation::{Failure, Violation};
