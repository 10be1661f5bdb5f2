//! An allocator put together from the layers and used by several threads:
//!
//! ```text
//! cargo run -p spanalloc-cache --example compose
//! ```
//!
//! Each thread allocates packets and hands them to the next thread, which checks and frees them:
//! every packet is freed by another thread than the one that allocated it.

use std::alloc::Layout;
use std::error::Error;
use std::ptr::NonNull;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use spanalloc_cache::{Snapshot, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::{Counted, Mmap};
use spanalloc_pages::PageHeap;

static OS: Counted<Mmap> = Counted::new(Mmap::new()); // where address space comes from
static PAGES: PageHeap<&Counted<Mmap>> = PageHeap::new(&OS); // runs of pages + span map
static CENTRAL: CentralLists<Go67, &PageHeap<&Counted<Mmap>>> = CentralLists::new(&PAGES);

const THREADS: u64 = 4;
const PACKETS: u64 = 50_000;

/// The 80-byte class.
type Packet = [u64; 9];

/// A packet on its way to another thread.
struct Sent(NonNull<Packet>);

// SAFETY: whoever receives the pointer is the only one to use the packet from then on.
unsafe impl Send for Sent {}

fn main() -> Result<(), Box<dyn Error>> {
    let one = ThreadCache::new(&CENTRAL).alloc(Layout::new::<Packet>()).ok_or("no memory")?;
    // SAFETY: the packet came from a cache over CENTRAL with this layout and is used by nobody.
    unsafe { ThreadCache::new(&CENTRAL).free(one, Layout::new::<Packet>()) };
    println!("one packet allocated and freed: {} KB reserved", OS.reserved() >> 10);

    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let mut to_next = senders.into_iter();
    let to_first = to_next.next().ok_or("no thread")?;
    let ends = to_next.chain([to_first]).zip(receivers).zip(0..);
    let workers: Vec<_> =
        ends.map(|((next, own), name)| thread::spawn(move || work(name, &next, &own))).collect();
    for worker in workers {
        let freed = worker.join().map_err(|_| "a thread panicked")??;
        println!("a thread checked and freed {freed} packets of another one");
    }

    let end = ThreadCache::new(&CENTRAL).snapshot().ok_or("no memory")?;
    print("at the end", &end);
    println!("system: {:?}", OS.counts());
    if end.live_objects() != 0 || !end.adds_up() {
        return Err("something was lost".into());
    }
    Ok(())
}

/// Sends packets to the next thread, and checks and frees those of the thread before.
fn work(name: u64, next: &Sender<Sent>, own: &Receiver<Sent>) -> Result<u64, &'static str> {
    let mut cache = ThreadCache::new(&CENTRAL); // no locks; spans go back on drop
    for number in 0..PACKETS {
        let packet: NonNull<Packet> =
            cache.alloc(Layout::new::<Packet>()).ok_or("no memory")?.cast();
        // SAFETY: the memory has the size and alignment of a packet and is this thread's.
        unsafe { packet.write([name * PACKETS + number; 9]) };
        next.send(Sent(packet)).map_err(|_| "the next thread is gone")?;
    }
    if name == 0 {
        print(
            "while threads run (other threads' numbers are on the move)",
            &cache.snapshot().ok_or("no memory")?,
        );
    }
    let before = (name + THREADS - 1) % THREADS;
    for number in 0..PACKETS {
        let Sent(packet) = own.recv().map_err(|_| "the thread before is gone")?;
        // SAFETY: the packet was received, so it is this thread's, and it was written.
        if unsafe { packet.read() } != [before * PACKETS + number; 9] {
            return Err("a packet was overwritten");
        }
        // SAFETY: it came from a cache over CENTRAL with this layout, and is not used again.
        unsafe { cache.free(packet.cast(), Layout::new::<Packet>()) };
    }
    Ok(PACKETS)
}

fn print(when: &str, snapshot: &Snapshot) {
    println!("{when}:");
    for row in snapshot.rows() {
        println!(
            "  class of {} B: {} spans, {} slots: {} live, {} in magazines, {} freed by others, {} free",
            row.slot_bytes, row.spans, row.slots, row.live, row.cached, row.freed, row.free
        );
    }
    println!(
        "  pages: {} in use, {} free; {} KB committed of {} KB reserved",
        snapshot.pages.pages_in_use,
        snapshot.pages.pages_free,
        snapshot.pages.committed >> 10,
        snapshot.pages.reserved >> 10
    );
}
