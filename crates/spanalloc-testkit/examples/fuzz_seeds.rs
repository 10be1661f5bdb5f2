//! Writes seeds of the fuzz targets to a folder, for when the way operations are written down has
//! changed. Without a folder it only says what there is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spanalloc_testkit::Operation;

/// A list of operations that come to one part of the code each.
fn seeds() -> Vec<(&'static str, Vec<Operation>)> {
    let many = |size, more| Operation::AllocMany { size, align: 8, more };
    let switch = |cache| Operation::Switch { cache };
    vec![
        (
            "magazines",
            vec![many(64, 255), Operation::FreeMany { index: 9, more: 200 }, many(64, 99)],
        ),
        (
            "remote",
            vec![
                many(48, 255),
                many(48, 255),
                switch(1),
                Operation::FreeMany { index: 3, more: 255 },
                switch(0),
                many(48, 255),
                Operation::Restart { cache: 0 },
                switch(2),
                Operation::FreeMany { index: 0, more: 255 },
            ],
        ),
        (
            "tiny",
            vec![
                many(3, 255),
                many(7, 200),
                switch(1),
                Operation::FreeMany { index: 1, more: 250 },
                switch(0),
                many(1, 255),
                Operation::FreeMany { index: 5, more: 255 },
            ],
        ),
        (
            "large",
            vec![
                Operation::AllocZeroed { size: 1 << 20, align: 8 },
                Operation::Realloc { index: 0, size: 1_900_000 },
                Operation::Realloc { index: 0, size: 40_000 },
                Operation::Alloc { size: 100_000, align: 1 << 26 },
                Operation::FreeRemote { index: 1 },
                Operation::Release { most: 1000 },
                Operation::AllocZeroed { size: 1 << 20, align: 4096 },
            ],
        ),
        (
            "classes",
            (1..=67)
                .flat_map(|step| {
                    let size = step * step * 7;
                    [
                        Operation::Alloc { size, align: 1 << (step % 12) },
                        Operation::Realloc { index: (step * 5) as u32, size: size + 20 },
                        Operation::Free { index: (step * 3) as u32 },
                    ]
                })
                .collect(),
        ),
        (
            "exit",
            (0..12)
                .flat_map(|step| {
                    [
                        many(400 << (step % 5), 70),
                        Operation::Restart { cache: step },
                        switch(step + 1),
                        Operation::FreeMany { index: 2, more: 60 },
                    ]
                })
                .collect(),
        ),
    ]
}

/// Operations on central lists, as the target `central` reads them: which, the owner, and two bytes.
fn central() -> Vec<(&'static str, Vec<[u8; 4]>)> {
    let cut = |owner| (0..4).map(move |class| [0, owner, class, 0]);
    let slots = |owner| (0..16).map(move |span| [5, owner, span, 11]);
    let free = |owner, count| (0..count).map(move |object| [11, owner, object * 6, 0]);
    let deliver = |count| (0..count).map(|token| [21, 0, token, 0]);
    let hand_over = |owner| [27, owner, 0, 0];
    vec![
        ("own", cut(0).chain(slots(0)).chain(free(0, 40)).chain([[25, 0, 1, 0]]).collect()),
        (
            "remote",
            (cut(0).chain(slots(0)).chain(free(1, 30)).chain(deliver(6)).chain([[24, 0, 0, 0]]))
                .chain(slots(0))
                .collect(),
        ),
        (
            "exit",
            (cut(1).chain(slots(1)).chain(free(2, 20)).chain([[26, 1, 0, 0]]).chain(deliver(2)))
                .chain([hand_over(1)])
                .chain(deliver(6))
                .chain((0..4).map(|class| [3, 2, class, 0]))
                .chain(slots(2))
                .collect(),
        ),
        (
            "large",
            (0..8)
                .flat_map(|step| {
                    [[28, 0, 5 * step, step], [30, 0, step, 39 - step], [29, 0, step, 0]]
                })
                .collect(),
        ),
    ]
}

/// Operations on the maps, as the target `span_map` reads them: which, the kind of address, and four bytes.
fn span_map() -> Vec<(&'static str, Vec<[u8; 6]>)> {
    let publish = |shape| (0..24).map(move |step| [0, shape, step, step * 10, 7, 9]);
    let alloc = (0..12).map(|step| [0, 0, step, step * 23, step, 40]);
    let set = (0..24).map(|step| [4, 0, step, step * 3, step * 5, 30 + step]);
    let free = (0..6).map(|step| [10, 3, step, step, 0, 0]);
    vec![
        ("near", publish(0).collect()),
        ("borders", publish(1).collect()),
        ("bits", publish(2).collect()),
        ("fails", [[7, 0, 1, 1, 0, 0], [7, 0, 0, 0, 0, 0]].into_iter().chain(publish(0)).collect()),
        ("spans", alloc.chain(set).chain(free).collect()),
    ]
}

/// Calls of the C functions, as the target `c_api` reads them: which, its variant, a size in three bytes, an
/// alignment or a count, and an object in two.
fn c_api() -> Vec<(&'static str, Vec<[u8; 8]>)> {
    let each = |kind| (0..32).map(move |size| [kind, size, size, 255, 200, size, size, 0]);
    let free = |count| (0..count).map(|object| [8, object, 0, 0, 0, 0, object * 5, 0]);
    let figures = (0..4).map(|what| [15, what, 0, 0, 0, 0, 0, 0]);
    vec![
        ("malloc", each(0).chain(free(20)).chain(figures).collect()),
        ("calloc", each(3).chain(free(9)).chain(each(3)).collect()),
        ("realloc", each(0).chain(each(5)).chain(each(7)).collect()),
        ("aligned", each(11).chain(each(5)).chain(free(12)).collect()),
        ("pages", each(13).chain(each(14)).chain(free(12)).collect()),
    ]
}

/// Writes seeds to `folder/target`, each behind one of these bytes, or behind none.
fn write(
    folder: &Path,
    target: &str,
    firsts: &[u8],
    seeds: &[(&'static str, Vec<u8>)],
) -> io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in seeds {
        if firsts.is_empty() {
            fs::write(folder.join(name), bytes)?;
        }
        for first in firsts {
            let bytes = [&[*first], &bytes[..]].concat();
            fs::write(folder.join(format!("{name}_{first}")), bytes)?;
        }
    }
    Ok(())
}

/// The operations of each list, one behind the other.
fn flat<const N: usize>(lists: Vec<(&'static str, Vec<[u8; N]>)>) -> Vec<(&'static str, Vec<u8>)> {
    lists.into_iter().map(|(name, list)| (name, list.concat())).collect()
}

fn main() -> io::Result<()> {
    let lists = seeds();
    let lists: Vec<_> = lists.iter().map(|(name, list)| (*name, Operation::encode(list))).collect();
    let (central, span_map, c_api) = (flat(central()), flat(span_map()), flat(c_api()));
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let all = [&lists, &central, &span_map, &c_api];
        let bytes: usize = all.iter().flat_map(|seeds| seeds.iter()).map(|seed| seed.1.len()).sum();
        let count: usize = all.iter().map(|seeds| seeds.len()).sum();
        println!("{count} lists of operations, {bytes} bytes; `fuzz_seeds FOLDER` writes them");
        return Ok(());
    };
    // The byte in front chooses the policy and the system below, or the map.
    write(&folder, "cache", &[0, 1, 14], &lists)?;
    write(&folder, "facade", &[], &lists)?;
    write(&folder, "central", &[], &central)?;
    write(&folder, "span_map", &[0, 1, 3, 5], &span_map)?;
    write(&folder, "c_api", &[], &c_api)
}
