//! An allocator in a buffer, with size classes of its own:
//!
//! ```text
//! cargo run -p spanalloc-cache --example fixed
//! ```
//!
//! Nothing is asked of the system: all that the allocator hands out, and all that it keeps to itself,
//! lies in the buffer. When it is full, `alloc` says so, and it works again after a free.

use std::alloc::Layout;
use std::error::Error;
use std::mem::MaybeUninit;

use spanalloc_cache::ThreadCache;
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Rule, SizeClasses};
use spanalloc_os::Fixed;
use spanalloc_pages::PageHeap;

const BUFFER_BYTES: usize = 2 << 20;

/// Four sizes are all that this program allocates. A size that is no multiple of 8 here, or in the
/// wrong order, would not compile.
struct Packets;

impl ClassTable for Packets {
    const CLASSES: &'static SizeClasses = &SizeClasses::from_sizes(&Rule::GO, &[16, 64, 256, 1536]);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    let range = buffer.as_ptr_range();
    let inside = range.start.addr()..range.end.addr();

    // The heap owns its source here, the lists borrow the heap, the cache borrows the lists.
    let pages: PageHeap<Fixed<'_>> = PageHeap::new(Fixed::new(&mut buffer));
    let central = CentralLists::<Packets, _>::new(&pages);
    let mut cache = ThreadCache::new(&central);

    for (class, facts) in Packets::CLASSES.iter() {
        println!(
            "class {class}: {} bytes, {} slots in a span of {} pages",
            facts.bytes, facts.span_slots, facts.span_pages
        );
    }

    let layout = Layout::from_size_align(1500, 8)?;
    let mut packets = Vec::new();
    while let Some(packet) = cache.alloc(layout) {
        if !inside.contains(&packet.addr().get()) {
            return Err("a packet outside of the buffer".into());
        }
        packets.push(packet);
    }
    println!("{} packets of 1500 bytes fill a buffer of {} KB", packets.len(), BUFFER_BYTES >> 10);

    let last = packets.pop().ok_or("not one packet fits")?;
    // SAFETY: the packet came from this cache with this layout, and nobody uses it.
    unsafe { cache.free(last, layout) };
    packets.push(cache.alloc(layout).ok_or("a freed packet is not found again")?);
    println!("one was freed, and allocated again");

    for packet in packets {
        // SAFETY: as above.
        unsafe { cache.free(packet, layout) };
    }
    let snapshot = cache.snapshot().ok_or("no state")?;
    println!(
        "all freed: {} live, {} in magazines, {} KB for the allocator's own tables",
        snapshot.live_objects(),
        snapshot.cached_objects(),
        snapshot.pages.metadata_in_use >> 10
    );
    if snapshot.live_objects() != 0 || !snapshot.adds_up() {
        return Err("something was lost".into());
    }
    Ok(())
}
