//! The heap, described for people.

use core::fmt;

use spanalloc::stats::Report;

use crate::snapshot::with_snapshot;
use crate::text::{Sink, Text, Word};
use crate::{map, system};

/// What is wanted of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stats: bool,
    pub(crate) map: bool,
}

/// Writes what the heap of this process holds now. Allocates nothing.
pub(crate) fn write(text: &mut Text<'_, impl Sink>, wanted: Wanted) {
    tell(text, |report, text| {
        title(text);
        report.title(text, "")?;
        if wanted.stats {
            report.table(text, wanted.map)?;
        }
        if wanted.map {
            map::draw(text);
        }
        Ok(())
    });
}

/// Lets `write` write of what the heap holds now, and sends that.
pub(crate) fn tell<'a, S: Sink>(
    text: &mut Text<'a, S>,
    write: impl FnOnce(&Report<'_>, &mut Text<'a, S>) -> fmt::Result,
) {
    with_snapshot(|snapshot| {
        // A text takes everything: whether the sink does is known there.
        let _ = write(&Report::of(snapshot), text);
    });
    text.send();
}

/// What comes before the title of a report.
fn title(text: &mut Text<'_, impl Sink>) {
    let name = system::thread_name();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    text.put("spanalloc: heap of ").put_bytes(name.get(..end).unwrap_or_default());
    let process = usize::try_from(system::process()).unwrap_or(0);
    text.put(" (process ").word(&Word::number(process)).put("): ");
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    struct Page<'a>(&'a mut Vec<u8>);

    impl Sink for Page<'_> {
        fn write(&mut self, text: &[u8]) {
            self.0.extend_from_slice(text);
        }
    }

    fn report(wanted: Wanted) -> String {
        let mut page = Vec::with_capacity(1 << 20);
        let mut buffer = [0; 256];
        write(&mut Text::new(&mut buffer, Page(&mut page)), wanted);
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn a_report_has_a_title_and_a_table() {
        let report = report(Wanted { stats: true, map: false });
        let title = report.lines().next().unwrap();
        let process = std::format!("(process {})", std::process::id());
        assert!(title.starts_with("spanalloc: heap of ") && title.contains(&process), "{title}");
        assert!(report.ends_with(" beside the arenas\n"), "{report}");
    }

    #[test]
    fn a_map_has_a_letter_for_every_piece_of_the_arenas() {
        let map = report(Wanted { stats: false, map: true });
        assert!(map.lines().nth(1).unwrap().starts_with(" `- map "), "{map}");
        assert!(map.contains('█') && map.contains('·'), "{map}");
    }
}
