#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(feature = "portable", loom)), no_std)]

mod arena;
mod arena_map;
#[cfg(all(feature = "mmap", any(target_os = "linux", target_os = "android")))]
mod cgroup;
mod counted;
#[cfg(all(feature = "mmap", unix))]
mod errno;
mod error;
mod faulty;
#[cfg(all(feature = "mmap", any(target_os = "linux", target_os = "android")))]
mod file;
mod fixed;
mod geometry;
#[cfg(any(feature = "portable", all(feature = "mmap", unix)))]
mod last_words;
mod limited;
mod meter;
#[cfg(all(feature = "mmap", unix))]
mod mmap;
#[cfg(feature = "portable")]
mod portable;
mod report;
mod round;
mod source;
#[cfg(all(feature = "mmap", unix))]
mod system;
#[cfg(all(feature = "mmap", any(target_os = "linux", target_os = "android")))]
mod threads;
#[cfg(any(feature = "portable", all(feature = "mmap", unix)))]
mod wait;
mod window;

pub use arena::{ArenaRange, reserve_arena};
pub use arena_map::ArenaMap;
#[cfg(all(feature = "mmap", any(target_os = "linux", target_os = "android")))]
pub use cgroup::Cgroup;
pub use counted::{Counted, SourceCounts};
pub use error::OsError;
pub use faulty::{Faulty, Verb};
pub use fixed::Fixed;
pub use geometry::{Any32, Any64, Geometry, IosArm64, Mips32, Native, Windows64};
pub use limited::Limited;
#[cfg(all(feature = "mmap", unix))]
pub use mmap::Mmap;
#[cfg(feature = "portable")]
pub use portable::Portable;
/// Where there is no unix, the portable source is the best there is.
#[cfg(all(feature = "portable", not(unix)))]
pub use portable::Portable as Mmap;
pub use report::{Misuse, Report, ReportLine};
pub use round::{checked_round_up, round_down, round_up};
pub use source::{OsSource, Purpose, Request};
#[cfg(all(feature = "mmap", any(target_os = "linux", target_os = "android"), not(loom)))]
pub use wait::Futex;
#[cfg(any(feature = "portable", all(feature = "mmap", unix)))]
pub use wait::SystemWait;
#[cfg(all(
    any(feature = "portable", all(feature = "mmap", unix)),
    not(any(target_os = "linux", target_os = "android")),
    not(loom)
))]
pub use wait::YieldThread;
pub use window::Window;
