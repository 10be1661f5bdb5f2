//! The system refuses for good: each call that maps, unmaps, protects or gives back memory fails from some
//! moment on. The heap answers null and ENOMEM where it has to, never ends the process, and works on with
//! what it has. `injection.rs` has calls fail one by one.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::ptr;

use common::calls::{
    calloc, errno, free, malloc, malloc_trim, posix_memalign, realloc, set_errno, with_errno,
};
use common::job::{check, job};
use common::limited::passes;
use common::native::skipped;
use libc::ENOMEM;

const MB: usize = 1 << 20;

/// Live objects, each filled with a byte of its own, and how many requests were refused.
#[derive(Default)]
struct Work {
    live: Vec<(*mut u8, usize, u8)>,
    refused: usize,
}

impl Work {
    fn keep(&mut self, (object, number): (*mut u8, i32), size: usize) {
        assert_eq!(number, if object.is_null() { ENOMEM } else { 0 });
        if object.is_null() {
            self.refused += 1;
            return;
        }
        let byte = (self.live.len() % 255) as u8 + 1;
        fill(object, size, byte);
        self.live.push((object, size, byte));
    }

    fn alloc(&mut self, size: usize) {
        self.keep(with_errno(|| malloc(size)), size);
    }

    fn alloc_zeroed(&mut self, size: usize) {
        let object = with_errno(|| calloc(1, size));
        assert!(object.0.is_null() || ends_are(object.0, size, 0), "{size} bytes are not zero");
        self.keep(object, size);
    }

    fn alloc_aligned(&mut self, size: usize, align: usize) {
        let (answer, object) = posix_memalign(align, size, ptr::null_mut());
        assert!(answer == 0 || object.is_null());
        assert_eq!(object.addr() % align, 0);
        self.keep((object, answer), size);
    }

    fn realloc(&mut self, index: usize, new_size: usize) {
        let (object, size, byte) = self.live[index];
        let (moved, number) = with_errno(|| realloc(object, new_size));
        if moved.is_null() {
            assert_eq!(number, ENOMEM);
            self.refused += 1;
            return;
        }
        assert!(ends_are(moved, size.min(new_size), byte));
        fill(moved, new_size, byte);
        self.live[index] = (moved, new_size, byte);
    }

    /// Frees every object whose number `choose` likes, and looks at what is in it.
    fn free_if(&mut self, choose: impl Fn(usize) -> bool) {
        let mut number = 0;
        self.live.retain(|(object, size, byte)| {
            number += 1;
            if choose(number) {
                assert!(ends_are(*object, *size, *byte), "{size} bytes were changed");
                set_errno(4711);
                free(*object);
                assert_eq!(errno(), 4711);
            }
            !choose(number)
        });
    }

    /// A little of everything. Everything is freed in the end.
    fn all(&mut self) {
        for size in (0..3000).map(|index| index * index * 7919 % 32_768) {
            self.alloc(size % 1000);
            if size % 16 == 0 {
                self.alloc_zeroed(size);
            }
        }
        for index in 0..20 {
            self.alloc(40_000 + index * 100_000);
            self.alloc_zeroed(3 * MB);
            self.alloc_aligned(5000 << (index % 8), 16 << (index % 12));
        }
        self.free_if(|number| number % 3 != 0);
        malloc_trim();
        self.alloc_aligned(100, 4 * MB);
        self.alloc_zeroed(70 * MB);
        for index in 0..self.live.len().min(50) {
            self.realloc(index, 100 + index * 20_000);
        }
        self.free_if(|number| number % 2 == 0);
        self.alloc_zeroed(10 * MB);
        self.alloc(30 * MB);
        // Each has the next one behind it, so it moves.
        for _ in 0..5 {
            self.alloc(5 * MB);
        }
        for index in (0..self.live.len()).rev().take(5).rev() {
            self.realloc(index, 9 * MB);
        }
        self.free_if(|_| true);
        malloc_trim();
    }
}

/// Writes the first and the last part of an object: not all of it, where it is large.
fn fill(object: *mut u8, size: usize, byte: u8) {
    let part = size.min(10_000);
    // SAFETY: both parts are in the object.
    unsafe {
        object.write_bytes(byte, part);
        object.add(size - part).write_bytes(byte, part);
    }
}

fn ends_are(object: *mut u8, size: usize, byte: u8) -> bool {
    // SAFETY: all indices are in the object.
    let at = |index: usize| unsafe { object.add(index).read() } == byte;
    let part = size.min(10_000);
    (0..part).step_by(61).all(at) && (size - part..size).step_by(61).all(at)
}

/// From now on the kernel answers these calls with ENOMEM.
fn refuse_from_now_on(calls: &[libc::c_long]) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let answer = |what| statement(libc::BPF_RET | libc::BPF_K, what);
    // The number of the call is the first word.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        let equal = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32);
        filter.push(libc::sock_filter { jf: 1, ..equal });
        filter.push(answer(libc::SECCOMP_RET_ERRNO | ENOMEM as u32));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid for reading, and only refuses calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// Works on after the system refuses some calls for good.
fn work_on_without(calls: &[libc::c_long]) {
    let mut work = Work { live: Vec::with_capacity(10_000), refused: 0 };
    let small = || (0..2000).map(|index| index * 7919 % 32_768);
    let sizes = || [20 * MB, 3 * MB, MB].into_iter().chain(small());
    sizes().for_each(|size| work.alloc(size));
    refuse_from_now_on(calls);
    work.free_if(|_| true);
    // What was freed may be had again, whatever the system says.
    sizes().for_each(|size| work.alloc(size));
    check(work.refused == 0, format_args!("{} were refused", work.refused));
    work.all();
    // A refusal is not taken for a wish to have memory locked.
    check(locked() == Some(0), "nothing is locked");
    // Without memory the test harness would not get far.
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) };
}

/// Kilobytes of locked memory. Allocates nothing.
fn locked() -> Option<usize> {
    let mut text = [0; 4096];
    let len = fs::File::open("/proc/self/status").ok()?.read(&mut text).ok()?;
    let status = std::str::from_utf8(&text[..len]).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

const FOREVER: [(&str, &[libc::c_long]); 6] = [
    ("no mremap", &[libc::SYS_mremap]),
    ("no mmap", &[libc::SYS_mmap]),
    ("no mprotect", &[libc::SYS_mprotect]),
    ("no madvise", &[libc::SYS_madvise]),
    ("no munmap", &[libc::SYS_munmap]),
    (
        "nothing",
        &[
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_madvise,
            libc::SYS_munmap,
            libc::SYS_mremap,
        ],
    ),
];

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    let (_, calls) = FOREVER.iter().find(|refused| refused.0 == name).unwrap();
    work_on_without(calls);
}

#[test]
fn a_call_that_fails_for_good_leaves_a_heap_that_works_on() {
    for (name, _) in FOREVER {
        passes(&mut common::child(name), 30);
    }
}

fn strace_is_there() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !there {
        skipped("there is no strace");
    }
    there
}

#[test]
fn a_program_starts_where_nothing_can_be_unmapped() {
    if !strace_is_there() {
        return;
    }
    let mut ls = Command::new("strace");
    ls.args(["-qq", "-f", "-o", "/dev/null", "-e", "trace=munmap,madvise"])
        .args(["-e", "inject=munmap,madvise:error=ENOMEM"])
        .args(["-E", &format!("LD_PRELOAD={}", common::library().display())])
        .args(["/bin/ls", "/"]);
    let ended = passes(&mut ls, 10);
    assert!(ended.out.contains("usr") && ended.err.is_empty(), "{ended:?}");
}
