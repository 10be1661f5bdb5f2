//! Giving memory back without being asked each time: a thread that looks after the heaps.
//!
//! Without it, memory goes back as long as the program frees some, and on demand: see [`release`]. A
//! program that is idle frees nothing; with this thread it loses what it does not need within seconds. The
//! thread looks after [`Spanalloc`], [`Checked`](crate::Checked) and [`Hardened`](crate::Hardened), takes at most 1 % of one
//! processor, allocates nothing, and takes no signals. While there is nothing to do it looks once a second.
//!
//! The child of a fork does not have the thread; it may start its own. The fork waits until the
//! thread holds nothing.
//!
//! | `STATE` | the thread            | leaves it by                                  |
//! |---------|-----------------------|-----------------------------------------------|
//! | `OFF`   | is not there          | start -> `ON`                                 |
//! | `ON`    | is there, or starting | no thread to be had -> `OFF`; fork -> `OFF` in the child |

use core::marker::PhantomData;
use core::ptr;
use core::time::Duration;

use spanalloc_central::Central;
use spanalloc_os::OsSource;
use spanalloc_pages::{Clock, PAGE_BYTES};
use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, Ordering};

use crate::checked::system::{self, Limit};
use crate::program::{CacheOf, Program};
use crate::thread::{self, Stage};
use crate::{Spanalloc, checked, hardened};

const OFF: u8 = 0;
const ON: u8 = 1;

static STATE: AtomicU8 = AtomicU8::new(OFF);
/// Whether forks are watched.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// How many threads look after others in the heap of `Spanalloc`. The others have gates of their own.
static INSIDE: AtomicU32 = AtomicU32::new(0);
/// Threads that are between the two ends of a fork.
static FORKERS: AtomicU32 = AtomicU32::new(0);

/// How often the thread looks after idle threads, and at everything if there is nothing to do.
const ROUND: Duration = Duration::from_secs(1);
/// The least time between two looks.
const LEAST_REST: Duration = Duration::from_millis(5);
/// How long a fork waits for the thread at most: whoever forks in a signal handler may hold what it waits for.
const AT_MOST: Duration = Duration::from_secs(1);
/// Pieces of 2 MB that are given back at once: a thread that forks waits for no more.
pub(crate) const PIECES: usize = 4;

/// What a heap is told by the thread, or when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// To give back what is due.
    Now,
    /// The same, and to look after idle threads.
    Idle,
    /// That nobody looks after it any more.
    Left,
}

/// One round for one heap; how long there is nothing more to do.
type Round = fn(Told) -> Duration;

/// The heaps that the thread looks after, as functions; null for none. So a library that has but one of them
/// need not hold the other.
static ROUNDS: [AtomicPtr<()>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

fn rounds() -> impl Iterator<Item = Round> {
    // Acquire pairs with the Release in `start_with`, though a function is all there is to see.
    ROUNDS.iter().map(|round| round.load(Ordering::Acquire)).filter(|round| !round.is_null()).map(
        // SAFETY: what is stored there are such functions.
        |round| unsafe { core::mem::transmute::<*mut (), Round>(round) },
    )
}

/// Starts the thread, if it is not there. False if the system has no thread to give.
pub fn start() -> bool {
    checked::start_background() && hardened::start_background() && start_with(0, tend)
}

/// Gives all memory that is free back to the system, with what the calling thread keeps of it, what all threads
/// keep that sleep, and the empty spans of the others: that of all allocators. Returns how many bytes that was.
/// The others give back the rest of what they keep when they next come to a slow path.
pub fn release() -> usize {
    if let Stage::Live(_) = thread::stage::<Spanalloc>() {
        if let Some(inside) = thread::enter::<Spanalloc>() {
            inside.cache().reclaim();
        }
    }
    watch_forks();
    let central = Spanalloc::central();
    {
        // The owners of what is being emptied do without.
        let _signals = system::Signals::block();
        look_after(|| CacheOf::<Spanalloc>::tend_idle(central, true));
    }
    let pages = central.heap().release_all(usize::MAX);
    pages * PAGE_BYTES + checked::release() + hardened::release()
}

/// Calls `look` unless somebody forks, who waits for its end.
fn look_after(look: impl FnOnce()) {
    // SeqCst, here and in `prepare`: of this thread and one that forks, one sees the other.
    INSIDE.fetch_add(1, Ordering::SeqCst);
    if FORKERS.load(Ordering::SeqCst) == 0 {
        look();
    }
    // Release pairs with the SeqCst load in `prepare`: it sees what was done.
    INSIDE.fetch_sub(1, Ordering::Release);
}

fn watch_forks() {
    if !WATCHED.swap(true, Ordering::Relaxed) {
        system::at_fork(prepare, parent, child);
    }
}

/// The time of a program, and of its threads.
pub(crate) struct Time<G>(PhantomData<G>);

impl<G> Time<G> {
    pub(crate) const NEW: Self = Self(PhantomData);
}

impl<G: Program> Clock for Time<G> {
    fn now(&self) -> Duration {
        system::now()
    }

    fn busy(&self) -> Duration {
        G::central().heap().os().busy().unwrap_or_else(system::now)
    }
}

/// One round for the heap of `Spanalloc`: see [`checked::tend`].
fn tend(told: Told) -> Duration {
    let central = Spanalloc::central();
    central.heap().set_attended(told != Told::Left);
    if told == Told::Left {
        return Duration::MAX;
    }
    let mut rest = Duration::ZERO;
    look_after(|| {
        if told == Told::Idle {
            CacheOf::<Spanalloc>::tend_idle(central, false);
        }
        rest = central.heap().scavenge(&Time::<Spanalloc>::NEW, PIECES);
    });
    rest
}

/// Starts the thread with this as its round for the heap `index`, if there is none.
pub(crate) fn start_with(index: usize, round: Round) -> bool {
    watch_forks();
    if let Some(place) = ROUNDS.get(index) {
        // Release pairs with the Acquire in `rounds`.
        place.store(round as *mut (), Ordering::Release);
    }
    if STATE.swap(ON, Ordering::Relaxed) == ON {
        return true;
    }
    let started = spawn();
    if !started {
        STATE.store(OFF, Ordering::Relaxed);
    }
    started
}

/// What the thread does.
fn run() -> ! {
    let mut next = Limit::in_future(ROUND);
    loop {
        let mut told = Told::Now;
        if next.is_past() {
            (told, next) = (Told::Idle, Limit::in_future(ROUND));
        }
        let rest = rounds().map(|round| round(told)).min().unwrap_or(ROUND);
        sleep(rest.max(LEAST_REST).min(ROUND));
    }
}

#[cfg(unix)]
fn spawn() -> bool {
    /// Address space for the thread's stack, of which it uses little.
    const STACK_BYTES: usize = 256 << 10;

    // The new thread inherits that all signals are blocked.
    let _signals = system::Signals::block();
    // The C library puts the program's thread-local variables on the stack, and refuses one that they would fill.
    spawn_with(Some(STACK_BYTES)) || spawn_with(None)
}

/// Starts the thread, with so much address space for its stack, or with as much as any thread has.
#[cfg(unix)]
fn spawn_with(stack_bytes: Option<usize>) -> bool {
    use core::ffi::c_void;

    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        #[cfg(target_os = "linux")]
        // SAFETY: the name is a string.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, c"spanalloc".as_ptr());
        }
        run()
    }

    // SAFETY: the attributes are made before they are used, and ended once; the thread's function has the
    // right signature.
    unsafe {
        let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
        if libc::pthread_attr_init(&raw mut attributes) != 0 {
            return false;
        }
        let mut thread: libc::pthread_t = core::mem::zeroed();
        libc::pthread_attr_setdetachstate(&raw mut attributes, libc::PTHREAD_CREATE_DETACHED);
        if let Some(bytes) = stack_bytes {
            libc::pthread_attr_setstacksize(&raw mut attributes, bytes);
        }
        let answer =
            libc::pthread_create(&raw mut thread, &raw const attributes, main, ptr::null_mut());
        libc::pthread_attr_destroy(&raw mut attributes);
        answer == 0
    }
}

#[cfg(not(unix))]
fn spawn() -> bool {
    std::thread::Builder::new().name("spanalloc".into()).spawn(|| run()).is_ok()
}

#[cfg(unix)]
fn sleep(time: Duration) {
    let time = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the time is readable. The thread has an error number of its own, which nobody reads.
    unsafe { libc::nanosleep(&raw const time, core::ptr::null_mut()) };
}

#[cfg(not(unix))]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

extern "C" fn prepare() {
    FORKERS.fetch_add(1, Ordering::SeqCst);
    let limit = Limit::in_future(AT_MOST);
    while INSIDE.load(Ordering::SeqCst) != 0 && !limit.is_past() {
        system::yield_now();
    }
}

extern "C" fn parent() {
    FORKERS.fetch_sub(1, Ordering::Relaxed);
}

/// The child has no such thread.
extern "C" fn child() {
    FORKERS.store(0, Ordering::Relaxed);
    INSIDE.store(0, Ordering::Relaxed);
    if let Stage::Live(cache) = thread::stage::<Spanalloc>() {
        cache.set_thread(system::thread());
    }
    STATE.store(OFF, Ordering::Relaxed);
    rounds().for_each(|round| _ = round(Told::Left));
}
