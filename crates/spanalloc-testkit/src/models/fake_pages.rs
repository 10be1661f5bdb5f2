use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};

use spanalloc_os::Report;
use spanalloc_pages::{PAGE_BYTES, PageCache, PageError, PageStats, Pages, Run};

use super::Futex;

/// A page heap that hands out numbers: the pages behind them do not exist, so there are no objects.
///
/// There is one for the interleaving that runs, and it is not part of the model: each call is one step.
#[derive(Clone, Copy, Debug)]
pub struct FakePages;

#[derive(Debug, Default)]
struct State {
    next: usize,
    runs: BTreeMap<usize, usize>,
    metadata: Vec<(*mut u8, Layout)>,
}

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static STATE: RefCell<State> = RefCell::default();
}

impl FakePages {
    /// Starts an interleaving without pages. Nothing of the one before is used any more.
    pub fn reset() {
        let state = STATE.take();
        for (memory, layout) in state.metadata {
            // SAFETY: allocated in `metadata` with this layout.
            unsafe { dealloc(memory, layout) };
        }
    }

    /// Runs that were handed out and not freed since.
    #[must_use]
    pub fn runs() -> usize {
        STATE.with_borrow(|state| state.runs.len())
    }
}

// SAFETY: runs are numbers nobody else gets, and never touched; metadata is zeroed and stays until
// the next interleaving, as long as anything in a model.
unsafe impl Pages for FakePages {
    type Wait = Futex;

    fn alloc(&self, pages: usize, _align_pages: usize) -> Option<Run> {
        STATE.with_borrow_mut(|state| {
            state.next += 1;
            let address = state.next << 20;
            state.runs.insert(address, pages);
            (pages > 0).then_some(Run { address, pages, zeroed: true })
        })
    }

    unsafe fn alloc_cached(&self, _cache: &PageCache, pages: usize) -> Option<Run> {
        self.alloc(pages, 1)
    }

    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError> {
        match STATE.with_borrow_mut(|state| state.runs.remove(&address)) {
            Some(found) if found == pages => Ok(()),
            _ => Err(PageError::AlreadyFree { address, pages }),
        }
    }

    unsafe fn free_cached(
        &self,
        _cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.free(address, pages) }
    }

    unsafe fn flush(&self, _cache: &PageCache) {}

    unsafe fn extend(&self, _address: usize, _pages: usize, _more: usize) -> Option<Run> {
        None
    }

    unsafe fn set_span(&self, address: usize, _pages: usize, _span: *mut ()) {
        assert!(address % PAGE_BYTES == 0);
    }

    fn span_of(&self, _address: usize) -> *mut () {
        ptr::null_mut()
    }

    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no metadata has size zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        STATE.with_borrow_mut(|state| state.metadata.push((memory.as_ptr(), layout)));
        Some(memory)
    }

    fn stats(&self) -> PageStats {
        PageStats::default()
    }

    fn die(&self, report: Report) -> ! {
        panic!("{report:?}");
    }
}
