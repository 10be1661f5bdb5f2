#![doc = include_str!("../README.md")]

mod answers;
mod args;
mod command;
mod compare;
mod composition;
mod corpus;
mod curve;
mod demo;
mod error;
mod format;
mod heap_view;
mod index;
mod job;
mod outcome;
mod picture;
mod preload;
mod process_memory;
mod program;
mod query;
mod record;
mod replay;
mod residence;
mod switch;
mod text;
mod transcript;
mod workers;

pub use command::run;
pub use error::Error;
pub use index::{Builder, Index, IndexedFile, Posting};
pub use switch::{Choice, Switch};
pub use text::{fold, words};
