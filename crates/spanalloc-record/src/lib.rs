#![doc = include_str!("../README.md")]
#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#![no_std]

// Nothing of it is used: it holds the panic handler that a library of this kind must have.
extern crate std;

mod entry;
mod recorder;
mod start;
