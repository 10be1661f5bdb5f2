//! What is done with large objects.

use spanalloc_central::{Central, LARGE, Place, SpanRef};
use spanalloc_os::OsSource;
use spanalloc_pages::PAGE_BYTES;

use super::{Run, value_of, word_of};

impl<O: OsSource> Run<'_, O> {
    pub(super) fn alloc_large(&mut self, pages: usize, align: usize) {
        let span = self.lists.alloc_large(pages, align, None);
        assert_eq!(span.is_some(), pages > 0);
        let Some(span) = span else { return };
        assert_eq!((span.pages(), span.class(), span.place()), (pages, LARGE, Place::Large));
        assert_eq!(span.base() % (align * PAGE_BYTES), 0);
        // SAFETY: the object is the test's.
        unsafe { self.fill_large(span, 0, span.zeroed()) };
        self.large.push(span);
    }

    /// Writes to the pages of a large object from page `from` on.
    unsafe fn fill_large(&self, span: SpanRef, from: usize, zeroed: bool) {
        for page in from..span.pages() {
            let address = span.base() + page * PAGE_BYTES;
            // SAFETY: the page is the test's.
            unsafe {
                assert!(!zeroed || *word_of(address) == 0, "said to be zero");
                *word_of(address) = value_of(address);
            }
        }
    }

    fn check_large(&self, span: SpanRef) {
        for page in 0..span.pages() {
            let address = span.base() + page * PAGE_BYTES;
            // SAFETY: the page is the test's.
            assert_eq!(unsafe { *word_of(address) }, value_of(address), "pages in two hands");
            assert_eq!(self.lists.span_at(address + page), Some(span));
        }
    }

    pub(super) fn free_large(&mut self, span: SpanRef) {
        self.check_large(span);
        let base = span.base();
        // SAFETY: the object is the test's.
        unsafe { self.lists.free_large(span, span.base()) };
        assert_eq!(self.lists.span_at(base), None);
    }

    pub(super) fn resize_large(&mut self, span: SpanRef, pages: usize) {
        let before = span.pages();
        // SAFETY: the object is the test's, and no page of it is in use.
        let resized = unsafe { self.lists.resize_large(span, pages) };
        assert!(resized.is_some() || pages > before || pages == 0, "an object can always shrink");
        match resized {
            Some(zeroed) => {
                assert_eq!(span.pages(), pages);
                // SAFETY: the pages behind the old ones are the test's now.
                unsafe { self.fill_large(span, before, zeroed) };
                let behind = self.lists.span_at(span.base() + pages * PAGE_BYTES);
                assert_ne!(behind, Some(span));
            }
            None => assert_eq!(span.pages(), before),
        }
        self.check_large(span);
    }
}
