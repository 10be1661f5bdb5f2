//! Frees that are brought to a span late, or too late.

use std::string::String;

use super::*;

#[test]
fn what_is_deferred_waits_until_somebody_catches_up() {
    let setup = Setup::new();
    let (span, queue) = (setup.cut(CLASS).unwrap(), &setup.queue);
    use_slots(span, 3);
    // SAFETY: the test owns both spans, has the tokens it brings, and uses no slot.
    unsafe {
        // A span that has an owner goes to that one.
        assert_eq!(span.mark(0), Marked::Token);
        setup.lists.deliver_or_defer(span);
        assert_eq!(queue.drain().next(), Some(span.as_ptr()));
        assert_eq!(span.fold(), None);
        setup.give(span);
        for (slot, borrowed) in [(1, false), (2, true)] {
            let large = setup.lists.alloc_large(3, 1, None).unwrap();
            assert_eq!(span.mark(slot), Marked::Token);
            assert!(large.end_large(large.base()));
            let before = (setup.lists.locks(), span.used(), setup.pages_in_use());
            if borrowed {
                Central::deliver_or_defer(&&setup.lists, span);
                Central::defer(&&setup.lists, large);
            } else {
                setup.lists.deliver_or_defer(span);
                setup.lists.defer(large);
            }
            assert_eq!(before, (setup.lists.locks(), span.used(), setup.pages_in_use()));
            if borrowed {
                Central::catch_up(&&setup.lists)
            } else {
                setup.lists.catch_up()
            }
            assert_eq!(setup.lists.span_at(large.base()), None);
        }
    }
    // The last free gave the span back as well.
    assert_eq!((setup.spans(), setup.pages_in_use()), (Vec::new(), 0));
    let locks = setup.lists.locks();
    setup.lists.catch_up();
    assert_eq!(setup.lists.locks(), locks, "there is nothing to catch up with");
}

/// The message of the death of a span that is released although another thread freed `slot`, which lies
/// free; and the span.
fn release_with_a_mark(class: u8, used: usize, slot: usize) -> (String, SpanRef) {
    let setup = Setup::new();
    let span = setup.cut(class).unwrap();
    use_slots(span, used);
    // SAFETY: the test owns the span and uses no slot; it frees one as two threads do at once.
    unsafe {
        if class == TINY {
            // Eight slots share a word.
            span.remote_words()[slot / 8].store(1, Ordering::Relaxed);
        } else {
            assert_eq!(span.mark(slot), Marked::Token);
        }
        (0..used).for_each(|slot| assert_ne!(span.put(slot), Put::Twice));
    }
    let release = std::panic::AssertUnwindSafe(|| {
        // SAFETY: the test owns the span, of which no slot is used.
        unsafe { setup.lists.release(span, &setup.stash) }
    });
    let death = std::panic::catch_unwind(release).expect_err("the second free was not noticed");
    (death.downcast_ref::<String>().unwrap().clone(), span)
}

#[test]
fn a_span_that_is_released_says_near_which_slot_the_second_free_was() {
    for slot in [0, 70, 130] {
        let (death, span) = release_with_a_mark(CLASS, 140, slot);
        let near = span.base() + slot / 64 * 64 * 48;
        assert_eq!(death, std::format!("DoubleFree at class 48, {near:#x}"));
    }
    for slot in [0, 17] {
        let (death, span) = release_with_a_mark(TINY, 20, slot);
        let near = span.base() + slot / 8 * 8 * TINY_BYTES;
        assert_eq!(death, std::format!("DoubleFree at class 16, {near:#x}"));
    }
}
