//! One variable of the environment, read as an option of this library.

use core::ffi::c_int;

use spanalloc::HugePages;

use crate::text::{Sink, Text};

/// What a variable asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting<'a> {
    /// `SPANALLOC_CHECK`: whether misuse ends the process.
    Check(bool),
    /// `SPANALLOC_STATS`: whether the heap is described when the process exits.
    Stats(bool),
    /// `SPANALLOC_MAP`: whether the heap is drawn when the process exits.
    Map(bool),
    /// `SPANALLOC_REPORT`: the file that the report is appended to.
    Report(&'a [u8]),
    /// `SPANALLOC_REPORT_PID`: the only process that reports.
    ReportPid(c_int),
    /// `SPANALLOC_BACKGROUND`: whether a thread gives memory back.
    Background(bool),
    /// `SPANALLOC_SOFT_LIMIT`: from how many bytes on memory goes back.
    SoftLimit(Limit),
    /// `SPANALLOC_HARD_LIMIT`: how many bytes there may be.
    HardLimit(Limit),
    /// `SPANALLOC_THREAD_CACHE`: how many bytes a thread keeps.
    ThreadCache(usize),
    /// `SPANALLOC_HUGE_PAGES`: for which memory huge pages are asked for.
    HugePages(HugePages),
    /// Nothing of this library.
    Nothing,
}

/// A limit of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// So many bytes.
    Bytes(usize),
    /// So many percent of what the process's control group may have; none is as many as is good.
    Cgroup(Option<u8>),
}

/// What every name of an option begins with.
const PREFIX: &[u8] = b"SPANALLOC_";

/// Beginnings of names that belong to the command and the tests, not to the library.
const OTHERS: [&[u8]; 5] = [
    b"SPANALLOC_DEMO_",
    b"SPANALLOC_RECORD_",
    b"SPANALLOC_REQUIRE_",
    b"SPANALLOC_TEST_",
    b"SPANALLOC_WRITE_",
];

/// What a size must be.
const A_SIZE: &str = "a size, such as 500000, 64k or 2GiB";

/// What a limit must be.
const A_LIMIT: &str = "a size, such as 500000, 64k or 2GiB, or cgroup, or cgroup:75%";

/// Reads the value of one option; None if it is wrong.
type Read = for<'a> fn(&'a [u8]) -> Option<Setting<'a>>;

/// All options: the name, what a value must be, and how it is read.
const OPTIONS: [(&[u8], &str, Read); 10] = [
    (b"SPANALLOC_CHECK", "0 or 1", |value| switch(value).map(Setting::Check)),
    (b"SPANALLOC_STATS", "0 or 1", |value| switch(value).map(Setting::Stats)),
    (b"SPANALLOC_MAP", "0 or 1", |value| switch(value).map(Setting::Map)),
    (b"SPANALLOC_BACKGROUND", "0 or 1", |value| switch(value).map(Setting::Background)),
    (b"SPANALLOC_REPORT", "the name of a file", |value| {
        (!value.is_empty() && value.len() < LONGEST_PATH).then_some(Setting::Report(value))
    }),
    (b"SPANALLOC_REPORT_PID", "the number of a process", |value| {
        number(value).map(Setting::ReportPid)
    }),
    (b"SPANALLOC_SOFT_LIMIT", A_LIMIT, |value| limit(value).map(Setting::SoftLimit)),
    (b"SPANALLOC_HARD_LIMIT", A_LIMIT, |value| limit(value).map(Setting::HardLimit)),
    (b"SPANALLOC_THREAD_CACHE", A_SIZE, |value| size(value).map(Setting::ThreadCache)),
    (b"SPANALLOC_HUGE_PAGES", "off, advise or always", |value| {
        huge_pages(value).map(Setting::HugePages)
    }),
];

/// Bytes of the longest path, its end included.
pub(crate) const LONGEST_PATH: usize = 4096;

/// A variable that looks like an option and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong<'a> {
    /// The variable with its value, or its name alone if that is what is wrong.
    text: &'a [u8],
    /// What it is not.
    wanted: &'static str,
}

/// What `variable`, as `NAME=value`, asks for.
pub(crate) fn read(variable: &[u8]) -> Result<Setting<'_>, Wrong<'_>> {
    if !variable.starts_with(PREFIX) || OTHERS.iter().any(|other| variable.starts_with(other)) {
        return Ok(Setting::Nothing);
    }
    let equals = variable.iter().position(|byte| *byte == b'=').unwrap_or(variable.len());
    let name = variable.get(..equals).unwrap_or_default();
    let value = variable.get(equals + 1..).unwrap_or_default();
    for (known, wanted, read) in &OPTIONS {
        if *known == name {
            return read(value).ok_or(Wrong { text: variable, wanted });
        }
    }
    Err(Wrong { text: name, wanted: "an option" })
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

fn huge_pages(value: &[u8]) -> Option<HugePages> {
    match value {
        b"off" => Some(HugePages::Off),
        b"advise" => Some(HugePages::Advise),
        b"always" => Some(HugePages::Always),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<c_int> {
    decimal(value).and_then(|number| c_int::try_from(number).ok())
}

/// A number above 0.
fn decimal(digits: &[u8]) -> Option<usize> {
    let mut number: usize = 0;
    for byte in digits {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(usize::from(digit))?;
    }
    (number > 0).then_some(number)
}

/// What may stand behind a size, and what it is multiplied by: powers of 1024, all of them.
const UNITS: [(&[u8], usize); 9] = [
    (b"KiB", 1 << 10),
    (b"MiB", 1 << 20),
    (b"GiB", 1 << 30),
    (b"k", 1 << 10),
    (b"m", 1 << 20),
    (b"g", 1 << 30),
    (b"K", 1 << 10),
    (b"M", 1 << 20),
    (b"G", 1 << 30),
];

/// A number of bytes above 0.
fn size(value: &[u8]) -> Option<usize> {
    for (unit, bytes) in UNITS {
        if let Some(digits) = value.strip_suffix(unit) {
            return decimal(digits)?.checked_mul(bytes);
        }
    }
    decimal(value)
}

fn limit(value: &[u8]) -> Option<Limit> {
    match value.strip_prefix(b"cgroup") {
        None => size(value).map(Limit::Bytes),
        Some(b"") => Some(Limit::Cgroup(None)),
        Some(part) => {
            let percent = decimal(part.strip_prefix(b":")?.strip_suffix(b"%")?)?;
            u8::try_from(percent)
                .ok()
                .filter(|percent| *percent <= 100)
                .map(|percent| Limit::Cgroup(Some(percent)))
        }
    }
}

/// Bytes of a wrong variable that are shown.
const SHOWN: usize = 100;

impl Wrong<'_> {
    /// One line: `spanalloc: SPANALLOC_CHECK=maybe is not 0 or 1; ignored`.
    pub(crate) fn tell(&self, sink: impl Sink) {
        let mut buffer = [0; 200];
        let mut text = Text::new(&mut buffer, sink);
        text.put("spanalloc: ");
        for byte in self.text.iter().take(SHOWN) {
            let shown = if (b' '..=b'~').contains(byte) { *byte } else { b'?' };
            text.put_bytes(&[shown]);
        }
        if self.text.len() > SHOWN {
            text.put("...");
        }
        text.put(" is not ").put(self.wanted).put("; ignored\n").send();
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    struct Line<'a>(&'a mut Vec<u8>);

    impl Sink for Line<'_> {
        fn write(&mut self, text: &[u8]) {
            self.0.extend_from_slice(text);
        }
    }

    fn complaint(variable: &[u8]) -> String {
        let mut line = Vec::new();
        read(variable).unwrap_err().tell(Line(&mut line));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn options_are_what_they_say() {
        assert_eq!(read(b"SPANALLOC_CHECK=0"), Ok(Setting::Check(false)));
        assert_eq!(read(b"SPANALLOC_STATS=1"), Ok(Setting::Stats(true)));
        assert_eq!(read(b"SPANALLOC_MAP=1"), Ok(Setting::Map(true)));
        assert_eq!(read(b"SPANALLOC_BACKGROUND=1"), Ok(Setting::Background(true)));
        assert_eq!(read(b"SPANALLOC_REPORT=a=b"), Ok(Setting::Report(b"a=b")));
        assert_eq!(read(b"SPANALLOC_REPORT_PID=2147483647"), Ok(Setting::ReportPid(c_int::MAX)));
        assert_eq!(
            read(b"SPANALLOC_SOFT_LIMIT=2GiB"),
            Ok(Setting::SoftLimit(Limit::Bytes(2 << 30)))
        );
        assert_eq!(read(b"SPANALLOC_THREAD_CACHE=1MiB"), Ok(Setting::ThreadCache(1 << 20)));
        for (value, huge) in
            [("off", HugePages::Off), ("advise", HugePages::Advise), ("always", HugePages::Always)]
        {
            let variable = std::format!("SPANALLOC_HUGE_PAGES={value}");
            assert_eq!(read(variable.as_bytes()), Ok(Setting::HugePages(huge)));
        }
        assert_eq!(read(b"SPANALLOC_HARD_LIMIT=1"), Ok(Setting::HardLimit(Limit::Bytes(1))));
    }

    #[test]
    fn sizes_have_units() {
        let sizes: [(&[u8], usize); 7] = [
            (b"4096", 4096),
            (b"3k", 3 << 10),
            (b"3K", 3 << 10),
            (b"12KiB", 12 << 10),
            (b"0512MiB", 512 << 20),
            (b"7m", 7 << 20),
            (b"17179869183G", 17_179_869_183 << 30),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Some(bytes), "{text:?}");
        }
        let wrong: [&[u8]; 14] = [
            b"",
            b"0",
            b"0MiB",
            b"MiB",
            b"-1",
            b"+1",
            b"1.5g",
            b"1 GiB",
            b"1GB",
            b"1gib",
            b"1kk",
            b"0x10",
            b"17179869184G",
            b"18446744073709551616",
        ];
        for text in wrong {
            assert_eq!(size(text), None, "{text:?}");
        }
        assert_eq!(
            complaint(b"SPANALLOC_HARD_LIMIT=2GB"),
            "spanalloc: SPANALLOC_HARD_LIMIT=2GB is not a size, such as 500000, 64k or 2GiB, or cgroup, or \
             cgroup:75%; ignored\n"
        );
    }

    #[test]
    fn a_limit_may_be_that_of_the_control_group() {
        assert_eq!(limit(b"cgroup"), Some(Limit::Cgroup(None)));
        assert_eq!(limit(b"cgroup:1%"), Some(Limit::Cgroup(Some(1))));
        assert_eq!(
            read(b"SPANALLOC_SOFT_LIMIT=cgroup:100%"),
            Ok(Setting::SoftLimit(Limit::Cgroup(Some(100))))
        );
        let wrong: [&[u8]; 8] = [
            b"cgroup:",
            b"cgroup:%",
            b"cgroup:50",
            b"cgroup:0%",
            b"cgroup:101%",
            b"cgroup:300%",
            b"cgroup50%",
            b"cgroups",
        ];
        assert_eq!(wrong.map(limit), [None; 8]);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let others: [&[u8]; 7] = [
            b"",
            b"PATH=/bin",
            b"SPANALLOC",
            b"spanalloc_check=maybe",
            b"SPANALLOC_DEMO_ALLOCATOR=x",
            b"SPANALLOC_TEST_CHILD=x",
            b"SPANALLOC_REQUIRE_PROGRAMS=1",
        ];
        assert_eq!(others.map(read), [Ok(Setting::Nothing); 7]);
    }

    #[test]
    fn a_wrong_option_gets_one_line() {
        let line = "spanalloc: SPANALLOC_CHECK=maybe is not 0 or 1; ignored\n";
        assert_eq!(complaint(b"SPANALLOC_CHECK=maybe"), line);
        let line = "spanalloc: SPANALLOC_CHEK is not an option; ignored\n";
        assert_eq!(complaint(b"SPANALLOC_CHEK=1"), line);
        let line = "spanalloc: SPANALLOC_REPORT= is not the name of a file; ignored\n";
        assert_eq!(complaint(b"SPANALLOC_REPORT="), line);
        for value in ["", "0", "-1", "2147483648", "1x"] {
            let variable = std::format!("SPANALLOC_REPORT_PID={value}");
            let line =
                std::format!("spanalloc: {variable} is not the number of a process; ignored\n");
            assert_eq!(complaint(variable.as_bytes()), line);
        }
        let line = "spanalloc: SPANALLOC_HUGE_PAGES=1 is not off, advise or always; ignored\n";
        assert_eq!(complaint(b"SPANALLOC_HUGE_PAGES=1"), line);
        for wrong in
            ["SPANALLOC_STATS", "SPANALLOC_MAP=", "SPANALLOC_MAP=11", "SPANALLOC_BACKGROUND=yes"]
        {
            assert!(complaint(wrong.as_bytes()).ends_with("is not 0 or 1; ignored\n"));
        }
    }

    #[test]
    fn a_long_or_strange_value_makes_no_long_or_strange_line() {
        let mut long = b"SPANALLOC_CHECK=".to_vec();
        long.extend(vec![b'x'; 5000]);
        assert_eq!(complaint(&long).len(), 11 + SHOWN + "... is not 0 or 1; ignored\n".len());
        let line = "spanalloc: SPANALLOC_CHECK=??[31m is not 0 or 1; ignored\n";
        assert_eq!(complaint(b"SPANALLOC_CHECK=\n\x1b[31m"), line);
        let mut path = b"SPANALLOC_REPORT=".to_vec();
        path.extend(vec![b'x'; LONGEST_PATH]);
        assert!(read(&path).is_err());
    }
}
