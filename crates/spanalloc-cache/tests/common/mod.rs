//! Policies of tests.
#![allow(dead_code, reason = "each test uses a part of this")]

use spanalloc_cache::{Magazines, Policy};

/// Packs everything that fits a shared slot.
#[derive(Debug)]
pub struct PackAll;

impl Policy for PackAll {
    type Bin = Magazines;

    const PACK_MAX: usize = 16;
}

/// Packs nothing.
#[derive(Debug)]
pub struct PackNone;

impl Policy for PackNone {
    type Bin = Magazines;

    const PACK_MAX: usize = 0;
}
