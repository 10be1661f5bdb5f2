//! A static library without `std` and `alloc` that holds an allocator of all layers.
//!
//! It brings its own panic handler, so it does not build if `std` is linked (which has one), and no
//! global allocator, so it does not build if `alloc` is linked (which needs one).
#![no_std]

#[cfg(feature = "creep-std")]
extern crate std;

#[cfg(feature = "creep-alloc")]
extern crate alloc;

use core::alloc::Layout;
use core::ptr::NonNull;

use spanalloc_cache::ThreadCache;
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::{Counted, Fixed};
use spanalloc_pages::PageHeap;
use spanalloc_sync::Counter;

/// Bytes of the buffer that all memory comes from.
const BUFFER_BYTES: usize = 4 << 20;

#[repr(align(4096))]
struct Buffer(core::cell::UnsafeCell<[u8; BUFFER_BYTES]>);

// SAFETY: only the source below uses the bytes, and it hands each of them out once.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(core::cell::UnsafeCell::new([0; BUFFER_BYTES]));

type Source = Counted<Fixed<'static>>;
type Pages = PageHeap<&'static Source>;

// SAFETY: the buffer is a static, is BUFFER_BYTES long and is used by nobody else.
static OS: Source = Counted::new(unsafe { Fixed::from_raw(BUFFER.0.get().cast(), BUFFER_BYTES) });
static PAGES: Pages = PageHeap::new(&OS);
static CENTRAL: CentralLists<Go67, &'static Pages> = CentralLists::new(&PAGES);
static LIVE: Counter = Counter::new();

/// Allocates on all three paths, writes, resizes and frees. Returns the bytes reserved, or 0 if
/// anything went wrong.
#[unsafe(no_mangle)]
pub extern "C" fn no_std_proof() -> usize {
    let mut cache = ThreadCache::new(&CENTRAL);
    let used = use_allocator(&mut cache).is_some();
    let left = cache.snapshot().map(|snapshot| (snapshot.live_objects(), snapshot.adds_up()));
    if used && left == Some((0, true)) && LIVE.get() == 0 { OS.reserved() } else { 0 }
}

fn use_allocator(cache: &mut ThreadCache<&CentralLists<Go67, &Pages>>) -> Option<()> {
    for size in [1, 3, 16, 80, 1000, 9000, 32 << 10, 100 << 10] {
        let layout = Layout::from_size_align(size, 8).ok()?;
        let object = cache.alloc_zeroed(layout)?;
        LIVE.add(1);
        write_and_check(object, size)?;
        // SAFETY: the object is of this cache and layout, and is used by nobody else.
        let larger = unsafe { cache.realloc(object, layout, size * 2) }?;
        let layout = Layout::from_size_align(size * 2, 8).ok()?;
        // SAFETY: the object came from `realloc` with this layout; it is not used again.
        unsafe { cache.free(larger, layout) };
        LIVE.sub(1);
    }
    Some(())
}

fn write_and_check(object: NonNull<u8>, size: usize) -> Option<()> {
    for at in 0..size {
        // SAFETY: the object has `size` bytes, which nobody else uses.
        unsafe {
            let byte = object.add(at);
            (byte.read() == 0).then_some(())?;
            byte.write(at as u8);
        }
    }
    Some(())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
