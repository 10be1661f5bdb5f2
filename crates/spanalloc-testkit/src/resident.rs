//! What the kernel says of this process: which of its mappings are in memory, to compare the figures of
//! an allocator with.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use spanalloc_os::{Geometry, Native};

/// Objects lie in arenas that begin at a multiple of this, and fill it.
const ARENA_BYTES: usize = Native::ARENA_BYTES;

/// Bytes of an allocator's page.
const PAGE_BYTES: usize = 8 << 10;
/// Bytes per allocator page that are touched, so that every page of the kernel is.
const STEP_BYTES: usize = 4096;

/// One mapping of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: usize,
    /// The address behind the last.
    pub end: usize,
    /// Of a file, or what the kernel or the program called it; else empty.
    pub name: String,
    /// Bytes of it that are in memory.
    pub resident: usize,
}

/// The mappings of this process, from `/proc/self/smaps`.
///
/// # Errors
/// If the file cannot be read or is no such file.
pub fn mappings() -> io::Result<Vec<Mapping>> {
    parse(&fs::read_to_string("/proc/self/smaps")?)
        .ok_or_else(|| io::Error::other("/proc/self/smaps has lines that are not known"))
}

fn parse(text: &str) -> Option<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        if first == "Rss:" {
            mappings.last_mut()?.resident = words.next()?.parse::<usize>().ok()? << 10;
        }
        if first.ends_with(':') {
            continue;
        }
        let (start, end) = first.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        // Rights, offset, device and number come before the name, which may have spaces.
        let name = words.skip(4).collect::<Vec<_>>().join(" ");
        mappings.push(Mapping { start: hex(start)?, end: hex(end)?, name, resident: 0 });
    }
    Some(mappings)
}

/// A random number below `limit`.
pub fn below(seed: &mut u64, limit: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % limit
}

/// A random size from `least` to about `most`, whose order of magnitude is as likely as any other. A large
/// one is what large objects are rounded up to, so that all of their pages are touched.
pub fn whole_size(seed: &mut u64, [least, most]: [usize; 2]) -> usize {
    let order = below(seed, (most / least).ilog2() as usize);
    let size = (least << order) + below(seed, least << order);
    let step = PAGE_BYTES.max(1 << size.ilog2() >> 3);
    if size > 32 << 10 { size.next_multiple_of(step) } else { size }
}

/// The arenas of a heap, found by the addresses of its objects.
#[derive(Debug, Default)]
pub struct Arenas(BTreeSet<usize>);

impl Arenas {
    /// Notes the object, and writes to each page of it.
    ///
    /// # Safety
    /// The object has `bytes` bytes, which the caller may write to.
    pub unsafe fn touch(&mut self, object: *mut u8, bytes: usize) {
        for at in (0..bytes).step_by(STEP_BYTES).chain(bytes.checked_sub(1)) {
            // SAFETY: `at` is less than `bytes`.
            unsafe { object.add(at).write_volatile(1) };
            self.0.insert((object.addr() + at) / ARENA_BYTES);
        }
    }

    /// Bytes of the arenas that are in memory.
    #[must_use]
    pub fn resident(&self, mappings: &[Mapping]) -> usize {
        let ours = |it: &&Mapping| {
            self.0.range(it.start / ARENA_BYTES..=(it.end - 1) / ARENA_BYTES).next().is_some()
        };
        mappings.iter().filter(ours).map(|it| it.resident).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
56000000-56400000 rw-p 00000000 00:00 0                  [anon:spanalloc arena]
Size:               4096 kB
Rss:                  12 kB
Pss:                  12 kB
VmFlags: rd wr mr
7f000000-7f001000 r--p 00000000 08:01 123            /lib/a b.so
Rss:                   4 kB
";

    #[test]
    fn mappings_have_a_range_a_name_and_a_size() {
        let mappings = parse(TEXT).unwrap();
        let arena = "[anon:spanalloc arena]".to_owned();
        let first = Mapping { start: 0x5600_0000, end: 0x5640_0000, name: arena, resident: 12288 };
        assert_eq!(mappings[0], first);
        assert_eq!((mappings[1].name.as_str(), mappings[1].resident), ("/lib/a b.so", 4096));
        assert_eq!(parse("nonsense\n"), None);
    }

    #[test]
    fn arenas_are_found_by_their_objects() {
        let mappings = parse(TEXT).unwrap();
        let mut arenas = Arenas::default();
        assert_eq!(arenas.resident(&mappings), 0);
        arenas.0.insert(0x5600_0000 / ARENA_BYTES);
        assert_eq!(arenas.resident(&mappings), 12288);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_touched_is_in_memory() {
        let mut bytes = Vec::<u8>::with_capacity(8 << 20);
        let mut arenas = Arenas::default();
        // SAFETY: the vector has this room.
        unsafe { arenas.touch(bytes.as_mut_ptr(), 8 << 20) };
        assert!(arenas.resident(&mappings().unwrap()) >= 8 << 20);
    }
}
