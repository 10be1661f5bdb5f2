//! Prints the size classes of Go with what they waste, or those of the sizes given as arguments:
//!
//! ```text
//! cargo run -p spanalloc-classes --example table
//! cargo run -p spanalloc-classes --example table -- 16 64 256 1024
//! ```

use std::io::{self, Write};
use std::process::ExitCode;

use spanalloc_classes::{ClassTable, Go67, PAGE_BYTES, Rule, SizeClasses};

fn main() -> ExitCode {
    let shown = match asked_for() {
        Ok(None) => print(Go67::CLASSES),
        Ok(Some(table)) => print(&table),
        Err(reason) => Err(io::Error::other(reason)),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("table: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The table of the sizes given as arguments, if any.
fn asked_for() -> Result<Option<SizeClasses>, String> {
    let sizes = std::env::args()
        .skip(1)
        .map(|size| size.parse().map_err(|error| format!("{size:?} is not a size: {error}")))
        .collect::<Result<Vec<u32>, _>>()?;
    if sizes.is_empty() {
        return Ok(None);
    }
    SizeClasses::try_from_sizes(&Rule::GO, &sizes).map(Some).map_err(|error| error.to_string())
}

/// The part that `waste` is of `pages`, in percent.
fn percent(waste: u32, pages: u32) -> f64 {
    100.0 * f64::from(waste) / f64::from(pages * PAGE_BYTES)
}

fn print(table: &SizeClasses) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "                 table's span                             | span as cut")?;
    writeln!(
        out,
        "class    bytes   pages   slots    tail    worst    align  | pages   slots    tail    tail"
    )?;
    for (number, class) in table.iter() {
        writeln!(
            out,
            "{number:5} {:8} {:7} {:7} {:7} {:7.2}% {:8}  | {:5} {:7} {:7} {:6.2}%",
            class.bytes,
            class.pages,
            class.slots,
            class.tail_waste(),
            percent(table.worst_waste(number), class.pages),
            class.min_align(),
            class.span_pages,
            class.span_slots,
            class.span_tail_waste(),
            percent(class.span_tail_waste(), class.span_pages),
        )?;
    }
    writeln!(
        out,
        "{} classes of up to {} bytes in pages of {PAGE_BYTES}. Tail: bytes behind the last object. \
         Worst: lost of\na span, tail included, when every object is as small as its class allows.",
        table.count(),
        table.largest(),
    )
}
