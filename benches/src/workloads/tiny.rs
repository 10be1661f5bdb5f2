//! Memory an object takes: tiny ones, and what fits where others were freed.

use std::alloc::{Layout, dealloc};
use std::ptr::NonNull;

use super::measure::{computed, resident_bytes};
use super::object::{Object, Sizes, allocate};
use super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

pub(super) fn all() -> Vec<Workload> {
    vec![
        Workload::new("tiny-strings", Group::Tiny, 1, tiny_strings),
        Workload::new("fragmentation", Group::Tiny, 1, fragmentation),
    ]
}

/// Strings of 1 to 16 bytes, and how many bytes each takes.
fn tiny_strings(scale: Scale) -> Outcome {
    const SIZES: Sizes = Sizes::Even(1..=16);
    let count = match scale {
        Scale::Test => 1_000,
        Scale::Quick => 1_000_000,
        Scale::Full => 10_000_000,
    };
    let mut strings = vec![NonNull::<u8>::dangling(); count];
    let layouts = || {
        let mut random = Random::new(1);
        // SAFETY: the alignment is a power of two, and the sizes are small.
        move || unsafe { Layout::from_size_align_unchecked(SIZES.draw(&mut random), 1) }
    };
    let before = resident_bytes();
    let mut after = None;
    let elapsed = computed(|clock| {
        let mut next = layouts();
        strings.iter_mut().for_each(|string| *string = allocate(next()));
        after = clock.pause(resident_bytes);
        let mut next = layouts();
        for string in &strings {
            // SAFETY: it was allocated with this layout, as the sizes come again in their order.
            unsafe { dealloc(string.as_ptr(), next()) }
        }
    });
    let taken = grown(before, after).map(|bytes| ("bytes per object", bytes / count as f64));
    Outcome { figures: taken.into_iter().collect(), ..Outcome::new(count as u64, elapsed) }
}

/// By how many bytes a size grew, if it is known.
fn grown(before: Option<u64>, after: Option<u64>) -> Option<f64> {
    Some(after?.saturating_sub(before?) as f64)
}

/// Small blocks of which most are freed, and larger ones that need as much memory as those did:
/// how much more the process takes than is live.
fn fragmentation(scale: Scale) -> Outcome {
    const FIRST: Sizes = Sizes::Even(16..=256);
    const SECOND: Sizes = Sizes::Even(256..=512);
    let count = scale.of(2_000_000) as usize;
    let mut random = Random::new(1);
    let mut blocks: Vec<Option<Object>> = Vec::new();
    blocks.resize_with(count, || None);
    let before = resident_bytes();
    let mut after = None;
    let mut operations = count;
    let mut live = 0;
    let elapsed = computed(|clock| {
        for block in &mut blocks {
            let size = FIRST.draw(&mut random);
            *block = Some(Object::new(size));
            live += size;
        }
        let mut freed = 0;
        for block in &mut blocks {
            if random.below(10) != 0 {
                freed += block.take().map_or(0, |block| block.size());
            }
        }
        for block in blocks.iter_mut().filter(|block| block.is_none()) {
            let size = SECOND.draw(&mut random);
            if size > freed {
                break;
            }
            *block = Some(Object::new(size));
            freed -= size;
            operations += 1;
        }
        live -= freed;
        after = clock.pause(resident_bytes);
        blocks.clear();
    });
    let taken = grown(before, after).map(|bytes| ("RSS / live bytes", bytes / live as f64));
    Outcome { figures: taken.into_iter().collect(), ..Outcome::new(operations as u64, elapsed) }
}
