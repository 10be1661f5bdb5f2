//! Builds the binaries of the contenders with Cargo.
//!
//! Each is a build of its own with no feature but its own: two versions of mimalloc come from one
//! crate, and a contender that cannot be built takes no other one with it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::contenders::Contender;
use crate::rounds::last_lines;

/// How many lines at the end of a failed build are told.
const REASON_LINES: usize = 8;

/// The manifest of this package.
pub const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// Builds the binary of a contender, in the profile of the running program.
///
/// # Errors
/// Why it could not be built.
pub fn build(contender: &Contender) -> Result<PathBuf, String> {
    let mut arguments = vec!["--bin", contender.binary];
    if let Some(feature) = contender.feature {
        arguments.extend(["--features", feature]);
    }
    executable(&messages(&arguments)?, contender.binary)
        .ok_or_else(|| "Cargo does not say where the binary is".into())
}

/// Builds something with Cargo, in the profile of the running program, and returns what Cargo says
/// of it.
///
/// # Errors
/// Why it could not be built.
pub fn messages(arguments: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = Command::new(cargo());
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args(["--manifest-path", MANIFEST, "--profile", &profile()?]);
    // Else the end of what a failed build says is where it failed, and not why.
    command.env("RUST_BACKTRACE", "0");
    let output = command.args(arguments).output();
    let output = output.map_err(|error| format!("Cargo does not run: {error}"))?;
    if !output.status.success() {
        return Err(reason(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(parsed(&String::from_utf8_lossy(&output.stdout)))
}

/// The lines that are JSON.
fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The Cargo that started this program.
#[must_use]
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The profile of the running program, by the directory that Cargo put it in.
fn profile() -> Result<String, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let directory = program.parent().and_then(|directory| directory.file_name());
    let directory = directory.ok_or("the program is in no directory")?.to_string_lossy();
    Ok(if directory == "debug" { "dev".to_owned() } else { directory.into_owned() })
}

/// The path of a binary in Cargo's messages.
fn executable(messages: &[Value], binary: &str) -> Option<PathBuf> {
    messages
        .iter()
        .filter(|message| message["target"]["name"] == binary)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The first error and the end of what a failed build said.
fn reason(said: &str) -> String {
    let error = said.lines().find(|line| line.starts_with("error")).unwrap_or_default();
    format!("{error}\n{}", last_lines(said, REASON_LINES))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{executable, parsed, reason};

    #[test]
    fn the_reason_is_the_first_error_and_the_end() {
        let said = format!("warning: a\nerror: b\n{}", "\nc\n\nd".repeat(100));
        let reason = reason(&said);
        assert!(reason.starts_with("error: b\n") && reason.ends_with("c\nd"), "{reason}");
        assert_eq!(reason.lines().count(), 1 + super::REASON_LINES);
    }

    #[test]
    fn the_binary_is_found_in_the_messages() {
        let messages = parsed(concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}"#,
            "\nnot JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"on_x"},"executable":"/a/on_x"}"#,
        ));
        assert_eq!(messages.len(), 2);
        assert_eq!(executable(&messages, "on_x"), Some(PathBuf::from("/a/on_x")));
        assert_eq!(executable(&messages, "libc"), None);
    }
}
