/// What a cache trusts and how it packs: one code, several allocators.
pub trait Policy: 'static {
    /// The largest size, in bytes, of objects that share a 16-byte slot with others; 0 packs
    /// nothing, 16 is the most. The size decides alone, so that `free` knows from its Layout where
    /// an object lives.
    const PACK_MAX: usize;
}

/// The default of Rust programs: trusts the Layout given to `free`, and looks an object's span up
/// only when a magazine is emptied; it then ends the process on a double free, a foreign pointer
/// or a size of another class.
///
/// It packs sizes up to 7 bytes. Objects of 8 bytes and more fill a slot of the 8- or 16-byte class
/// well enough, and are freed without a look at their span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fast;

impl Policy for Fast {
    const PACK_MAX: usize = 7;
}
