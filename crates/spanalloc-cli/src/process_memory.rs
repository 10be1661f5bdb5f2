//! The memory of this process, as the system counts it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Resident memory in bytes; None where the system has no `/proc/self/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// Now (`VmRSS`).
    pub(crate) now: Option<u64>,
    /// The most so far (`VmHWM`).
    pub(crate) peak: Option<u64>,
}

pub(crate) fn resident() -> Resident {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Resident { now: field(&status, "VmRSS:"), peak: field(&status, "VmHWM:") }
}

/// The value of a line such as `VmHWM:     1234 kB`, in bytes.
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(field(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(field(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("VmRSS: many\n", "VmRSS:"), None);
    }
}
