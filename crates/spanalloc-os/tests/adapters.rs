//! An adapter passes on what it says nothing of, whatever is below it.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may panic")]

use std::cell::RefCell;
use std::ptr::NonNull;
use std::time::Duration;

use spanalloc_os::{Counted, Faulty, Fixed, Limited, OsError, OsSource, Report, Request};
use spanalloc_sync::Spin;

/// A source that has everything a source need not have, and writes down what is asked of it.
#[derive(Default)]
struct Everything(RefCell<Vec<String>>);

impl Everything {
    fn note(&self, what: &str, at: NonNull<u8>, bytes: usize) {
        self.0.borrow_mut().push(format!("{what} {} {bytes}", at.addr()));
    }
}

// SAFETY: it has no memory, and says so.
unsafe impl OsSource for Everything {
    type Wait = Spin;

    fn page_bytes(&self) -> usize {
        4096
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        Err(OsError::OutOfMemory { bytes: request.bytes })
    }

    unsafe fn commit(&self, _at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        Err(OsError::OutOfMemory { bytes })
    }

    unsafe fn decommit(&self, _at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        Err(OsError::OutOfMemory { bytes })
    }

    unsafe fn release(&self, _at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        Err(OsError::OutOfMemory { bytes })
    }

    unsafe fn guard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.note("guard", at, bytes);
        Ok(())
    }

    unsafe fn unguard(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.note("unguard", at, bytes);
        Ok(())
    }

    unsafe fn clear(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.note("clear", at, bytes);
        Ok(())
    }

    unsafe fn empty(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        self.note("empty", at, bytes);
        Ok(())
    }

    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        self.note("expect_use", at, bytes);
    }

    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        self.note("expect_gaps", at, bytes);
    }

    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.note("is_filled", at, bytes);
        true
    }

    unsafe fn resident(&self, at: NonNull<u8>, bytes: usize) -> usize {
        self.note("resident", at, bytes);
        1
    }

    unsafe fn relocate(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), OsError> {
        self.note("relocate from", from, bytes);
        self.note("to", to, bytes);
        Ok(())
    }

    fn now(&self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }

    fn busy(&self) -> Option<Duration> {
        Some(Duration::from_secs(3))
    }

    fn random(&self) -> u64 {
        4
    }

    fn fence_threads(&self) -> bool {
        true
    }

    fn is_asleep(&self, thread: u32) -> bool {
        thread == 5
    }

    fn die(&self, report: Report) -> ! {
        panic!("{report:?}")
    }
}

/// Asks for everything that a source need not have; what it answers.
fn ask(os: &impl OsSource) -> Vec<String> {
    let at = |address| NonNull::new(std::ptr::without_provenance_mut(address)).unwrap();
    // SAFETY: neither source has memory that these could touch.
    unsafe {
        os.expect_use(at(1), 100);
        os.expect_gaps(at(2), 200);
        [
            format!("{:?}", os.guard(at(3), 300)),
            format!("{:?}", os.unguard(at(4), 400)),
            format!("{:?}", os.clear(at(5), 500)),
            format!("{:?}", os.empty(at(6), 600)),
            format!("{:?}", os.is_filled(at(7), 700)),
            format!("{:?}", os.resident(at(8), 800)),
            format!("{:?}", os.relocate(at(9), at(10), 900)),
            format!("{:?} {:?} {}", os.now(), os.busy(), os.random()),
            format!("{} {} {}", os.fence_threads(), os.is_asleep(5), os.is_asleep(6)),
        ]
        .to_vec()
    }
}

#[test]
fn what_the_source_below_has_is_asked_of_it() {
    let told = Everything::default();
    let directly = ask(&told);
    assert_eq!(directly[4..], ["true", "1", "Ok(())", "Some(2s) Some(3s) 4", "true true false"]);
    let through = Everything::default();
    assert_eq!(ask(&&Counted::new(Limited::new(Faulty::new(&through), 0))), directly);
    assert_eq!(told.0.borrow().len(), 10);
    assert_eq!(through.0, told.0);
}

#[test]
fn what_it_has_not_is_done_as_if_there_were_no_adapter() {
    let os = Fixed::new(&mut []);
    let directly = ask(&os);
    assert_eq!(ask(&&Counted::new(Limited::new(Faulty::new(&os), 0))), directly);
    assert_eq!(directly[3..6], ["Err(Unsupported)", "false", "800"]);
}
