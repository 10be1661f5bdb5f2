//! The limits of a heap's memory: a hard one, above which there is no more, and a soft one, above which
//! memory goes back to the system and the program is told.
//!
//! What counts are the bytes that are Ready, of pages and of metadata. The source below is asked for all of
//! them, so they are counted there, and the hard limit is kept there. The soft one costs one comparison at each
//! commit: one that goes past the alarm calls the threads, each of which hears it at the end of its
//! next slow path. The first one that does brings the memory down. If that does not do, all threads are asked
//! for what they keep; each needs a moment to come by, so only when some more was committed by then, or if there
//! is no other thread, the listener is told.
//!
//! | `stage`  | meaning: the memory                    | leaves it by                                     |
//! |----------|----------------------------------------|--------------------------------------------------|
//! | `Within` | is within the limit, or nobody has     | brought down in vain -> Asked, or Told           |
//! |          | looked since it is not                 |                                                  |
//! | `Asked`  | is above it; the others were asked     | within it -> Within; in vain again -> Told       |
//! | `Told`   | is above it; who listens was told      | within it -> Within                              |
//!
//! `busy` is true while a thread is bringing the memory down; the others leave it to that one.

use core::ffi::c_void;
use core::fmt;

use spanalloc_os::{Geometry, OsSource};
use spanalloc_sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use spanalloc_sync::{Lock, Wait, rank};

use crate::heap::PageHeap;
use crate::pages::PAGE_BYTES;

/// No limit.
const NONE: usize = usize::MAX;
/// The part of a soft limit by which memory is brought below it, and by which it grows above it before
/// anybody tries again.
const PART: usize = 16;
/// Bytes by which it grows at least: as many as are committed together.
const LEAST_STEP: usize = 2 << 20;

/// What a listener is told: a heap holds more memory than its soft limit, and none that it could give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// Bytes that the heap holds.
    pub committed: usize,
    /// The soft limit.
    pub limit: usize,
}

/// A function that is told of [`Pressure`], and a word of its own.
#[derive(Clone, Copy)]
pub struct Listener {
    call: unsafe extern "C" fn(*mut c_void, usize, usize),
    context: *mut c_void,
}

// SAFETY: who makes a listener promises that every thread may call it.
unsafe impl Send for Listener {}

impl Listener {
    /// A function that gets `context`, the bytes that the heap holds and its soft limit.
    ///
    /// # Safety
    /// Any thread may call the function with this context, several at the same time. It does not unwind.
    pub const unsafe fn new(
        call: unsafe extern "C" fn(*mut c_void, usize, usize),
        context: *mut c_void,
    ) -> Self {
        Self { call, context }
    }

    /// A function. If it panics, the process is aborted.
    pub fn of(call: fn(Pressure)) -> Self {
        unsafe extern "C" fn pass_on(context: *mut c_void, committed: usize, limit: usize) {
            // SAFETY: the context is such a function, put there below.
            let call: fn(Pressure) = unsafe { core::mem::transmute(context) };
            call(Pressure { committed, limit });
        }
        Self { call: pass_on, context: call as *mut c_void }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("context", &self.context).finish_non_exhaustive()
    }
}

/// What a listener is to be told, by a thread that holds no lock of the allocator.
#[derive(Debug)]
#[must_use = "nobody else delivers it"]
pub struct Notice<'a> {
    listener: Listener,
    pressure: Pressure,
    calls: &'a AtomicUsize,
}

impl Notice<'_> {
    /// Tells the listener, who may allocate and free. What it freed goes back to the system when a
    /// thread comes to a slow path next.
    pub fn deliver(self) {
        let Pressure { committed, limit } = self.pressure;
        // SAFETY: who made the listener promised that it may be called.
        unsafe { (self.listener.call)(self.listener.context, committed, limit) };
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// The soft limit of a heap. The atomics are hints, nearly all of them relaxed; the lock decides.
#[derive(Debug)]
pub(crate) struct Limits<W: Wait> {
    /// What the lock's limit is.
    soft: AtomicUsize,
    /// Whoever commits more than this calls the threads, once.
    alarm: AtomicUsize,
    /// How often they were called.
    calls: AtomicUsize,
    /// The call that last asked them to give back what they keep.
    asked: AtomicUsize,
    /// The committed bytes when the hard limit last made somebody ask for that.
    asked_at: AtomicUsize,
    /// Whether the listener is to be told.
    due: AtomicBool,
    state: Lock<State, W, { rank::LIMITS }>,
}

/// How far it has come since the memory was within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Within,
    Asked,
    Told,
}

#[derive(Debug)]
struct State {
    busy: bool,
    stage: Stage,
    listener: Option<Listener>,
}

impl<W: Wait> Limits<W> {
    pub(crate) const fn new() -> Self {
        Self {
            soft: AtomicUsize::new(NONE),
            alarm: AtomicUsize::new(NONE),
            calls: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            asked_at: AtomicUsize::new(0),
            due: AtomicBool::new(false),
            state: Lock::new(State { busy: false, stage: Stage::Within, listener: None }),
        }
    }

    fn soft(&self) -> usize {
        self.soft.load(Ordering::Relaxed)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls the threads if so many committed bytes are too many.
    #[inline]
    pub(crate) fn note_committed(&self, committed: usize) {
        if committed > self.alarm.load(Ordering::Relaxed)
            && self.alarm.swap(NONE, Ordering::Relaxed) != NONE
        {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that memory went back to the system.
    fn note_returned(&self, committed: usize) {
        if committed <= self.soft() && self.soft() != NONE {
            self.come_within(&mut self.state.lock());
        }
    }

    /// The memory is within the limit.
    fn come_within(&self, state: &mut State) {
        if !state.busy {
            state.stage = Stage::Within;
            self.due.store(false, Ordering::Relaxed);
            self.alarm.store(self.soft(), Ordering::Relaxed);
        }
    }

    fn set_soft(&self, limit: usize, committed: usize) {
        let mut state = self.state.lock();
        self.soft.store(limit, Ordering::Relaxed);
        self.come_within(&mut state);
        self.note_committed(committed);
    }

    fn set_listener(&self, listener: Option<Listener>) {
        self.state.lock().listener = listener;
    }

    /// The limit, if the calling thread is to bring the memory down to it.
    fn begin(&self, committed: usize) -> Option<usize> {
        let mut state = self.state.lock();
        let limit = self.soft();
        if state.busy || limit == NONE {
            return None;
        }
        if committed <= limit {
            self.come_within(&mut state);
            return None;
        }
        state.busy = true;
        Some(limit)
    }

    /// Ends what [`begin`](Self::begin) began. `others` says whether other threads may keep something.
    fn end(&self, committed: usize, others: bool) {
        let mut state = self.state.lock();
        let limit = self.soft();
        state.busy = false;
        if committed <= limit {
            return self.come_within(&mut state);
        }
        if state.stage == Stage::Within && others {
            state.stage = Stage::Asked;
        } else if state.stage != Stage::Told {
            state.stage = Stage::Told;
            self.due.store(state.listener.is_some(), Ordering::Relaxed);
        }
        let step = (limit / PART).max(LEAST_STEP);
        self.alarm.store(committed.saturating_add(step), Ordering::Relaxed);
    }

    /// Asks all threads to give back what they keep. Returns the number of the call.
    fn ask(&self) -> usize {
        let call = self.calls().wrapping_add(1);
        self.asked.store(call, Ordering::Relaxed);
        // Release pairs with the Acquire in `hear`: who hears the call knows what it is for.
        self.calls.fetch_add(1, Ordering::Release);
        call
    }

    /// The number of the last call.
    fn hear(&self) -> usize {
        // Acquire pairs with the Release in `ask`.
        self.calls.load(Ordering::Acquire)
    }

    /// Whether that was asked for after call number `heard`.
    fn was_asked_since(&self, heard: usize) -> bool {
        self.asked.load(Ordering::Relaxed).wrapping_sub(heard) as isize > 0
    }

    #[cold]
    #[inline(never)]
    fn take_notice_slow(&self, committed: usize) -> Option<Notice<'_>> {
        let state = self.state.lock();
        let (due, limit) = (self.due.load(Ordering::Relaxed), self.soft());
        self.due.store(false, Ordering::Relaxed);
        let listener = state.listener.filter(|_| due)?;
        Some(Notice { listener, pressure: Pressure { committed, limit }, calls: &self.calls })
    }
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// Bytes that are Ready: of pages, free or not, and of metadata.
    pub fn committed(&self) -> usize {
        self.source().committed()
    }

    /// The most bytes that may be [`committed`](Self::committed); `usize::MAX` at first. What would take more
    /// is refused. Nothing is taken away when the limit falls below what there is.
    pub fn set_hard_limit(&self, bytes: usize) {
        self.source().set_committed_limit(bytes);
    }

    /// The hard limit.
    pub fn hard_limit(&self) -> usize {
        self.source().committed_limit()
    }

    /// From how many [`committed`](Self::committed) bytes on the heap gives memory back, makes threads give
    /// back what they keep, and then tells the listener; `usize::MAX` at first. Nothing is refused for it. At
    /// most a sixteenth more than before is committed (or 2 MB) until it does so again.
    pub fn set_soft_limit(&self, bytes: usize) {
        self.limits.set_soft(bytes, self.committed());
    }

    /// The soft limit.
    pub fn soft_limit(&self) -> usize {
        self.limits.soft()
    }

    /// Who is told when the memory stays above the soft limit whatever the heap does: once, until it was within
    /// the limit again. Of the thread that finds out, after its allocation.
    pub fn set_listener(&self, listener: Option<Listener>) {
        self.limits.set_listener(listener);
    }

    /// See [`Pages::calls`](crate::Pages::calls).
    #[inline]
    pub(crate) fn limit_calls(&self) -> usize {
        self.limits.calls()
    }

    /// See [`Pages::heed`](crate::Pages::heed).
    pub(crate) fn heed_limits(&self, heard: usize, empty: impl FnOnce() -> bool) -> usize {
        let mut hears = self.limits.hear();
        if let Some(limit) = self.limits.begin(self.committed()) {
            let mut others = false;
            if !self.return_down_to(limit) {
                others = empty();
                hears = self.limits.ask();
                self.return_down_to(limit);
            }
            self.limits.end(self.committed(), others);
        } else if self.limits.was_asked_since(heard) {
            empty();
            self.return_down_to(self.limits.soft());
        }
        hears
    }

    /// Gives free memory back until somewhat less than `limit` is committed, if it is more now. Whether it
    /// is no more then.
    fn return_down_to(&self, limit: usize) -> bool {
        let committed = self.committed();
        if committed > limit {
            self.return_bytes(committed - (limit - limit / PART));
        }
        self.committed() <= limit
    }

    /// See [`Pages::make_room`](crate::Pages::make_room).
    pub(crate) fn make_room_within(&self, bytes: usize) -> bool {
        let (limit, committed) = (self.hard_limit(), self.committed());
        if limit == NONE || bytes > limit {
            return false;
        }
        // As many bytes more as may be committed along with those.
        let wanted = committed.saturating_add(bytes).saturating_add(LEAST_STEP);
        if wanted <= limit {
            return false;
        }
        if self.return_bytes(wanted - limit) {
            return true;
        }
        // There is nothing to be had until somebody gives something back.
        if self.limits.asked_at.swap(committed, Ordering::Relaxed) != committed {
            self.limits.ask();
        }
        false
    }

    /// Gives so much free memory back to the system, if there is as much: what was written to first, then what
    /// was not. Whether there was any.
    fn return_bytes(&self, bytes: usize) -> bool {
        self.release_ready(bytes.div_ceil(PAGE_BYTES)) > 0
    }

    /// Notes that memory went back to the system.
    pub(crate) fn note_returned(&self) {
        self.limits.note_returned(self.committed());
    }

    /// See [`Pages::take_notice`](crate::Pages::take_notice).
    #[inline]
    pub(crate) fn take_limits_notice(&self) -> Option<Notice<'_>> {
        if !self.limits.due.load(Ordering::Relaxed) {
            return None;
        }
        self.limits.take_notice_slow(self.committed())
    }
}
