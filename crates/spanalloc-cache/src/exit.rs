//! The end of a cache: everything goes back.

use spanalloc_central::{Central, SpanRef};

use crate::bin::Keep;
use crate::cache::Cache;
use crate::policy::Policy;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Empties the magazines, hands every span over to central (or to the heap, if no slot is
    /// used), and keeps the state for the next thread.
    ///
    /// # Safety
    /// The cache was opened with [`Cache::open`], and the state is not used any more through this
    /// or any copy of it.
    pub unsafe fn close(self) {
        self.close_open_slot();
        self.flush_recent();
        for (class, _) in self.state.used_bins() {
            P::Bin::flush(self, class);
        }
        // From here on other threads find the queue closed, and bring late frees to the lists.
        for span in self.state.owner.queue.close() {
            // SAFETY: only spans are queued.
            self.take_in(unsafe { SpanRef::from_descriptor(span) });
        }
        for (_, bin) in self.state.used_bins() {
            let spans = bin.spans();
            let current = spans.current();
            spans.set_current(None);
            if let Some(span) = current {
                self.hand_over(span);
            }
            while let Some(span) = spans.partial.pop() {
                self.hand_over(span);
            }
            while let Some(span) = spans.full.pop() {
                self.hand_over(span);
            }
            bin.end();
        }
        self.trim(0);
        self.state.reset();
        // SAFETY: this thread is the only user of its stash, and its owner owns nothing now.
        unsafe {
            self.central.flush(&self.state.stash);
            self.central.unregister(&self.state.owner);
        }
    }

    fn hand_over(self, span: SpanRef) {
        if span.used() == 0 {
            return self.keep_empty(span);
        }
        self.state.empties.count_out(span);
        // SAFETY: this thread owns the span and took it off its list; the queue is closed and
        // folded.
        unsafe { self.central.give(span) };
    }
}
