//! What several test programs share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ptr::NonNull;
use std::sync::Mutex;

use spanalloc_os::{OsError, OsSource, Purpose, Report, Request};

/// Releases what is still reserved when it is dropped.
pub struct Cleaned<O: OsSource> {
    pub inner: O,
    ranges: Mutex<Vec<(usize, usize)>>,
}

impl<O: OsSource> Cleaned<O> {
    pub fn new(inner: O) -> Self {
        Self { inner, ranges: Mutex::new(Vec::new()) }
    }
}

impl<O: OsSource> Drop for Cleaned<O> {
    fn drop(&mut self) {
        for (at, bytes) in self.ranges.get_mut().unwrap().drain(..) {
            let at = NonNull::new(std::ptr::with_exposed_provenance_mut(at)).unwrap();
            // SAFETY: reserved by `inner`; whoever used it borrowed this source.
            unsafe { self.inner.release(at, bytes).unwrap() };
        }
    }
}

// SAFETY: every verb is passed on unchanged to a source that keeps the contract.
unsafe impl<O: OsSource> OsSource for Cleaned<O> {
    type Wait = O::Wait;

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let at = self.inner.reserve(request)?;
        self.ranges.lock().unwrap().push((at.as_ptr().expose_provenance(), request.bytes));
        Ok(at)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.guard(at, bytes) }
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.unguard(at, bytes) }
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.clear(at, bytes) }
    }

    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.expect_use(at, bytes) }
    }

    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.expect_gaps(at, bytes) }
    }

    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.inner.is_filled(at, bytes)
    }

    unsafe fn resident(&self, at: NonNull<u8>, bytes: usize) -> usize {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.resident(at, bytes) }
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.relocate(from, to, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes)? };
        let start = at.addr().get();
        self.ranges.lock().unwrap().retain(|range| *range != (start, bytes));
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

/// A request for `bytes` bytes of objects, anywhere.
pub fn request(bytes: usize, align: usize) -> Request {
    Request { bytes, align, hint: 0, purpose: Purpose::Arena }
}
