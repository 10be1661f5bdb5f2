//! Where the system ends: little address space, no memory left, no mapping left, memory that is
//! locked, and programs that write where they should not.
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

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::ptr;

use common::calls::{
    calloc, errno, free, malloc, malloc_trim, posix_memalign, realloc, set_errno, usable_size,
    with_errno,
};
use common::job::{check, job, say};
use common::limited::{passes, run};
use common::native::{PLAIN, Workshop, skipped};
use libc::ENOMEM;

const MB: usize = 1 << 20;

/// A command whose process has only so much address space.
fn with_address_space(bytes: usize, mut command: Command) -> Command {
    let limit = libc::rlimit { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
    let set = move || {
        // SAFETY: the limit is valid for reading.
        let answer = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes a system call.
    unsafe { command.pre_exec(set) };
    command
}

#[test]
fn a_program_starts_in_32_mb_of_address_space() {
    let mut ls = with_address_space(32 * MB, common::preloaded("/bin/ls"));
    let ended = passes(ls.args(["-la", "/"]), 10);
    assert!(ended.out.contains("usr") && ended.err.is_empty(), "{ended:?}");
}

/// Objects of one size, each with the address of the next in it: as many as there is memory for.
#[derive(Debug)]
struct Chain {
    first: *mut u8,
    count: usize,
    size: usize,
}

impl Chain {
    fn fill(size: usize) -> Self {
        let mut chain = Self { first: ptr::null_mut(), count: 0, size };
        loop {
            let (object, number) = with_errno(|| malloc(size));
            check(number == if object.is_null() { ENOMEM } else { 0 }, "errno");
            if object.is_null() {
                return chain;
            }
            chain.push(object);
        }
    }

    fn push(&mut self, object: *mut u8) {
        // SAFETY: every size used here has room for an address.
        unsafe { object.cast::<*mut u8>().write(self.first) };
        self.first = object;
        self.count += 1;
    }

    fn free(&mut self, count: usize) {
        for _ in 0..count {
            let object = self.first;
            // SAFETY: the address was written when the object was pushed.
            self.first = unsafe { object.cast::<*mut u8>().read() };
            free(object);
        }
        self.count -= count;
    }

    fn bytes(&self) -> usize {
        self.count * self.size
    }
}

/// Every large request is refused with ENOMEM and changes nothing.
fn nothing_is_left(chain: &Chain) {
    let nothing = (ptr::null_mut(), ENOMEM);
    // SAFETY: the first object of the chain is live.
    let word = || unsafe { chain.first.cast::<usize>().read() };
    let before = word();
    check(with_errno(|| malloc(256 * MB)) == nothing, "malloc");
    check(with_errno(|| calloc(256, MB)) == nothing, "calloc");
    check(with_errno(|| realloc(chain.first, 256 * MB)) == nothing, "realloc");
    let answer = posix_memalign(4096, 256 * MB, ptr::null_mut());
    check(answer == (ENOMEM, ptr::null_mut()), "posix_memalign");
    check(word() == before, "the contents after a refused realloc");
}

/// Fills the memory with objects of one size after another, and empties it each time.
fn exhaust() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid for writing.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    let own_limit = std::env::var_os("SPANALLOC_HARD_LIMIT").is_some();
    assert!(limit.rlim_cur <= 1 << 30 || own_limit, "not in all the memory there is");
    let mut least = usize::MAX;
    for size in [1000, 48, 100, 5000, 32_768, 40_000, 100_000, MB, 64] {
        let mut chain = Chain::fill(size);
        let all = chain.count;
        say("filled", format_args!("{all} objects of {size} bytes: {} KB", chain.bytes() >> 10));
        nothing_is_left(&chain);
        least = least.min(chain.bytes());
        chain.free(1);
        let again = malloc(size);
        check(!again.is_null(), "one more after one was freed");
        chain.push(again);
        chain.free(all / 2);
        let mut more = Chain::fill(size);
        check(
            more.count >= all / 2 * 9 / 10,
            format_args!("{} after {} were freed", more.count, all / 2),
        );
        chain.free(chain.count);
        more.free(more.count);
    }
    say("least", least / MB);
}

#[test]
fn exhausted_memory_is_null_and_enomem_and_comes_back() {
    for (limit, least) in [(32, 12), (64, 30)] {
        let mut command = with_address_space(limit * MB, common::child("exhaust"));
        let ended = passes(&mut command, 60);
        let bytes = ended.figure("least");
        assert!(bytes >= least, "{bytes} MB of objects in {limit} MB: {ended:?}");
    }
}

#[test]
fn at_the_hard_limit_memory_is_null_and_enomem_and_comes_back() {
    for (limit, least) in [("32MiB", 20), ("64m", 50), ("100000k", 80)] {
        // The guard is for the machine.
        let mut command = with_address_space(900 * MB, common::child("exhaust"));
        let ended = passes(command.env("SPANALLOC_HARD_LIMIT", limit), 60);
        let bytes = ended.figure("least");
        assert!(bytes >= least, "{bytes} MB of objects in {limit}: {ended:?}");
        assert!(ended.err.is_empty(), "{ended:?}");
    }
}

/// Kilobytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Threads that peak one after the other, and keep nothing but what the allocator keeps for them.
fn peak_in_turn() {
    let before = resident();
    let mut most = 0;
    let (turn, next) = (std::sync::Mutex::new(()), std::sync::Barrier::new(4));
    let peak = |size: usize| {
        for _ in 0..8 {
            let _turn = turn.lock().unwrap();
            let blocks: Vec<_> = (0..40 * MB / size).map(|_| malloc(size)).collect();
            for block in &blocks {
                assert!(!block.is_null(), "nothing is refused");
                // SAFETY: the block has this size.
                unsafe { block.write_bytes(1, size) };
            }
            blocks.into_iter().for_each(free);
        }
        next.wait();
    };
    std::thread::scope(|scope| {
        for size in [64, 1000, 40_000] {
            let peak = &peak;
            scope.spawn(move || peak(size));
        }
        next.wait();
        most = resident() - before;
    });
    say("kept", most >> 10);
}

#[test]
fn above_the_soft_limit_threads_keep_less() {
    let ended = passes(&mut common::child("peak in turn"), 60);
    let without = ended.figure("kept");
    let mut command = common::child("peak in turn");
    let ended = passes(command.env("SPANALLOC_SOFT_LIMIT", "48MiB"), 60);
    let with = ended.figure("kept");
    eprintln!("{without} MB without a limit, {with} MB with one of 48 MB");
    assert!(with <= 56, "{with} MB above a limit of 48, {without} without");
}

/// Makes mappings until the system has no more, and returns where they are.
fn use_up_mappings() -> (*mut libc::c_void, usize) {
    let page = 4096;
    let bytes = 2 * 70_000 * page;
    let (rights, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new mappings, and rights of pages of the first of them, which nobody uses.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), bytes, rights, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        for offset in (page..bytes).step_by(2 * page) {
            if libc::mprotect(start.byte_add(offset), page, libc::PROT_READ) != 0 {
                assert_eq!(errno(), ENOMEM);
                // What is left is less than one change of rights takes.
                let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
                while libc::mmap(ptr::null_mut(), page, rights, shared, -1, 0) != libc::MAP_FAILED {
                }
                return (start, bytes);
            }
        }
    }
    panic!("the system has no limit on mappings");
}

fn without_mappings() {
    let block = || malloc(3 * MB);
    let write = |object: *mut u8| {
        // SAFETY: the object has this size.
        unsafe { object.write_bytes(1, 3 * MB) };
    };
    let blocks = [block(), block(), block()];
    blocks.into_iter().for_each(write);
    let small: [_; 1000] = std::array::from_fn(|index| malloc(index * 8));
    let (start, bytes) = use_up_mappings();
    set_errno(4711);
    free(blocks[1]);
    small.into_iter().step_by(2).for_each(free);
    malloc_trim();
    free(blocks[2]);
    assert_eq!(errno(), 4711);
    // There is memory where the blocks were; elsewhere there may be none.
    let (again, number) = with_errno(block);
    assert!(!again.is_null() && number == 0);
    write(again);
    free(again);
    for size in [100, 10_000, 100_000, 3 * MB, 200 * MB] {
        let (object, number) = with_errno(|| malloc(size));
        assert_eq!(number, if object.is_null() { ENOMEM } else { 0 });
        free(object);
    }
    // SAFETY: the mappings are this function's.
    assert_eq!(unsafe { libc::munmap(start, bytes) }, 0);
    free(blocks[0]);
    small.into_iter().skip(1).step_by(2).for_each(free);
    let object = malloc(200 * MB);
    assert!(!object.is_null());
    free(object);
}

#[test]
fn without_a_mapping_left_a_free_still_works() {
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    if most.trim().parse::<usize>().unwrap() > 70_000 {
        return skipped(&format!("the system allows {} mappings", most.trim()));
    }
    passes(&mut common::child("without mappings"), 60);
}

#[test]
fn locked_memory_is_not_much_more_than_what_is_used() {
    let Some(workshop) = Workshop::open() else { return };
    let program = workshop.program("locked.c", PLAIN);
    for when in ["early", "late"] {
        // The guard is for the machine: whatever is locked is also there.
        let mut command = with_address_space(1024 * MB, common::preloaded(&program));
        let ended = passes(command.arg(when), 10);
        assert!(ended.figure("resident") <= 8 << 10, "{when}: {ended:?}");
        assert!(ended.figure("locked") <= 8 << 10, "{when}: {ended:?}");
    }
}

/// Blocks and what becomes of them, by name: in the end a block of this size is overflown.
type Overflow = (&'static str, usize, fn(usize) -> *mut u8);

/// The smallest block with a guard behind it.
const GUARDED_FROM: usize = 128 << 10;

const OVERFLOWS: [Overflow; 8] = [
    ("the smallest", GUARDED_FROM, malloc),
    ("a small one", 200_000, malloc),
    ("a megabyte", MB, malloc),
    ("of 100 megabytes", 100 * MB, malloc),
    ("of zeros", MB, |size| calloc(1, size)),
    ("an aligned one", 8 * MB, |size| posix_memalign(MB, size, ptr::null_mut()).1),
    ("one that grew", 3 * MB, |size| realloc(malloc(MB), size)),
    ("one that shrank", MB, |size| realloc(malloc(3 * MB), size)),
];

/// Writes a megabyte behind a large block that has others around it.
fn overflow(size: usize, make: fn(usize) -> *mut u8) {
    let [_, block, _] = std::array::from_fn(|_| make(size));
    let usable = usable_size(block);
    // SAFETY: the block has this size.
    unsafe { block.write_bytes(1, usable) };
    say("usable", usable);
    let end = block.wrapping_add(usable);
    for offset in 0..MB {
        // SAFETY: none, this is a bug.
        unsafe { end.wrapping_add(offset).write_volatile(1) };
    }
}

#[test]
fn an_overflow_of_a_large_block_ends_at_a_guard() {
    for (name, size, _) in OVERFLOWS {
        let ended = run(&mut common::child(name), 10);
        assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{name}: {ended:?}");
        assert!(ended.figure("usable") >= size as i64, "{name}: {ended:?}");
    }
}

/// Live blocks that would need more mappings for their guards than a process may have.
fn more_blocks_than_mappings() {
    let blocks: Vec<_> = (0..33_000).map(|_| malloc(GUARDED_FROM)).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    for block in &blocks {
        // SAFETY: the block has this size.
        unsafe {
            block.write(1);
            block.add(GUARDED_FROM - 1).write(2);
        }
    }
    // The rest of the program has mappings, too.
    let threads: Vec<_> = (0..50).map(|_| std::thread::spawn(|| free(malloc(MB)))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    blocks.into_iter().for_each(free);
    malloc_trim();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.lines().count() < 1000, "{} mappings are left", maps.lines().count());
}

#[test]
fn guards_leave_the_program_enough_mappings() {
    passes(&mut common::child("more blocks than mappings"), 60);
}

/// Kilobytes that a process had in memory at most.
#[allow(clippy::zombie_processes, reason = "`wait4` waits")]
fn peak_of(command: &mut Command) -> i64 {
    let child = command.spawn().unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: the child is this process's; both places are valid for writing.
    let ended =
        unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    assert!(ended > 0 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    // SAFETY: all zeroes is a value, and the call filled it in.
    unsafe { usage.assume_init() }.ru_maxrss
}

#[test]
fn a_program_that_does_nothing_weighs_next_to_nothing() {
    let least = |make: &dyn Fn() -> Command| (0..5).map(|_| peak_of(&mut make())).min().unwrap();
    let alone = least(&|| Command::new("/bin/true"));
    let under = least(&|| common::preloaded("/bin/true"));
    eprintln!("/bin/true has {alone} KB in memory, and {under} KB under the library");
    assert!(under <= alone + 2048, "{under} KB instead of {alone}");
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    let Some(name) = job() else { return };
    match name.as_str() {
        "exhaust" => exhaust(),
        "peak in turn" => peak_in_turn(),
        "without mappings" => without_mappings(),
        "more blocks than mappings" => more_blocks_than_mappings(),
        name => {
            let (_, size, make) = OVERFLOWS.iter().find(|overflow| overflow.0 == name).unwrap();
            overflow(*size, *make);
        }
    }
}
