//! A program on spanalloc, by one line, that looks at its own heap:
//!
//! ```text
//! cargo run -p spanalloc --example global
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::thread;

use spanalloc::stats::{Snapshot, snapshot};

#[global_allocator]
static ALLOCATOR: spanalloc::Spanalloc = spanalloc::Spanalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let before = snapshot();
    let workers: Vec<_> = (0..4).map(|part| thread::spawn(move || squares(part))).collect();
    let mut maps = Vec::new();
    for worker in workers {
        maps.push(worker.join().map_err(|_| "a thread panicked")?);
    }
    let words: usize = maps.iter().map(BTreeMap::len).sum();
    let picture = vec![0_u8; 3 << 20]; // a large object
    print(
        &format!("with {words} strings in maps and {} bytes of picture", picture.len()),
        &snapshot(),
    );

    drop((maps, picture)); // made by threads that have ended, freed by this one
    let after = snapshot();
    print("after the drop", &after);
    if !after.adds_up() {
        return Err("the numbers do not add up".into());
    }
    println!("{} objects live, {} before", after.live_objects(), before.live_objects());
    Ok(())
}

fn squares(part: u64) -> BTreeMap<u64, String> {
    (0..20_000).map(|n| 4 * n + part).map(|n| (n, format!("{n} times {n} is {}", n * n))).collect()
}

fn print(when: &str, heap: &Snapshot) {
    println!("{when}:");
    println!("  slot bytes   spans    live  in magazines  freed by others    free");
    for row in heap.rows() {
        println!(
            "  {:10} {:7} {:7} {:13} {:16} {:7}",
            row.slot_bytes, row.spans, row.live, row.cached, row.freed, row.free
        );
    }
    println!(
        "  {} large objects of {} pages; {} of {} pages in use; {} arenas; {} KB committed",
        heap.large_objects,
        heap.large_pages,
        heap.pages.pages_in_use,
        heap.pages.pages_in_use + heap.pages.pages_free,
        heap.pages.arenas,
        heap.pages.committed >> 10
    );
}
