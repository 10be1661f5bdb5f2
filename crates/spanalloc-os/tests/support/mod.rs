//! What several test programs share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::mem::MaybeUninit;

use spanalloc_os::{OsSource, Purpose, Request};
use spanalloc_testkit::sources::Returning;

/// A source over `inner` that gives back what is still reserved when it is dropped.
pub fn returning<O: OsSource>(inner: O) -> Returning<O> {
    // SAFETY: what these tests reserve they use while they have the source.
    unsafe { Returning::new(inner) }
}

/// A request for `bytes` bytes of objects, anywhere.
pub fn request(bytes: usize, align: usize) -> Request {
    Request { bytes, align, hint: 0, purpose: Purpose::Arena }
}

/// Memory for a source of its own, that was written to.
pub fn buffer() -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::new(0xEE); 400 << 10]
}
