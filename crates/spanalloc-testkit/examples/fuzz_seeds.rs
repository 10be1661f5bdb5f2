//! Writes the seeds of the fuzz target `cache` to a folder, for when the way operations are written
//! down has changed. Without a folder it only says what there is.

use std::fs;
use std::io;
use std::path::PathBuf;

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

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let bytes: usize = seeds().iter().map(|(_, list)| Operation::encode(list).len()).sum();
        println!(
            "{} lists of operations, {bytes} bytes; `fuzz_seeds FOLDER` writes them",
            seeds().len()
        );
        return Ok(());
    };
    fs::create_dir_all(&folder)?;
    for (name, operations) in seeds() {
        // The byte in front chooses the policy and the system below.
        for first in [0_u8, 1, 14] {
            let mut bytes = vec![first];
            bytes.extend(Operation::encode(&operations));
            fs::write(folder.join(format!("{name}_{first}")), bytes)?;
        }
    }
    Ok(())
}
