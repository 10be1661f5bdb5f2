#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod class;
mod error;
mod generate;
mod rule;
mod table;

pub use class::Class;
pub use error::ClassError;
pub use rule::Rule;
pub use table::SizeClasses;

/// Bytes of a page, the unit of every span (as in the Go runtime; not the page of the OS).
pub const PAGE_BYTES: u32 = 8192;
/// Bound of the class numbers: every class is below this, so a table has at most 127 classes.
/// Class 0 is none of them: it says that no class serves the request.
pub const MAX_CLASSES: usize = 128;
/// Most objects of any span, of the table or as cut.
pub const MAX_SLOTS: usize = 2048;
/// Largest object that any class may have, in bytes. The largest class of a table may be smaller.
pub const MAX_SMALL: usize = 32768;
/// Most pages of any span, of the table or as cut (512 KB).
pub const MAX_SPAN_PAGES: u32 = 64;

/// Names a table at compile time, so that the layers above are generic over it.
///
/// Every [`SizeClasses`] was proven when it was made, so an implementor has nothing to promise.
/// Built as a `const`, the table is visible to the optimiser: the class of a constant size
/// is a constant.
pub trait ClassTable: 'static {
    /// The table.
    const CLASSES: &'static SizeClasses;
}

/// The 67 size classes of the Go runtime (as of Go 1.27), made by [`Rule::GO`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Go67;

impl ClassTable for Go67 {
    const CLASSES: &'static SizeClasses = &SizeClasses::generate(&Rule::GO);
}

/// The classes of [`Go67`], and five more below 16 bytes: 4, 6, 10, 12 and 14. Objects of those are
/// less aligned than others, so only what asks for no more, such as a string, is served from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fine72;

impl ClassTable for Fine72 {
    const CLASSES: &'static SizeClasses =
        &SizeClasses::generate(&Rule { tiny_step: 2, ..Rule::GO });
}

const _: () = assert!(Go67::CLASSES.count() == 67);
const _: () = assert!(Fine72::CLASSES.count() == 72);
const _: () = assert!(Go67::CLASSES.largest() == MAX_SMALL);
// The lookup by 128 bytes, and rounding up to any alignment that is served, end at MAX_SMALL exactly.
const _: () = assert!(MAX_SMALL % PAGE_BYTES as usize == 0);
