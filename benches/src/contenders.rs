//! The allocators that are compared.

use crate::workloads::Group;

/// spanalloc with the policy `Fast`.
pub const SPANALLOC: &str = "spanalloc";
/// spanalloc with the policy `Checked`.
pub const CHECKED: &str = "spanalloc checked";
/// spanalloc with the policy `Hardened`. It is only compared when it is named.
pub const HARDENED: &str = "spanalloc hardened";
/// The allocator of the C library.
pub const SYSTEM: &str = "system";
/// The peer that every ratio is taken to.
pub const MIMALLOC3: &str = "mimalloc v3";
/// The same without huge pages, for what these make of the others' ratios to it. It is no peer of its own.
pub const MIMALLOC3_SMALL: &str = "mimalloc v3, small pages";
/// The least an allocation can do: a bump allocator that never frees. It is no peer.
pub const FLOOR: &str = "floor";

/// An allocator that is compared, and the binary that has it for its global allocator.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// Its name in the tables.
    pub name: &'static str,
    /// Its binary.
    pub binary: &'static str,
    /// The feature of this package that its binary needs.
    pub feature: Option<&'static str>,
    /// What its processes find in their environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// The only group of workloads it can run, if it cannot run all.
    pub only: Option<Group>,
}

impl Contender {
    const fn new(name: &'static str, binary: &'static str, feature: Option<&'static str>) -> Self {
        Self { name, binary, feature, environment: &[], only: None }
    }
}

/// All contenders, in the order of the tables.
pub const ALL: [Contender; 12] = [
    Contender::new(SPANALLOC, "on_spanalloc", None),
    Contender::new(CHECKED, "on_spanalloc_checked", None),
    Contender::new(HARDENED, "on_spanalloc_hardened", None),
    Contender::new(SYSTEM, "on_system", None),
    Contender::new(MIMALLOC3, "on_mimalloc3", Some("peer-mimalloc3")),
    Contender {
        environment: &[("MIMALLOC_ALLOW_THP", "0")],
        ..Contender::new(MIMALLOC3_SMALL, "on_mimalloc3", Some("peer-mimalloc3"))
    },
    Contender::new("mimalloc v2", "on_mimalloc2", Some("peer-mimalloc2")),
    Contender::new("jemalloc", "on_jemalloc", Some("peer-jemalloc")),
    Contender::new("snmalloc", "on_snmalloc", Some("peer-snmalloc")),
    Contender::new("rpmalloc", "on_rpmalloc", Some("peer-rpmalloc")),
    Contender {
        // With the C library's restartable sequences on, TCMalloc cannot have its own, and does
        // without its caches of each CPU.
        environment: &[("GLIBC_TUNABLES", "glibc.pthread.rseq=0")],
        ..Contender::new("tcmalloc", "on_tcmalloc", Some("peer-tcmalloc"))
    },
    Contender { only: Some(Group::Pairs), ..Contender::new(FLOOR, "on_bump", None) },
];

impl Contender {
    /// The contender that is called so in the tables or, without `on_`, by its binary's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is = |contender: &Self| {
            contender.name == name || contender.binary.strip_prefix("on_") == Some(name)
        };
        ALL.into_iter().find(is)
    }
}

/// Whether this is the name of another allocator than spanalloc's own.
#[must_use]
pub fn is_peer(name: &str) -> bool {
    ![SPANALLOC, CHECKED, HARDENED, MIMALLOC3_SMALL, FLOOR].contains(&name)
}

/// Whether this is the name of a peer that is built for speed: all but the system's allocator,
/// which trades time for memory.
#[must_use]
pub fn is_fast_peer(name: &str) -> bool {
    is_peer(name) && name != SYSTEM
}

/// Looks for the text of an allocator's assertions in the running program: only debug builds have
/// them. The text comes in two parts that a space joins, so as not to be found in this code.
#[must_use]
pub fn assertions(parts: [&str; 2]) -> Option<String> {
    let text = parts.join(" ");
    let program = match std::env::current_exe().and_then(std::fs::read) {
        Ok(program) => program,
        Err(error) => return Some(format!("the program cannot be read to check it: {error}")),
    };
    program
        .windows(text.len())
        .any(|window| window == text.as_bytes())
        .then(|| format!("it is a debug build: the program holds its assertions (\"{text}\")"))
}

/// The usual form of mimalloc's version, a number like 30302 for 3.3.2.
#[must_use]
pub fn mimalloc_version(number: u32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

/// Why this build of mimalloc is not the one that was asked for, or not an optimised one.
#[must_use]
pub fn mimalloc_flaw(number: u32, major: u32) -> Option<String> {
    if number / 10_000 != major {
        return Some(format!("version {} was linked", mimalloc_version(number)));
    }
    // What the assertions of the debug build print.
    assertions(["mimalloc: assertion", "failed: at"])
}
