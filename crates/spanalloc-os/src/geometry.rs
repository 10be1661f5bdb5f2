//! How a platform's address space is cut into arenas.

/// The shape of the arena map: `1 << ADDRESS_BITS == ARENA_BYTES * L1_ENTRIES * L2_ENTRIES`.
///
/// The five shapes are those of the Go runtime (`runtime/malloc.go`, `heapArenaBytes`,
/// `arenaL1Bits`, `arenaL2Bits`).
pub trait Geometry {
    /// Bits of an address that count; addresses at or above `1 << ADDRESS_BITS` are nobody's.
    const ADDRESS_BITS: u32;
    /// Bytes of one arena, and its alignment.
    const ARENA_BYTES: usize;
    /// Entries of the first level of the arena map; at most 64.
    const L1_ENTRIES: usize;
    /// Entries of one table of the second level.
    const L2_ENTRIES: usize;
}

/// Any 64-bit system but those below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Any64;
/// 64-bit Windows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows64;
/// iOS on arm64.
#[derive(Clone, Copy, Debug, Default)]
pub struct IosArm64;
/// Any 32-bit system but MIPS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Any32;
/// 32-bit MIPS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mips32;

impl Geometry for Any64 {
    const ADDRESS_BITS: u32 = 48;
    const ARENA_BYTES: usize = 64 << 20;
    const L1_ENTRIES: usize = 1;
    const L2_ENTRIES: usize = 4 << 20;
}

impl Geometry for Windows64 {
    const ADDRESS_BITS: u32 = 48;
    const ARENA_BYTES: usize = 4 << 20;
    const L1_ENTRIES: usize = 64;
    const L2_ENTRIES: usize = 1 << 20;
}

impl Geometry for IosArm64 {
    const ADDRESS_BITS: u32 = 40;
    const ARENA_BYTES: usize = 4 << 20;
    const L1_ENTRIES: usize = 1;
    const L2_ENTRIES: usize = 256 << 10;
}

impl Geometry for Any32 {
    const ADDRESS_BITS: u32 = 32;
    const ARENA_BYTES: usize = 4 << 20;
    const L1_ENTRIES: usize = 1;
    const L2_ENTRIES: usize = 1024;
}

impl Geometry for Mips32 {
    const ADDRESS_BITS: u32 = 31;
    const ARENA_BYTES: usize = 4 << 20;
    const L1_ENTRIES: usize = 1;
    const L2_ENTRIES: usize = 512;
}

/// The shape of the platform this crate is compiled for.
#[cfg(all(target_pointer_width = "64", windows))]
pub type Native = Windows64;
/// The shape of the platform this crate is compiled for.
#[cfg(all(target_arch = "aarch64", target_os = "ios"))]
pub type Native = IosArm64;
/// The shape of the platform this crate is compiled for.
#[cfg(all(
    target_pointer_width = "64",
    not(windows),
    not(all(target_arch = "aarch64", target_os = "ios"))
))]
pub type Native = Any64;
/// The shape of the platform this crate is compiled for.
#[cfg(any(target_arch = "mips", target_arch = "mips32r6"))]
pub type Native = Mips32;
/// The shape of the platform this crate is compiled for.
#[cfg(all(
    not(target_pointer_width = "64"),
    not(any(target_arch = "mips", target_arch = "mips32r6"))
))]
pub type Native = Any32;

/// Whether a shape covers its address space exactly, with whole powers of two.
pub(crate) const fn is_exact<G: Geometry>() -> bool {
    G::ADDRESS_BITS < u64::BITS
        && G::ARENA_BYTES.is_power_of_two()
        && G::L1_ENTRIES.is_power_of_two()
        && G::L1_ENTRIES <= 64
        && G::L2_ENTRIES.is_power_of_two()
        && 1_u64 << G::ADDRESS_BITS
            == G::ARENA_BYTES as u64 * G::L1_ENTRIES as u64 * G::L2_ENTRIES as u64
}

const _: () = assert!(is_exact::<Any64>());
const _: () = assert!(is_exact::<Windows64>());
const _: () = assert!(is_exact::<IosArm64>());
const _: () = assert!(is_exact::<Any32>());
const _: () = assert!(is_exact::<Mips32>());

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<G: Geometry>() -> (u32, usize, usize, usize, usize) {
        (G::ADDRESS_BITS, G::ARENA_BYTES, G::L1_ENTRIES, G::L2_ENTRIES, G::L2_ENTRIES * 8)
    }

    #[test]
    fn the_five_shapes_have_the_published_numbers() {
        // Address bits, arena bytes, first level, second level, bytes of 8-byte entries.
        assert_eq!(numbers::<Any64>(), (48, 67_108_864, 1, 4_194_304, 33_554_432));
        assert_eq!(numbers::<Windows64>(), (48, 4_194_304, 64, 1_048_576, 8_388_608));
        assert_eq!(numbers::<IosArm64>(), (40, 4_194_304, 1, 262_144, 2_097_152));
        // The published byte counts of the 32-bit shapes are for 4-byte entries.
        assert_eq!(numbers::<Any32>(), (32, 4_194_304, 1, 1024, 8192));
        assert_eq!(numbers::<Mips32>(), (31, 4_194_304, 1, 512, 4096));
    }

    #[test]
    fn a_shape_with_a_gap_is_not_exact() {
        struct Gap;
        impl Geometry for Gap {
            const ADDRESS_BITS: u32 = 48;
            const ARENA_BYTES: usize = 4 << 20;
            const L1_ENTRIES: usize = 1;
            const L2_ENTRIES: usize = 1024;
        }
        assert!(!is_exact::<Gap>());
    }
}
