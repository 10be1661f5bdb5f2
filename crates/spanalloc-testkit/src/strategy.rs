use proptest::collection::SizeRange;
use proptest::prelude::*;

use crate::Operation;

/// Sizes at which paths and classes begin and end.
const BORDERS: [usize; 26] = [
    0, 1, 7, 8, 9, 15, 16, 17, 24, 48, 112, 128, 144, 1024, 1025, 1152, 2048, 8192, 8193, 27264,
    28672, 32767, 32768, 32769, 40960, 65536,
];

/// What a list of random operations is made of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Mix {
    /// Caches; with 1 there are no operations on others.
    pub caches: u8,
    /// The largest size in bytes.
    pub max_size: usize,
    /// The largest alignment, a power of two.
    pub max_align: usize,
    /// Out of about 80, how often memory is given back to the system.
    pub releases: u32,
    /// Out of about 80, how often the scavenger takes a step.
    pub scavenges: u32,
    /// Out of about 80, how often the system begins to fail or works again.
    pub faults: u32,
    /// Out of about 80, how often the process forks.
    pub forks: u32,
}

impl Mix {
    /// Three caches, sizes up to 300 KB, alignments up to 64 KB, and sometimes memory given back. The
    /// system works, and nothing forks.
    #[must_use]
    pub const fn new() -> Self {
        let (max_size, max_align) = (300_000, 64 << 10);
        Self { caches: 3, max_size, max_align, releases: 1, scavenges: 1, faults: 0, forks: 0 }
    }

    /// The same with this many caches.
    #[must_use]
    pub const fn caches(self, caches: u8) -> Self {
        Self { caches, ..self }
    }

    /// The same with sizes up to this, in bytes.
    #[must_use]
    pub const fn max_size(self, max_size: usize) -> Self {
        Self { max_size, ..self }
    }

    /// The same with alignments up to this, a power of two.
    #[must_use]
    pub const fn max_align(self, max_align: usize) -> Self {
        Self { max_align, ..self }
    }

    /// The same with memory given back to the system this often, out of about 80.
    #[must_use]
    pub const fn releases(self, releases: u32) -> Self {
        Self { releases, ..self }
    }

    /// The same with steps of the scavenger this often, out of about 80.
    #[must_use]
    pub const fn scavenges(self, scavenges: u32) -> Self {
        Self { scavenges, ..self }
    }

    /// The same with a system that begins to fail or works again this often, out of about 80.
    #[must_use]
    pub const fn faults(self, faults: u32) -> Self {
        Self { faults, ..self }
    }

    /// The same with forks this often, out of about 80. A fork takes about a millisecond.
    #[must_use]
    pub const fn forks(self, forks: u32) -> Self {
        Self { forks, ..self }
    }

    /// Sizes: many small ones, the borders of paths and classes, some of whole pages.
    fn size(self) -> impl Strategy<Value = usize> + use<> {
        prop_oneof![
            5 => 1_usize..=16,
            6 => 17_usize..=256,
            6 => 257_usize..=4096,
            3 => 4097_usize..=32768,
            2 => prop::sample::select(&BORDERS[..]),
            1 => 32769_usize..=self.max_size.max(32769),
        ]
        .prop_map(move |size| size.min(self.max_size))
    }

    fn align(self) -> impl Strategy<Value = usize> + use<> {
        prop_oneof![16 => 0_u32..=4, 3 => 5_u32..=13, 1 => 14_u32..=26]
            .prop_map(move |log2| (1_usize << log2).min(self.max_align))
    }

    fn operation(self) -> BoxedStrategy<Operation> {
        let layout = || (self.size(), self.align());
        let many = 0..16_384_usize;
        let one = prop_oneof![
            20 => layout().prop_map(|(size, align)| Operation::Alloc { size, align }),
            6 => layout().prop_map(|(size, align)| Operation::AllocZeroed { size, align }),
            3 => (many, 0_u32..=4, any::<u8>()).prop_map(move |(size, align, more)| {
                let (size, align) = (size.min(self.max_size), (1 << align).min(self.max_align));
                // As many as make a few spans of small objects, but not hundreds of large ones.
                Operation::AllocMany { size: size / 8, align, more }
            }),
            9 => (index(), self.size())
                .prop_map(|(index, size)| Operation::Realloc { index, size }),
            20 => index().prop_map(|index| Operation::Free { index }),
            3 => (index(), any::<u8>())
                .prop_map(|(index, more)| Operation::FreeMany { index, more }),
        ];
        let others = prop_oneof![
            6 => index().prop_map(|index| Operation::FreeRemote { index }),
            8 => (0..u16::from(self.caches)).prop_map(|cache| Operation::Switch { cache }),
            2 => (0..u16::from(self.caches)).prop_map(|cache| Operation::Restart { cache }),
        ];
        let release = (0_u16..600).prop_map(|most| Operation::Release { most });
        let scavenge = prop_oneof![
            3 => (1_u16..30).prop_map(|pieces| Operation::Scavenge { pieces }),
            1 => (0_u32..5_000_000).prop_map(|microseconds| Operation::Advance { microseconds }),
        ];
        let other_weight = if self.caches > 1 { 16 } else { 0 };
        prop_oneof![
            61 => one,
            other_weight => others,
            self.releases => release,
            self.scavenges => scavenge,
            self.faults => fault(),
            self.forks => Just(Operation::Fork),
        ]
        .boxed()
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self::new()
    }
}

fn index() -> impl Strategy<Value = u32> {
    any::<u16>().prop_map(u32::from)
}

/// A verb that fails at one of its next calls: once, a few times, or until the system works again.
fn fault() -> impl Strategy<Value = Operation> {
    let calls = prop_oneof![1 => Just(1), 1 => 2_u16..6, 1 => Just(Operation::FOR_GOOD)];
    let verb = prop::sample::select(&Operation::VERBS[..]);
    prop_oneof![
        2 => (verb, 0_u16..8, calls)
            .prop_map(|(verb, after, calls)| Operation::OsFails { verb, after, calls }),
        1 => Just(Operation::OsWorks),
    ]
}

/// Lists of random operations. They shrink to shorter lists of smaller operations.
pub fn operations(mix: Mix, length: impl Into<SizeRange>) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(mix.operation(), length)
}
