//! How much memory the control group of the process may have, as Linux says it in files.
//!
//! The process finds the names of its groups in `/proc/self/cgroup`, and below the places where they are mounted the
//! bounds of each: in the second version `memory.max` and `memory.high`, in the first
//! `memory.limit_in_bytes` and `memory.soft_limit_in_bytes`. What holds is the least of those of the group and of all
//! that it is in. In a container the name may be that of the system outside, of which only the last part is mounted: so
//! what is not there says nothing.

use core::ffi::CStr;

use crate::file;

/// Where the groups are mounted: those of the second version, alone or beside the first, and those of the first.
const MOUNTS: [(Version, &[u8]); 3] = [
    (Version::Two, b"/sys/fs/cgroup"),
    (Version::Two, b"/sys/fs/cgroup/unified"),
    (Version::One, b"/sys/fs/cgroup/memory"),
];

/// From so many bytes on a bound is none: the first version says so by the most pages there could be.
const NONE_FROM: u64 = 1 << 62;
/// Bytes of the longest list of groups, and of the longest name.
const TEXT_BYTES: usize = 4096;
const PATH_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The files of the hard bound and of the soft one.
    const fn files(self) -> [&'static [u8]; 2] {
        match self {
            Self::One => [b"/memory.limit_in_bytes", b"/memory.soft_limit_in_bytes"],
            Self::Two => [b"/memory.max", b"/memory.high"],
        }
    }

    /// The name of the process's group in one line of the list, if it is of this version and counts memory.
    fn name_in(self, line: &[u8]) -> Option<&[u8]> {
        let (_, rest) = split_at(line, b':')?;
        let (controllers, name) = split_at(rest, b':')?;
        let suits = match self {
            Self::One => controllers.split(|byte| *byte == b',').any(|each| each == b"memory"),
            Self::Two => controllers.is_empty(),
        };
        suits.then_some(name)
    }
}

fn split_at(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let middle = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..middle)?, text.get(middle + 1..)?))
}

/// The bounds of the memory of the process's control group, in bytes; `usize::MAX` is none. What counts there is
/// all memory of its processes, with what the system keeps for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Above it the system ends a process.
    pub max: usize,
    /// Above it the system takes memory away and makes processes slow.
    pub high: usize,
}

impl Cgroup {
    /// No bounds.
    pub const NONE: Self = Self { max: usize::MAX, high: usize::MAX };

    /// How many percent of the hard bound a heap's hard limit may well be: the rest is for stacks, code, what the
    /// program maps itself, and what the system counts besides.
    pub const HARD_PERCENT: u8 = 90;

    /// How many percent of the soft bound its soft limit may well be.
    pub const SOFT_PERCENT: u8 = 80;

    /// Those of this process now. Allocates nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::read(b"")
    }

    /// As [`of_this_process`](Self::of_this_process), of the files below a directory.
    fn read(root: &[u8]) -> Self {
        let mut text = [0; TEXT_BYTES];
        let mut path = [0; PATH_BYTES];
        let list = join(&mut path, &[root, b"/proc/self/cgroup"]);
        let Some(text) = list.and_then(|list| file::read(list, &mut text)) else {
            return Self::NONE;
        };
        let mut least = Self::NONE;
        for (version, mount) in MOUNTS {
            let lines = text.split(|byte| *byte == b'\n');
            for name in lines.filter_map(|line| version.name_in(line)) {
                least = least.and(Self::of_group(version, &[root, mount], name));
            }
        }
        least
    }

    /// The least bounds of a group and of those that it is in.
    fn of_group(version: Version, mount: &[&[u8]; 2], name: &[u8]) -> Self {
        let mut least = Self::NONE;
        let mut name = name.strip_suffix(b"/").unwrap_or(name);
        loop {
            let [max, high] = version.files().map(|file| bound(&[mount[0], mount[1], name, file]));
            least = least.and(Self { max, high });
            let Some(end) = name.iter().rposition(|byte| *byte == b'/') else { return least };
            name = name.get(..end).unwrap_or_default();
        }
    }

    fn and(self, other: Self) -> Self {
        Self { max: self.max.min(other.max), high: self.high.min(other.high) }
    }

    /// So many percent of the hard bound.
    #[must_use]
    pub fn hard(self, percent: u8) -> usize {
        part(self.max, percent)
    }

    /// So many percent of the soft bound, or of the hard one if that is less.
    #[must_use]
    pub fn soft(self, percent: u8) -> usize {
        part(self.high.min(self.max), percent)
    }
}

fn part(bytes: usize, percent: u8) -> usize {
    if bytes == usize::MAX { bytes } else { bytes / 100 * usize::from(percent) }
}

/// A path of some parts.
fn join<'a>(path: &'a mut [u8; PATH_BYTES], parts: &[&[u8]]) -> Option<&'a CStr> {
    let mut len = 0;
    for part in parts {
        path.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    *path.get_mut(len)? = 0;
    CStr::from_bytes_with_nul(path.get(..=len)?).ok()
}

/// The number in a file; the largest one if there is none.
fn bound(parts: &[&[u8]]) -> usize {
    let (mut path, mut text) = ([0; PATH_BYTES], [0; 32]);
    let text = join(&mut path, parts).and_then(|path| file::read(path, &mut text));
    text.and_then(number).unwrap_or(usize::MAX)
}

/// A number of bytes that is a bound.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let mut number = 0_u64;
    for byte in digits {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    if digits.is_empty() || number >= NONE_FROM { None } else { usize::try_from(number).ok() }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::fs;
    use std::path::PathBuf;
    use std::string::String;

    use super::*;

    #[test]
    fn a_bound_is_a_number_of_bytes() {
        assert_eq!(number(b"67108864\n"), Some(64 << 20));
        assert_eq!(number(b"0"), Some(0));
        let none: [&[u8]; 6] =
            [b"max\n", b"", b"\n", b"9223372036854771712\n", b"99999999999999999999\n", b"-1\n"];
        assert_eq!(none.map(number), [None; 6]);
    }

    #[test]
    fn a_line_names_a_group_of_one_version() {
        let names = |line: &'static [u8]| [Version::One, Version::Two].map(|it| it.name_in(line));
        assert_eq!(names(b"0::/a/b"), [None, Some(b"/a/b".as_slice())]);
        assert_eq!(names(b"4:cpu,memory:/c:d"), [Some(b"/c:d".as_slice()), None]);
        for other in [b"4:cpu:/c".as_slice(), b"4:name=memory:/c", b"", b"0:", b"7"] {
            assert_eq!(names(other), [None; 2]);
        }
    }

    /// Files below a directory of this test's own.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("spanalloc-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn read(&self) -> Cgroup {
            Cgroup::read(self.0.to_str().unwrap().as_bytes())
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_least_of_all_groups_above_holds() {
        let files = Files::new(
            "two",
            &[
                ("proc/self/cgroup", "0::/a/b/c\n"),
                ("sys/fs/cgroup/a/b/c/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/c/memory.high", "2000000\n"),
                ("sys/fs/cgroup/a/b/memory.max", "3000000\n"),
                ("sys/fs/cgroup/a/memory.max", "4000000\n"),
                ("sys/fs/cgroup/other/memory.max", "1\n"),
            ],
        );
        assert_eq!(files.read(), Cgroup { max: 3_000_000, high: 2_000_000 });
        assert_eq!((files.read().hard(90), files.read().soft(80)), (2_700_000, 1_600_000));
    }

    #[test]
    fn the_first_version_counts_beside_the_second() {
        let files = Files::new(
            "one",
            &[
                ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/x\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000000\n"),
                ("sys/fs/cgroup/memory/memory.soft_limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        // Of a container: the group is mounted where all of them would be.
        assert_eq!(files.read(), Cgroup { max: 5_000_000, high: usize::MAX });
        assert_eq!(files.read().soft(50), 2_500_000);
    }

    #[test]
    fn what_is_not_there_bounds_nothing() {
        let nothing = Files::new("nothing", &[("sys/fs/cgroup/memory.max", "7\n")]);
        assert_eq!(nothing.read(), Cgroup::NONE);
        assert_eq!((Cgroup::NONE.hard(90), Cgroup::NONE.soft(80)), (usize::MAX, usize::MAX));
        let long = "x".repeat(2000);
        let text = format!("0::/{long}/y\n");
        let long =
            Files::new("long", &[("proc/self/cgroup", &text), ("sys/fs/cgroup/memory.max", "7\n")]);
        assert_eq!(long.read().max, 7, "names that are too long are passed over");
        let _: String = format!("{:?}", Cgroup::of_this_process());
    }
}
