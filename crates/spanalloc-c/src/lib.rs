#![doc = include_str!("../README.md")]
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![no_std]

// Nothing of it is used: it holds the panic handler that a library of this kind must have.
extern crate std;

// The heap that all functions work on.
#[cfg(not(feature = "hardened"))]
use spanalloc::checked as heap;
#[cfg(feature = "hardened")]
use spanalloc::hardened as heap;

pub mod alias;
pub mod aligned;
pub mod api;
pub mod cxx;
mod errno;
mod hooks;
pub mod info;
pub mod malloc;
mod map;
mod options;
mod report;
mod setting;
mod snapshot;
mod system;
mod text;
