//! Objects go from thread to thread, and threads come and go.

use std::array;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Barrier, Mutex};
use std::thread;

use super::measure::{histogram, on_threads};
use super::object::{Object, Sizes};
use super::replacement::Heap;
use super::{Group, Outcome, Scale, Workload};
use crate::random::Random;

const SIZES: Sizes = Sizes::Even(16..=512);
/// So many objects go through a queue at once, so that the queue itself takes little time.
const BUNDLE: usize = 32;
/// So many bundles fit a queue.
const QUEUE: usize = 64;

type Bundle = [Object; BUNDLE];

pub(super) fn all() -> Vec<Workload> {
    let named = |name: &str, threads, run: fn(usize, Scale) -> Outcome| {
        Workload::new(name, Group::Threads, threads, move |scale| run(threads, scale))
    };
    let mut all = vec![named("larson", 1, larson)];
    for (name, run) in [
        ("larson", larson as fn(usize, Scale) -> Outcome),
        ("producer-consumer", producer_consumer),
        ("exchange", exchange),
        ("thread-churn", thread_churn),
    ] {
        all.extend([2, 8].map(|threads| named(name, threads, run)));
    }
    all
}

fn bundle(random: &mut Random) -> Bundle {
    array::from_fn(|_| Object::new(SIZES.draw(random)))
}

/// Servers whose threads end after a while: each hands its live objects over to its successor.
fn larson(threads: usize, scale: Scale) -> Outcome {
    const LIVE: u32 = 1_000;
    const REPLACED_BY_A_THREAD: u64 = 25_000;
    let generations = (scale.of(8_000_000) / REPLACED_BY_A_THREAD).max(1).div_ceil(threads as u64);
    let (elapsed, latencies) = on_threads(0..threads, |server| {
        let mut heap = Heap::new(LIVE, SIZES, server as u64);
        for _ in 0..generations {
            let successor = thread::spawn(move || {
                heap.replace(REPLACED_BY_A_THREAD);
                heap
            });
            heap = successor.join().expect("a workload does not panic");
        }
        heap.latency
    });
    let mut latency = histogram();
    latencies.iter().for_each(|of_server| latency += of_server);
    let operations = generations * REPLACED_BY_A_THREAD * threads as u64;
    Outcome::new(operations, elapsed).with_latency(latency)
}

/// One half of the threads allocates, the other half frees.
fn producer_consumer(threads: usize, scale: Scale) -> Outcome {
    enum Part {
        Producer(SyncSender<Bundle>, u64),
        Consumer(Receiver<Bundle>),
    }
    let pairs = threads as u64 / 2;
    let bundles = (scale.of(8_000_000) / BUNDLE as u64).div_ceil(pairs);
    let parts = (0..pairs).flat_map(|pair| {
        let (producer, consumer) = sync_channel(QUEUE);
        [Part::Producer(producer, pair), Part::Consumer(consumer)]
    });
    let (elapsed, _) = on_threads(parts, |part| match part {
        Part::Producer(queue, seed) => {
            let mut random = Random::new(seed);
            for _ in 0..bundles {
                queue.send(bundle(&mut random)).expect("the consumer waits for the end");
            }
        }
        Part::Consumer(queue) => queue.into_iter().for_each(drop),
    });
    Outcome::new(bundles * pairs * BUNDLE as u64, elapsed)
}

/// Every thread allocates for all the others, then frees what the others allocated for it.
fn exchange(threads: usize, scale: Scale) -> Outcome {
    /// Objects of a round, by all threads together.
    const OBJECTS: usize = 8 * 7 * 512;
    let rounds = (scale.of(8_000_000) / OBJECTS as u64).max(1);
    let parcel_size = OBJECTS / threads / (threads - 1);
    let mailboxes: Vec<Mutex<Vec<Object>>> = (0..threads).map(|_| Mutex::default()).collect();
    let mailbox = |number: usize| mailboxes[number % threads].lock().expect("nobody panics");
    let barrier = Barrier::new(threads);
    let (elapsed, _) = on_threads(0..threads, |number| {
        let mut random = Random::new(number as u64);
        let mut parcel = Vec::with_capacity(parcel_size);
        for _ in 0..rounds {
            for other in 1..threads {
                parcel.extend((0..parcel_size).map(|_| Object::new(SIZES.draw(&mut random))));
                mailbox(number + other).append(&mut parcel);
            }
            barrier.wait();
            mailbox(number).clear();
            barrier.wait();
        }
    });
    Outcome::new(rounds * OBJECTS as u64, elapsed)
}

/// Short threads, so many at a time: each frees most of what it allocated, and returns the rest.
fn thread_churn(threads: usize, scale: Scale) -> Outcome {
    const OBJECTS: usize = 100;
    const RETURNED: usize = 10;
    let each = scale.of(20_000).div_ceil(threads as u64);
    let (elapsed, _) = on_threads(0..threads, |number| {
        for index in 0..each {
            let mut random = Random::new(number as u64 * each + index);
            let short = thread::spawn(move || {
                let mut objects: Vec<Object> =
                    (0..OBJECTS).map(|_| Object::new(SIZES.draw(&mut random))).collect();
                objects.truncate(RETURNED);
                objects
            });
            drop(short.join().expect("a workload does not panic"));
        }
    });
    Outcome::new(each * threads as u64, elapsed)
}
