//! Where the library keeps things in the address space of this process, which runs under it.

use super::calls::malloc;

/// The anonymous mappings of this process: first address, end, and whether they may be written.
fn mappings() -> Vec<(usize, usize, bool)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let anonymous = maps.lines().filter(|line| {
        let name = line.split_ascii_whitespace().nth(5);
        name.is_none_or(|name| name.starts_with("[anon:spanalloc"))
    });
    let hex = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let range = |line: &str| {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, rights) = rest.split_once(' ').unwrap();
        (hex(start), hex(end), rights.starts_with("rw"))
    };
    anonymous.map(range).collect()
}

/// Where the library keeps what it knows: behind a guard page, and apart from the objects.
pub fn metadata() -> usize {
    let on_the_stack = 0_u8;
    let not_it = [malloc(64).addr(), (&raw const on_the_stack).addr()];
    let mappings = mappings();
    let mut pairs = mappings.windows(2).rev().map(|pair| (pair[0], pair[1]));
    let guarded = pairs.find(|(guard, data)| {
        let other = not_it.iter().any(|address| (data.0..data.1).contains(address));
        !guard.2 && data.2 && guard.1 == data.0 && !other
    });
    guarded.unwrap_or_else(|| panic!("no metadata in {mappings:x?}")).1.0
}

/// The end of the address space that is reserved for objects and was never used.
pub fn end_of_arena() -> usize {
    let object = malloc(64).addr();
    let mappings = mappings();
    let first = mappings.iter().position(|map| (map.0..map.1).contains(&object)).unwrap();
    let neighbours = mappings[first..].windows(2).take_while(|pair| pair[0].1 == pair[1].0);
    let last = neighbours.last().unwrap()[1];
    assert!(!last.2, "{mappings:x?}");
    last.1
}
