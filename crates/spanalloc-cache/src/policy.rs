use crate::bin::Bin;
use crate::magazines::Magazines;
use crate::words::Words;

/// What a cache trusts and how it packs: one code, several allocators.
pub trait Policy: 'static {
    /// How the free objects of a class are kept, and with it what is checked when:
    /// [`Magazines`] or [`Words`].
    type Bin: Bin;

    /// The largest size, in bytes, of objects that share a 16-byte slot with others; 0 packs
    /// nothing, 16 is the most. The size decides alone, so that `free` knows from its Layout where
    /// an object lives.
    const PACK_MAX: usize;

    /// Whether the program is trusted not to free one large object in two threads at the same moment. If
    /// it does so nevertheless, both may get its memory. Frees one after the other are told apart in
    /// any case.
    const ALONE: bool = false;

    /// The least size, in bytes, of large objects behind which stands a guard: a page that nobody may
    /// touch, if the source knows such. None by default.
    const GUARDED_FROM: usize = usize::MAX;

    /// Whether the last 8 bytes of each small object's slot are not the program's but hold a number that nobody
    /// can foresee: the process ends when an object is freed whose number was overwritten. Needs a
    /// [bin](Self::Bin) that knows what is live, and no packing, like the two that follow.
    const CANARIES: bool = false;

    /// Whether what is freed is overwritten with zeros. The process ends when a small object is handed
    /// out whose slot is not zero any more.
    const WIPES: bool = false;

    /// Whether a slot is taken at random from those at hand, and what was freed comes no sooner than the rest.
    const SHUFFLES: bool = false;
}

/// The default of Rust programs: trusts the Layout given to `free`, and looks an object's span up
/// only when a magazine is emptied; it then ends the process on a double free, a foreign pointer
/// or a size of another class.
///
/// It packs nothing, so that no object is looked up before that. A table with classes below 16 bytes
/// takes no more memory than packing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fast;

impl Policy for Fast {
    type Bin = Magazines;

    const PACK_MAX: usize = 0;

    const ALONE: bool = true;
}

/// The default of the C library: looks the span up at every free, and ends the process at the call
/// that frees something twice, something that is no object, or something as another size class.
///
/// It packs nothing, so that each object has a slot of its own whose state is known. Behind objects of
/// 128 KB and more stands a guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked;

impl Policy for Checked {
    type Bin = Words;

    const PACK_MAX: usize = 0;

    const GUARDED_FROM: usize = 128 << 10;
}

/// For programs that are attacked: all that [`Checked`] finds, and writes behind an object and to freed
/// ones.
///
/// A small object's slot ends in a canary, which is looked at when the object is freed; freed memory is
/// zero, which is looked at when it is handed out again, and makes zeroed memory cheap; which
/// slot an allocation gets cannot be foreseen; behind each large object stands a guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardened;

impl Policy for Hardened {
    type Bin = Words;

    const PACK_MAX: usize = 0;

    const GUARDED_FROM: usize = 1;

    const CANARIES: bool = true;

    const WIPES: bool = true;

    const SHUFFLES: bool = true;
}
