//! Programs that the dynamic linker loads no library into.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a program does not load the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unaffected {
    Static,
    OtherUser,
    OtherMachine,
}

impl fmt::Display for Unaffected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static => "is statically linked: it runs on the malloc that it has inside",
            Self::OtherUser => "is setuid or setgid: no library is loaded into it",
            Self::OtherMachine => {
                "is for another kind of machine: the library does not fit into it"
            }
        })
    }
}

/// The file that runs if `name` is called, and why it does not load `library`. Nothing if it
/// does, and if that cannot be told.
pub(crate) fn unaffected(name: &OsStr, library: &Path) -> Option<(PathBuf, Unaffected)> {
    let mut file = find(name)?;
    // A script names its interpreter, which may be a script.
    for _ in 0..5 {
        match beginning(&file)?.as_slice() {
            [b'#', b'!', line @ ..] => file = interpreter(line)?,
            elf if elf.starts_with(ELF) => {
                let why = if is_other_user(&fs::metadata(&file).ok()?) {
                    Unaffected::OtherUser
                } else if machine(elf)? != machine(&beginning(library)?)? {
                    Unaffected::OtherMachine
                } else if !asks_for_a_linker(elf)? {
                    Unaffected::Static
                } else {
                    return None;
                };
                return Some((file, why));
            }
            _ => return None,
        }
    }
    None
}

/// The file of a program, as a shell finds it.
fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|it| it.is_file() && it.mode() & 0o111 != 0))
}

/// As much of a file as tells what it is.
fn beginning(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The first word of the line.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// Whether the program runs with rights that its caller does not have.
fn is_other_user(file: &Metadata) -> bool {
    // SAFETY: both read a number of this process.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let (mode, group_runs) = (file.mode(), 0o2010);
    (mode & 0o4000 != 0 && file.uid() != user)
        || (mode & group_runs == group_runs && file.gid() != group)
}

/// How every ELF file begins.
const ELF: &[u8] = b"\x7fELF";

/// What an ELF file is for: its width, its order of bytes, its machine.
fn machine(elf: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((elf.get(4..6)?, elf.get(18..20)?))
}

/// Whether an ELF file of this machine has a segment that names its dynamic linker.
fn asks_for_a_linker(elf: &[u8]) -> Option<bool> {
    const LINKER: u32 = 3;
    let short = |at: usize| Some(usize::from(u16::from_ne_bytes(*elf.get(at..)?.first_chunk()?)));
    // The header's addresses have the width of the machine.
    let table = usize::from_ne_bytes(*elf.get(24 + size_of::<usize>()..)?.first_chunk()?);
    let sizes = 24 + 3 * size_of::<usize>() + 6;
    let (entry_bytes, entries) = (short(sizes)?, short(sizes + 2)?);
    let segments = elf.get(table..)?.chunks_exact(entry_bytes.max(4)).take(entries);
    let mut kinds = segments.filter_map(|segment| segment.first_chunk().copied());
    Some(kinds.any(|kind| u32::from_ne_bytes(kind) == LINKER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_affected_however_it_is_called() {
        let test = env::current_exe().unwrap();
        assert_eq!(unaffected(test.as_os_str(), &test), None);
        assert_eq!(unaffected(OsStr::new("cat"), &test), None);
        assert_eq!(unaffected(OsStr::new("no-such-program"), &test), None);
    }

    #[test]
    fn the_interpreter_of_a_script_is_what_runs() {
        assert_eq!(interpreter(b" /bin/sh -e\nexit"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(interpreter(b"/usr/bin/env python3"), Some(PathBuf::from("/usr/bin/env")));
        assert_eq!(interpreter(b" \n/bin/sh"), None);
    }

    #[test]
    fn a_program_of_another_machine_is_noticed() {
        let place = tempfile::TempDir::new().unwrap();
        let (test, other) = (env::current_exe().unwrap(), place.path().join("other"));
        let mut elf = beginning(&test).unwrap();
        elf[18] ^= 1;
        fs::write(&other, &elf).unwrap();
        let why = unaffected(other.as_os_str(), &test).map(|(_, why)| why);
        assert_eq!(why, Some(Unaffected::OtherMachine));
        // Cut off, it cannot be told.
        fs::write(&other, &elf[..10]).unwrap();
        assert_eq!(unaffected(other.as_os_str(), &test), None);
    }
}
