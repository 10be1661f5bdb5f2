//! Traces: what is written is read again, and nothing that is read can be wrong unnoticed.

use std::alloc::System;

use proptest::prelude::*;
use spanalloc_testkit::{
    Effect, Global, Mix, Operation, Playback, Replay, Summary, Trace, TraceError, operations,
};

fn lists() -> impl Strategy<Value = Vec<Operation>> {
    let time = (0..u32::MAX).prop_map(|microseconds| Operation::Advance { microseconds });
    let other = operations(Mix::new().scavenges(3).faults(3).forks(1), 0..60);
    (other, prop::collection::vec((any::<prop::sample::Index>(), time), 0..5)).prop_map(
        |(mut list, times)| {
            for (place, time) in times {
                list.insert(place.index(list.len() + 1), time);
            }
            list
        },
    )
}

/// The header of a trace of `count` operations on one cache.
fn header(count: u8) -> Vec<u8> {
    let mut bytes = b"spanalloc trace\n\x01\x01".to_vec();
    bytes.push(count);
    bytes
}

fn read(count: u8, operations: &[u8]) -> Result<Trace, TraceError> {
    Trace::decode(&[&header(count), operations].concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(list in lists(), caches in 0..5_u16) {
        let trace = Trace::new(caches, &list);
        prop_assert_eq!(Trace::decode(&trace.encode()), Ok(trace.clone()));
        // The plain form is plain already.
        prop_assert_eq!(&Trace::new(trace.caches(), trace.operations()), &trace);
    }

    #[test]
    fn any_bytes_are_a_trace_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0..40_u8) {
        prop_assert_eq!(Trace::decode(&bytes), Err(TraceError::NotATrace));
        if let Ok(trace) = read(count, &bytes) {
            prop_assert_eq!(trace.operations().len(), usize::from(count));
            prop_assert_eq!(Trace::decode(&trace.encode()), Ok(trace));
        }
    }

    #[test]
    fn a_changed_or_shorter_trace_is_noticed_or_another_one(
        list in lists(), place in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let mut bytes = Trace::new(3, &list).encode();
        let place = place.index(bytes.len());
        let cut = Trace::decode(&bytes[..place]).unwrap_err();
        prop_assert!(matches!(
            cut, TraceError::NotATrace | TraceError::NoHeader | TraceError::Truncated { .. }
        ), "{}", cut);
        bytes[place] ^= change;
        if let Ok(trace) = Trace::decode(&bytes) {
            prop_assert_eq!(Trace::decode(&trace.encode()), Ok(trace));
        }
    }

    /// The plain form does what the list did.
    #[test]
    fn the_plain_form_means_the_same(list in lists()) {
        let trace = Trace::new(1, &list);
        let mut first = Replay::with_budget(Global(System), usize::MAX);
        let mut second = Replay::with_budget(Global(System), usize::MAX);
        let mut third = Playback::new(Global(System));
        list.iter().for_each(|it| first.apply(it).unwrap());
        for operation in trace.operations() {
            second.apply(operation).unwrap();
            prop_assert_ne!(third.apply(operation), Effect::Refused);
            prop_assert_eq!(second.tally(), third.tally());
        }
        prop_assert_eq!(first.tally(), second.tally());
        first.finish().unwrap();
        second.finish().unwrap();
        third.finish();
        let counts = |summary: Summary| (summary.allocated, summary.reallocated, summary.freed);
        prop_assert_eq!(counts(first.summary()), counts(second.summary()));
        prop_assert_eq!(third.tally(), second.tally());
    }
}

#[test]
fn small_operations_take_few_bytes() {
    let list = [
        Operation::Alloc { size: 15, align: 16 },
        Operation::AllocZeroed { size: 16, align: 16 },
        Operation::Alloc { size: 1, align: 1 },
        Operation::Realloc { index: 0, size: 100 },
        Operation::Free { index: 2 },
        Operation::Advance { microseconds: 100 },
    ];
    let body = [
        &[15 << 3][..],
        &[0x81, 1],         // 16 << 3 | 1
        &[1 << 3 | 2, 0],   // of alignment 1
        &[2 << 3 | 4, 100], // two were allocated since
        &[3],               // the youngest
        &[0xa6, 6],         // 100 << 3 | 6
    ];
    assert_eq!(Trace::new(1, &list).encode(), [&header(6), &body.concat()[..]].concat());
}

#[test]
fn every_error_has_its_own_line() {
    let line = |result: Result<Trace, TraceError>| result.unwrap_err().to_string();
    assert_eq!(line(Trace::decode(b"")), "not a trace");
    assert_eq!(line(Trace::decode(b"\x7fELF of some program")), "not a trace");
    assert_eq!(line(Trace::decode(b"spanalloc tr")), "cut off inside of the header");
    assert_eq!(line(Trace::decode(&header(0)[..18])), "cut off inside of the header");
    let version = line(Trace::decode(b"spanalloc trace\n\x02\x01\0"));
    assert_eq!(version, "version 2 of traces is not known");
    assert_eq!(line(Trace::decode(b"spanalloc trace\n\x01\0\0")), "0 caches cannot be");
    assert_eq!(line(read(2, &[8])), "cut off: 1 of 2 operations are there");
    assert_eq!(line(read(1, &[8, 8, 8])), "2 bytes follow the last operation");
    let not_live = |operation, back| {
        format!("operation {operation}: the object {back} allocations back is not live")
    };
    assert_eq!(line(read(1, &[3])), not_live(0, 0));
    assert_eq!(line(read(3, &[8, 3, 3])), not_live(2, 0));
    assert_eq!(line(read(2, &[8, 4 + 8, 1])), not_live(1, 1));
    assert_eq!(line(read(1, &[13])), "operation 0: there is no cache 1");
    assert_eq!(line(read(1, &[7, 9])), "operation 0: there is no cache 9");
    assert_eq!(line(read(1, &[0x37])), "operation 0: kind 6 is not known");
    assert_eq!(line(read(1, &[0x1f, 5, 0, 0])), "operation 0: a number does not fit");
    assert_eq!(line(read(1, &[0xff; 20])), "operation 0: a number does not fit");
    let aligned = line(read(1, &[10, 126]));
    assert_eq!(aligned, "operation 0: 1 bytes aligned to 2^63 cannot be asked for");
    let large = line(read(1, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]));
    assert!(large.ends_with("bytes aligned to 2^4 cannot be asked for"), "{large}");
    // A header that promises more than memory holds.
    let mut bytes = header(0xff);
    bytes.extend([0xff; 8]);
    bytes.push(1);
    assert!(line(Trace::decode(&bytes)).starts_with("cut off: 0 of "));
}
