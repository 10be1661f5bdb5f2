use core::ptr;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::span_slots::Put;
use crate::testing::{descriptor, facts, span};
use spanalloc_pages::PAGE_BYTES;

/// A class that is neither tiny nor large.
const CLASS: u8 = 5;

/// Takes `want` slots and returns them in the order they are handed out.
fn take(span: SpanRef, want: usize) -> (Vec<usize>, bool) {
    let mut out = vec![ptr::null_mut(); want];
    // SAFETY: the test is the holder; there is room.
    let taken = unsafe { span.take(out.as_mut_ptr(), want) };
    let slots = out[..taken.count].iter().map(|at| span.slot_of(at.addr())).collect();
    (slots, taken.zeroed)
}

fn put(span: SpanRef, slot: usize) -> Put {
    // SAFETY: the test is the holder and uses no slot.
    unsafe { span.put(slot) }
}

#[test]
fn the_parts_of_a_descriptor_follow_each_other() {
    for words in 1..=MAX_SLOTS / 64 {
        assert!(shared_offset(words) >= FREE_OFFSET + words * 8);
        assert_eq!(shared_offset(words) % LINE, 0);
        assert!(remote_offset(words) >= shared_offset(words) + size_of::<Shared>());
        assert!(descriptor_bytes(words, false) >= remote_offset(words) + words * 8);
        assert!(live_offset(words) >= remote_offset(words) + words * 64);
        assert!(descriptor_bytes(words, true) >= live_offset(words) + words * 64);
        assert_eq!(descriptor_bytes(words, true) % LINE, 0);
    }
    assert_eq!(descriptor_bytes(2, false), 128);
    assert_eq!(descriptor_bytes(16, false), 384);
    assert_eq!(descriptor_bytes(8, true), 1216);
}

// Every part is filled with a value of its own; then every part still holds its own.
#[test]
fn no_part_of_a_descriptor_lies_in_another() {
    for (words, tiny) in [(2, false), (4, false), (8, false), (16, false), (8, true)] {
        let span = descriptor(words, tiny);
        let class = if tiny { TINY } else { CLASS };
        let pages = 0x0101_0101 & (usize::MAX / PAGE_BYTES);
        let run = Run { address: usize::MAX / 2, pages, zeroed: true };
        // SAFETY: the descriptor has this many words, and the pages are never touched.
        unsafe { span.cut(words, class, &facts(16, 1), words * 64, run) };
        span.set_notify(0xabcd);
        span.head().class.fetch_or(MARKED, Ordering::Relaxed);
        span.shared().link.store(ptr::without_provenance_mut(0x1000), Ordering::Relaxed);
        span.stranded().leave();
        for (index, word) in span.remote_words().iter().enumerate() {
            word.store(u64::MAX - index as u64, Ordering::Relaxed);
        }
        assert_eq!(span.remote_words().len(), if tiny { words * 8 } else { words });
        for slot in (0..words * 64).filter(|_| tiny) {
            span.live_count(slot).store(slot as u8 ^ 0x5a, Ordering::Relaxed);
        }

        assert_eq!((span.base(), span.pages()), (usize::MAX / 2, pages));
        assert_eq!((span.used(), span.slots(), span.words()), (0, words * 64, words));
        assert_eq!((span.class(), span.place(), span.bytes()), (class, Place::Current, 16));
        assert_eq!(span.shared().notify.load(Ordering::Relaxed), 0xabcd);
        assert!(span.may_be_marked());
        assert!(span.zeroed() && span.stranded().take() && !span.stranded().take());
        assert_eq!(span.shared().link.load(Ordering::Relaxed).addr(), 0x1000);
        assert_eq!(span.unfolded(), 0);
        for word in 0..words {
            assert_eq!(span.free_word(word).load(Ordering::Relaxed), u64::MAX);
        }
        for (index, word) in span.remote_words().iter().enumerate() {
            assert_eq!(word.load(Ordering::Relaxed), u64::MAX - index as u64);
        }
        for slot in (0..words * 64).filter(|_| tiny) {
            assert_eq!(span.live_count(slot).load(Ordering::Relaxed), slot as u8 ^ 0x5a);
        }
    }
}

#[test]
fn a_new_span_has_exactly_its_slots_free() {
    for slots in [1, 2, 63, 64, 65, 127, 128] {
        let span = span(CLASS, 8, slots, true);
        let ones: u32 = (0..span.words())
            .map(|at| span.free_word(at).load(Ordering::Relaxed).count_ones())
            .sum();
        assert_eq!(ones as usize, slots + 1, "the tail has one, too");
        assert_eq!(take(span, slots + 1).0, (0..slots).collect::<Vec<_>>());
        assert_eq!((span.used(), take(span, 1).0.len()), (slots, 0));
    }
}

#[test]
fn the_lowest_free_slots_are_taken_and_handed_out_first() {
    let span = span(CLASS, 48, 100, false);
    assert_eq!(take(span, 70).0, (0..70).collect::<Vec<_>>());
    for slot in [66, 3, 69, 64] {
        assert_eq!(put(span, slot), Put::Done);
    }
    assert_eq!(span.used(), 66);
    assert_eq!(take(span, 3).0, [3, 64, 66]);
    assert_eq!(take(span, 3).0, [69, 70, 71]);
    assert_eq!(take(span, 0).0, [0_usize; 0]);
    assert_eq!(span.used(), 72);
}

#[test]
fn addresses_and_slots_tell_each_other() {
    for bytes in [8, 24, 48, 1152, 8192, 32768] {
        let span = span(CLASS, bytes, 7, false);
        for slot in 0..7 {
            let address = span.address_of(slot);
            assert_eq!(address, 0x10_0000 + slot * bytes as usize);
            assert_eq!(span.offset_of(address), slot * bytes as usize);
            assert_eq!(span.slot_of(address), slot);
            assert_eq!(span.slot_of(address + bytes as usize - 1), slot);
        }
    }
}

#[test]
fn every_address_tells_whether_a_slot_begins_there() {
    for (bytes, slots) in [(8, 100), (16, 512), (48, 170), (1152, 7), (8192, 4), (32768, 4)] {
        let span = span(CLASS, bytes as u32, slots, false);
        let end = span.pages() * PAGE_BYTES;
        for offset in (0..end + 100).chain([2 * end, 3 * end + 1, 1 << 31]) {
            let address = span.base() + offset;
            let begins = (offset % bytes == 0).then_some(offset / bytes);
            assert_eq!(span.slot_at(address), begins.filter(|slot| *slot < slots), "{offset}");
            if offset < end {
                assert_eq!(span.slot_or_tail_at(address), begins, "{offset} of {bytes}");
            }
        }
    }
    // No slot begins in a large object.
    let large = descriptor(2, false);
    // SAFETY: the descriptor has two words, and the pages are never touched.
    unsafe { large.cut_large(2, Run { address: 0x2000, pages: 5, zeroed: true }) };
    assert_eq!((large.slot_at(0x2000), large.slot_or_tail_at(0x2000)), (None, None));
}

#[test]
fn only_slots_never_handed_out_are_known_to_be_zero() {
    let clean = span(CLASS, 64, 10, true);
    assert!(take(clean, 0).1);
    assert_eq!(take(clean, 2), (vec![0, 1], true));
    put(clean, 1);
    assert_eq!(take(clean, 2), (vec![1, 2], false), "one of two was used before");
    assert_eq!(take(clean, 2), (vec![3, 4], true));
    put(clean, 0);
    assert_eq!(take(clean, 1), (vec![0], false));
    assert_eq!(take(clean, 9), (vec![5, 6, 7, 8, 9], true));
    let dirty = span(CLASS, 64, 10, false);
    assert_eq!(take(dirty, 1), (vec![0], false));
}

#[test]
fn put_tells_when_few_enough_are_used() {
    let span = span(CLASS, 64, 10, false);
    take(span, 10);
    span.set_notify(7);
    let told: Vec<_> = (0..5).map(|slot| put(span, slot)).collect();
    assert_eq!(told, [Put::Done, Put::Done, Put::Notify, Put::Notify, Put::Notify]);
    span.set_notify(0);
    let told: Vec<_> = (5..10).map(|slot| put(span, slot)).collect();
    assert_eq!(told, [Put::Done, Put::Done, Put::Done, Put::Done, Put::Notify]);
    assert_eq!((span.used(), put(span, 3), span.used()), (0, Put::Twice, 0));
}

#[test]
fn places_are_kept() {
    let span = span(CLASS, 64, 10, false);
    use Place::{Current, Empty, Full, Large, Partial, Pool};
    for place in [Pool, Current, Partial, Full, Large, Empty, Pool] {
        span.set_place(place);
        assert_eq!(span.place(), place);
    }
    assert_eq!(descriptor(2, false).place(), Place::Pool, "zeroed memory is not in use");
}

#[test]
fn a_large_object_lives_once() {
    let span = descriptor(2, false);
    let run = Run { address: 0x2000, pages: 5, zeroed: true };
    // SAFETY: the descriptor has two words, and the pages are never touched.
    unsafe { span.cut_large(2, run) };
    assert_eq!((span.class(), span.place(), span.slots()), (LARGE, Place::Large, 1));
    assert_eq!((span.base(), span.pages(), span.bytes()), (0x2000, 5, 5 * PAGE_BYTES));
    assert!(span.zeroed());
    span.resize_large(6);
    assert_eq!((span.pages(), span.bytes()), (6, 6 * PAGE_BYTES));
    // The field has 32 bits; the size is told by the pages then.
    span.resize_large(1 << 19);
    assert_eq!((span.pages(), span.bytes()), (1 << 19, 0));
    span.note().store(7, Ordering::Relaxed);
    assert!(span.end_large(span.base()));
    assert!(!span.end_large(span.base()));
    assert!(!span.end_large_alone(span.base()));
    span.begin_large();
    assert_eq!(span.note().load(Ordering::Relaxed), 7, "the pages are the same");
    assert!(!span.end_large_alone(span.base() + PAGE_BYTES) && span.is_large_live());
    assert!(span.end_large_alone(span.base()) && !span.is_large_live());
    assert!(!span.end_large_alone(span.base()));
    span.resize_large(5);
    assert_eq!(span.note().load(Ordering::Relaxed), 0, "other pages");
    let small = crate::testing::span(CLASS, 64, 10, false);
    take(small, 1);
    assert!(!small.end_large(small.base()));
    assert_eq!(small.used(), 1);
}

#[test]
fn a_descriptor_can_be_cut_again() {
    let first = span(CLASS, 64, 100, true);
    take(first, 100);
    (0..100).for_each(|slot| _ = put(first, slot));
    first.set_notify(99);
    let run = Run { address: 0x40_0000, pages: 1, zeroed: true };
    // SAFETY: the descriptor has two words, and the pages are never touched.
    unsafe { first.cut(2, 9, &facts(4096, 2), 2, run) };
    assert_eq!((first.class(), first.slots(), first.bytes(), first.zeroed()), (9, 2, 4096, true));
    assert_eq!(take(first, 5), (vec![0, 1], true));
    assert_eq!(put(first, 1), Put::Done);
}

#[test]
fn slots_of_a_word_are_given_back_together_or_not_at_all() {
    let span = span(CLASS, 16, 130, false);
    take(span, 130);
    span.set_notify(100);
    // SAFETY: the test is the holder and uses no slot.
    let put_all = |word, mask| unsafe { span.put_all(word, mask) };
    assert_eq!((put_all(0, 0b1011), span.used()), (Ok(Put::Done), 127));
    assert_eq!((put_all(0, 0b1100), span.used()), (Err(3), 127));
    assert_eq!((put_all(1, 1 << 63), put_all(2, 0b11)), (Ok(Put::Done), Ok(Put::Done)));
    assert_eq!((put_all(0, 0xff << 8), put_all(1, 0xffff)), (Ok(Put::Done), Ok(Put::Notify)));
    assert_eq!((span.used(), take(span, 4).0), (100, vec![0, 1, 3, 8]));
}
