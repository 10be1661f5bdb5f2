//! What happens when the library is loaded, and when the process exits.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::options::{self, MAP, STATS};
use crate::report::{self, Wanted};
use crate::system;
use crate::text::Text;

/// Called by the dynamic linker after the C library was started, and before the program is.
pub(crate) extern "C" fn start() {
    options::start();
}

/// Called when `main` returned or the program called `exit`, after its own handlers.
pub(crate) extern "C" fn end() {
    let Some(mut file) = options::report_to() else { return };
    if ROOM_TAKEN.swap(true, Ordering::Relaxed) {
        return;
    }
    system::block_sigpipe();
    // SAFETY: whoever comes first has the room, for good.
    let room = unsafe { &mut *ROOM.0.get() };
    let wanted = Wanted { stats: STATS.load(Ordering::Relaxed), map: MAP.load(Ordering::Relaxed) };
    report::write(&mut Text::new(room, &mut file), wanted);
}

/// Room for a whole report: it goes out in one piece, whoever else writes to the same file.
struct Room(UnsafeCell<[u8; 64 << 10]>);

// SAFETY: used by whoever finds it not taken.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; 64 << 10]));
static ROOM_TAKEN: AtomicBool = AtomicBool::new(false);
