//! Emptying magazines: objects go back to their spans, neighbours together.

use spanalloc_central::remote::Marked;
use spanalloc_central::{Central, Put, SpanRef, class_facts};
use spanalloc_os::Misuse;
use spanalloc_sync::prefetch;

use crate::cache::Cache;
use crate::policy::Policy;

/// A thread that has spans of so many bytes has more descriptors than the nearest of the processor's caches
/// holds.
const MUCH_BYTES: usize = 4 << 20;
/// The oldest and the newest object of a magazine that are so far apart are among objects of many spans.
const APART_BYTES: usize = 256 << 10;
/// Of so many objects the descriptors are on their way into the processor's cache at once: as many as it can
/// wait for.
const AHEAD: usize = 16;

/// Gives objects back to their spans.
///
/// # Safety
/// `objects` points to `count` objects of this class, which nobody uses.
pub(crate) unsafe fn give_back<C: Central, P: Policy>(
    cache: Cache<'_, C, P>,
    class: u8,
    objects: *const *mut u8,
    count: usize,
) {
    // SAFETY: index < count (contract).
    let address = |index: usize| unsafe { objects.add(index).read() }.addr();
    let apart = count > 1 && address(0).abs_diff(address(count - 1)) >= APART_BYTES;
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if apart && cache.state.empties.others() >= MUCH_BYTES {
            give_back_apart(cache, class, objects, count);
        } else {
            give_back_neighbours(cache, class, objects, count);
        }
    }
}

/// As [`give_back`], of objects that are hardly ever neighbours: one by one, and while one is given back, the
/// descriptors of the next ones are fetched, each of which would be waited for.
///
/// # Safety
/// As there.
unsafe fn give_back_apart<C: Central, P: Policy>(
    cache: Cache<'_, C, P>,
    class: u8,
    objects: *const *mut u8,
    count: usize,
) {
    // SAFETY: index < count where this is called (contract).
    let address = |index: usize| unsafe { objects.add(index).read() }.addr();
    let fetch = |index| {
        if let Some(span) = cache.central.span_at(address(index)) {
            prefetch(span.as_ptr().as_ptr());
        }
    };
    (0..count.min(AHEAD)).for_each(fetch);
    for index in 0..count {
        if index + AHEAD < count {
            fetch(index + AHEAD);
        }
        let usual = cache.central.span_at(address(index)).filter(|span| {
            span.unmarked_class() == Some(class) && span.ownership().is(&cache.state.owner.queue)
        });
        let slot = usual.and_then(|span| Some((span, span.slot_at(address(index))?)));
        if let Some((span, slot)) = slot {
            // SAFETY: this thread owns the span, and nobody uses the slot.
            match unsafe { span.put_all(slot / 64, 1 << (slot % 64)) } {
                Ok(Put::Notify) => cache.rehome_slow(span),
                Ok(_) => {}
                Err(slot) => die_twice(cache, span, slot),
            }
        } else {
            // SAFETY: the caller's promise is passed on.
            unsafe { give_back_neighbours(cache, class, objects.add(index), 1) };
        }
    }
}

/// As [`give_back`], of objects many of which are neighbours: they were often freed one after the other, need one
/// look at the span map, and those of one word of the bitmap are given back at once.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn give_back_neighbours<C: Central, P: Policy>(
    cache: Cache<'_, C, P>,
    class: u8,
    objects: *const *mut u8,
    count: usize,
) {
    let facts = class_facts::<C::Table>(class);
    let bytes = facts.bytes as usize;
    // SAFETY: index < count where this is called (contract).
    let address = |index: usize| unsafe { objects.add(index).read() }.addr();
    let mut index = 0;
    let mut last = None;
    while index < count {
        let known = last.and_then(|span: SpanRef| Some((span, span.slot_at(address(index))?)));
        let (span, mut slot) = known
            .unwrap_or_else(|| Cache::<C, P>::locate(cache.central, class, facts, address(index)));
        let (word, mut mask) = (slot / 64, 1_u64 << (slot % 64));
        let slots = word * 64..span.slots().min(word * 64 + 64);
        index += 1;
        while index < count {
            let (before, this) = (address(index - 1), address(index));
            // Those of the slots behind that of the object before, or before it, need no division.
            let run = |most: usize, step: usize| {
                let most = most.min(count - index);
                let is_next = |more: &usize| {
                    address(index + more) == this.wrapping_add(step.wrapping_mul(*more))
                };
                (1..most).take_while(is_next).count() + 1
            };
            let (more, bits);
            if this == before + bytes && slot + 1 < slots.end {
                more = run(slots.end - 1 - slot, bytes);
                bits = ones(more) << (slot % 64 + 1);
                slot += more;
            } else if this + bytes == before && slot > slots.start {
                more = run(slot - slots.start, bytes.wrapping_neg());
                slot -= more;
                bits = ones(more) << (slot % 64);
            } else {
                match span.slot_at(this) {
                    Some(found) if slots.contains(&found) => slot = found,
                    _ => break,
                }
                (more, bits) = (1, 1 << (slot % 64));
            }
            if mask & bits != 0 {
                break;
            }
            mask |= bits;
            index += more;
        }
        last = give_back_word(cache, span, word, mask).then_some(span);
    }
}

/// So many ones, fewer than 64.
fn ones(count: usize) -> u64 {
    (1 << count) - 1
}

/// Ends the process: the program freed the object in this slot twice.
#[cold]
#[inline(never)]
fn die_twice<C: Central, P: Policy>(cache: Cache<'_, C, P>, span: SpanRef, slot: usize) -> ! {
    cache.central.die(Misuse::DoubleFree, span.address_of(slot), span.bytes())
}

/// Gives slots of one word of a span's bitmap back, which nobody uses. Whether the span is still there.
fn give_back_word<C: Central, P: Policy>(
    cache: Cache<'_, C, P>,
    span: SpanRef,
    word: usize,
    mask: u64,
) -> bool {
    if span.ownership().is(&cache.state.owner.queue) {
        // SAFETY: the slots are of this word; tiny spans are none of a bin with magazines.
        let twice = unsafe { span.marked_among(word, mask) };
        if twice != 0 {
            die_twice(cache, span, word * 64 + twice.trailing_zeros() as usize);
        }
        // SAFETY: this thread owns the span, and nobody uses the slots.
        match unsafe { span.put_all(word, mask) } {
            Ok(Put::Notify) => cache.rehome_slow(span),
            Ok(_) => return true,
            Err(slot) => die_twice(cache, span, slot),
        }
        return false;
    }
    // SAFETY: nobody uses the slots; they are not tiny, for tiny slots are only kept by the owner of
    // their span.
    match unsafe { span.mark_all(word, mask) } {
        // SAFETY: the mark gave this thread the token.
        Ok(Marked::Token) => unsafe { cache.central.deliver(span) },
        Ok(_) => {}
        Err(slot) => die_twice(cache, span, slot),
    }
    false
}
