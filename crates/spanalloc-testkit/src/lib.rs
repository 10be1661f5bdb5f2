#![doc = include_str!("../README.md")]

#[cfg(feature = "proptest")]
pub mod amount;
mod codec;
#[cfg(unix)]
mod forking;
mod global;
mod ground;
#[cfg(feature = "layers")]
pub mod layers;
#[cfg(all(feature = "models", loom))]
pub mod models;
mod operation;
pub mod pattern;
mod playback;
#[cfg(feature = "proptest")]
mod property;
mod replay;
pub mod resident;
mod returning;
mod shadow;
pub mod soak;
pub mod sources;
#[cfg(feature = "proptest")]
mod strategy;
mod subject;
mod threads;
mod trace;
mod violation;

#[cfg(unix)]
pub use forking::Forking;
pub use global::Global;
pub use ground::{Ground, Plot};
pub use operation::Operation;
pub use playback::{Effect, Playback};
#[cfg(feature = "proptest")]
pub use property::{Tested, test};
pub use replay::{Replay, Summary, run};
pub use returning::Returning;
pub use shadow::{Object, Shadow};
#[cfg(feature = "proptest")]
pub use strategy::{Mix, operations};
pub use subject::{Subject, Tally};
pub use threads::Threads;
pub use trace::{Trace, TraceError};
pub use violation::{Failure, Violation};
