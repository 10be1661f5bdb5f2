//! Programs in a control group that has little memory.
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

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use common::calls::{free, malloc};
use common::job::{check, job, say};
use common::limited::{passes, run};

const MB: usize = 1 << 20;
/// What the group may have.
const GROUP: usize = 64 * MB;
/// More than it may have.
const TOO_MUCH: usize = 100 * MB;

/// Objects of one size, filled, as many as there is memory for, but no more than [`TOO_MUCH`]; each begins with the
/// address of the one before.
fn fill(size: usize) -> (*mut u8, usize) {
    let (mut first, mut count) = (ptr::null_mut::<u8>(), 0);
    while count * size < TOO_MUCH {
        let object = malloc(size);
        if object.is_null() {
            break;
        }
        // SAFETY: the object has this size, which is that of an address at least.
        unsafe {
            object.write_bytes(1, size);
            object.cast::<*mut u8>().write(first);
        }
        (first, count) = (object, count + 1);
    }
    (first, count)
}

/// Fills all the memory there is with objects of one size after the other.
fn exhaust() {
    let mut least = usize::MAX;
    for size in [1000, 64, 40_000, MB, 300] {
        let (mut first, count) = fill(size);
        let bytes = count * size;
        say("filled", format_args!("{} KB in {count} objects of {size} bytes", bytes >> 10));
        check(bytes < TOO_MUCH, "null");
        least = least.min(bytes);
        while !first.is_null() {
            // SAFETY: the object is live and begins with the address of the one before.
            let before = unsafe { first.cast::<*mut u8>().read() };
            free(first);
            first = before;
        }
    }
    say("least", least / MB);
}

/// What a child does, in its own process: a test that does nothing in this one.
#[test]
fn child() {
    match job().as_deref() {
        None => {}
        Some("exhaust") => exhaust(),
        Some(other) => panic!("{other}"),
    }
}

/// A control group below that of this process, which is gone in the end.
struct Group(PathBuf);

impl Group {
    /// A group with so much memory, if this process may make one.
    fn new(name: &str, bytes: usize) -> Option<Self> {
        let list = fs::read_to_string("/proc/self/cgroup").ok()?;
        let place = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, group) = (parts.next()?, parts.next()?);
            let (mount, file) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                some if some.split(',').any(|each| each == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            let name = format!("spanalloc-{name}-{}", std::process::id());
            Some((Path::new(mount).join(group.trim_start_matches('/')).join(name), file))
        };
        list.lines().filter_map(place).find_map(|(path, file)| {
            fs::create_dir(&path).ok()?;
            let group = Self(path);
            fs::write(group.0.join(file), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// A command whose process is in the group.
    fn with(&self, mut command: Command) -> Command {
        let list = File::options().write(true).open(self.0.join("cgroup.procs")).unwrap();
        let enter = move || {
            // SAFETY: writes one byte, which stands for the process itself.
            let written = unsafe { libc::write(list.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: the closure only makes a system call.
        unsafe { command.pre_exec(enter) };
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that ended may be in it for a moment.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Says that a test was skipped, which it may be: most containers have no groups of their own.
fn skipped(reason: &str) {
    io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).unwrap();
}

fn limited(limit: &str) -> Command {
    let mut command = common::child("exhaust");
    command.env("SPANALLOC_HARD_LIMIT", limit);
    command
}

#[test]
fn a_program_in_a_small_group_gets_null_and_goes_on() {
    let Some(group) = Group::new("small", GROUP) else {
        return skipped("this process may not make control groups");
    };
    for (limit, least) in [("cgroup", 48), ("cgroup:50%", 25)] {
        let ended = passes(&mut group.with(limited(limit)), 60);
        assert!(ended.figure("least") >= least && ended.err.is_empty(), "{ended:?}");
    }
    // Otherwise the system ends it: this is a group that does so.
    let ended = run(&mut group.with(common::child("exhaust")), 60);
    assert_eq!(ended.status.signal(), Some(libc::SIGKILL), "{ended:?}");
}

/// Lets the process of a command see other files in the place of these, by mounts of its own.
fn see_instead(command: &mut Command, places: &[(&Path, &str)]) {
    let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let places: Vec<_> =
        places.iter().map(|(from, to)| (text(from), CString::new(*to).unwrap())).collect();
    let mount = |from: *const libc::c_char, to: *const libc::c_char, flags| {
        // SAFETY: the names end with null bytes, or are null where the call allows it.
        let answer = unsafe { libc::mount(from, to, ptr::null(), flags, ptr::null()) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let see = move || {
        // SAFETY: gives this process mounts of its own.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mount(ptr::null(), c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE)?;
        places.iter().try_for_each(|(from, to)| mount(from.as_ptr(), to.as_ptr(), libc::MS_BIND))
    };
    // SAFETY: the closure only makes system calls.
    unsafe { command.pre_exec(see) };
}

/// The whole way from the kernel's files to the limit, but for what the kernel does at the end of it.
#[test]
fn the_least_bound_of_all_groups_is_the_limit() {
    let root = tempfile::tempdir().unwrap();
    let groups = root.path().join("groups");
    fs::create_dir_all(groups.join("outer/inner")).unwrap();
    for (file, text) in [
        ("list", "3:cpu:/x\n0::/outer/inner\n".to_owned()),
        ("groups/outer/inner/memory.max", "max\n".to_owned()),
        ("groups/outer/memory.max", format!("{GROUP}\n")),
    ] {
        fs::write(root.path().join(file), text).unwrap();
    }
    let list = root.path().join("list");
    let places = [(list.as_path(), "/proc/self/cgroup"), (groups.as_path(), "/sys/fs/cgroup")];
    let mut probe = Command::new("/bin/true");
    see_instead(&mut probe, &places);
    if let Err(error) = probe.status() {
        return skipped(&format!("this process may not mount: {error}"));
    }
    for (limit, least, most) in [("cgroup", 48, 58), ("cgroup:50%", 25, 32)] {
        let mut command = limited(limit);
        see_instead(&mut command, &places);
        let ended = passes(&mut command, 60);
        let bytes = ended.figure("least");
        assert!((least..=most).contains(&bytes) && ended.err.is_empty(), "{ended:?}");
    }
}
