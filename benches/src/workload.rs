//! What is measured. The code is generic over the contender and the same for all of them.

use std::fmt;
use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::ptr;
use std::rc::Rc;

use crate::contender::{Contender, allocate, deallocate, out_of_memory};
use crate::random::Random;

/// The alignment of every object.
const ALIGN: usize = 8;
/// Objects of this size and more get their last byte written too.
const TOUCH_END: usize = 64;
/// How many random sizes are made before measuring; they are used in turn.
const SIZES: usize = 1 << 20;
/// How many random places to free are made before measuring, at least.
const PLACES: usize = 1 << 20;
/// How often each live object is replaced, on average, before the replacement is measured.
const AGEING: usize = 3;
/// The seed of all random numbers.
const SEED: u64 = 0x5EED;

/// In which order a batch is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Fifo,
    /// The newest first.
    Lifo,
    /// A random one.
    Random,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One object is allocated and freed. A unit is one object.
    Pair {
        /// Bytes of the object.
        size: usize,
    },
    /// All objects of a batch are allocated, then all are freed. A unit is one batch.
    Batch {
        /// Objects of the batch.
        count: u32,
        /// In which order they are freed.
        order: Order,
        /// Their sizes in bytes.
        sizes: RangeInclusive<u32>,
    },
    /// A random one of the live objects is freed and another is allocated in its stead. A unit is
    /// one object.
    Replace {
        /// Live objects.
        live: u32,
        /// Their sizes in bytes.
        sizes: RangeInclusive<u32>,
    },
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair { size } => write!(f, "pair, {size} B"),
            Self::Batch { count, order, sizes } => {
                let order = match order {
                    Order::Fifo => "FIFO",
                    Order::Lifo => "LIFO",
                    Order::Random => "random",
                };
                write!(f, "batch of {count}, {}..{} B, {order}", sizes.start(), sizes.end())
            }
            Self::Replace { live, sizes } => {
                write!(f, "replace among {live}, {}..{} B", sizes.start(), sizes.end())
            }
        }
    }
}

impl Workload {
    /// The rows of the table.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = [16, 64, 256, 1024, 8192].map(|size| Self::Pair { size }).into();
        for count in [1_000, 100_000] {
            for order in [Order::Fifo, Order::Lifo, Order::Random] {
                all.push(Self::Batch { count, order, sizes: 8..=1024 });
            }
        }
        for sizes in [8..=1024, 8..=64] {
            all.push(Self::Replace { live: 100_000, sizes });
        }
        all
    }

    /// Pairs of one allocation and one free in a unit.
    #[must_use]
    pub fn pairs_per_unit(&self) -> u64 {
        match self {
            Self::Pair { .. } | Self::Replace { .. } => 1,
            Self::Batch { count, .. } => u64::from(*count),
        }
    }
}

/// A workload that is ready to run on an allocator.
pub trait Running {
    /// Runs units of the workload: the part that is measured.
    fn run(&mut self, units: u64);
}

/// A workload with its random numbers, which are the same for every contender.
#[derive(Debug)]
pub struct Plan {
    workload: Workload,
    /// Sizes to allocate, used in turn.
    sizes: Vec<u16>,
    /// Places to free, used in turn.
    places: Vec<u32>,
}

impl Plan {
    /// Makes the random numbers.
    #[must_use]
    pub fn new(workload: Workload) -> Rc<Self> {
        let mut random = Random::new(SEED);
        let (sizes, places) = match &workload {
            Workload::Pair { .. } => (Vec::new(), Vec::new()),
            Workload::Batch { count, order, sizes } => {
                let sizes = random_sizes(&mut random, sizes);
                let places = match order {
                    Order::Fifo => (0..*count).collect(),
                    Order::Lifo => (0..*count).rev().collect(),
                    Order::Random => {
                        let orders = PLACES.div_ceil(*count as usize);
                        (0..orders).flat_map(|_| random.permutation(*count)).collect()
                    }
                };
                (sizes, places)
            }
            Workload::Replace { live, sizes } => {
                let sizes = random_sizes(&mut random, sizes);
                (sizes, (0..PLACES).map(|_| random.below(*live)).collect())
            }
        };
        Rc::new(Self { workload, sizes, places })
    }

    /// The workload.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
    }
}

/// A workload on the contender `C`: its plan, how far it got, and the objects that live between
/// runs.
#[derive(Debug)]
pub struct Session<C: Contender> {
    plan: Rc<Plan>,
    next_size: usize,
    next_place: usize,
    objects: Vec<*mut u8>,
    /// Sizes of the live objects of a replacement.
    live: Vec<u16>,
    contender: PhantomData<fn() -> C>,
}

/// Allocates an object and writes to it, as whoever asked for it would.
///
/// # Safety
/// As for [`allocate`].
#[inline(always)]
unsafe fn make<C: Contender>(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise; both bytes lie in the object.
    unsafe {
        let object = allocate::<C>(size, align);
        if object.is_null() {
            out_of_memory(size, align);
        }
        object.write_volatile(1);
        if size >= TOUCH_END {
            object.add(size - 1).write_volatile(1);
        }
        object
    }
}

impl<C: Contender> Session<C> {
    /// Makes a workload ready to run.
    #[must_use]
    pub fn open(plan: &Rc<Plan>) -> Self {
        let mut session = Self {
            plan: Rc::clone(plan),
            next_size: 0,
            next_place: 0,
            objects: Vec::new(),
            live: Vec::new(),
            contender: PhantomData,
        };
        match plan.workload {
            Workload::Pair { .. } => {}
            Workload::Batch { count, .. } => {
                session.objects = vec![ptr::null_mut(); count as usize];
            }
            Workload::Replace { live, .. } => {
                session.fill(live as usize);
                session.replace(live as usize * AGEING);
            }
        }
        session
    }

    fn pairs(&mut self, size: usize, units: u64) {
        let (size, align) = black_box((size, ALIGN));
        for _ in 0..units {
            // SAFETY: sizes are not 0 and small; the object is freed as it was allocated.
            unsafe {
                let object = make::<C>(size, align);
                deallocate::<C>(object, size, align);
            }
        }
    }

    fn batches(&mut self, count: usize, units: u64) {
        let align = black_box(ALIGN);
        for _ in 0..units {
            if self.next_size + count > self.plan.sizes.len() {
                self.next_size = 0;
            }
            let sizes = &self.plan.sizes[self.next_size..self.next_size + count];
            self.next_size += count;
            if self.next_place + count > self.plan.places.len() {
                self.next_place = 0;
            }
            let places = &self.plan.places[self.next_place..self.next_place + count];
            self.next_place += count;

            for (object, &size) in self.objects.iter_mut().zip(sizes) {
                // SAFETY: sizes are not 0 and small.
                *object = unsafe { make::<C>(usize::from(size), align) };
            }
            for &place in places {
                let place = place as usize;
                let (object, size) = (self.objects[place], usize::from(sizes[place]));
                // SAFETY: it was just allocated with this size; each place comes once.
                unsafe { deallocate::<C>(object, size, align) };
            }
        }
    }

    fn fill(&mut self, count: usize) {
        for _ in 0..count {
            let size = self.plan.sizes[self.next_size];
            self.next_size = (self.next_size + 1) % SIZES;
            // SAFETY: sizes are not 0 and small.
            self.objects.push(unsafe { make::<C>(usize::from(size), ALIGN) });
            self.live.push(size);
        }
    }

    fn replace(&mut self, count: usize) {
        let align = black_box(ALIGN);
        for _ in 0..count {
            let place = self.plan.places[self.next_place] as usize;
            self.next_place = (self.next_place + 1) % PLACES;
            let size = self.plan.sizes[self.next_size];
            self.next_size = (self.next_size + 1) % SIZES;
            let (object, live) = (&mut self.objects[place], &mut self.live[place]);
            // SAFETY: the object is live and of this size; sizes are not 0 and small.
            unsafe {
                deallocate::<C>(*object, usize::from(*live), align);
                *object = make::<C>(usize::from(size), align);
            }
            *live = size;
        }
    }
}

impl<C: Contender> Running for Session<C> {
    fn run(&mut self, units: u64) {
        match self.plan.workload {
            Workload::Pair { size } => self.pairs(size, units),
            Workload::Batch { count, .. } => self.batches(count as usize, units),
            Workload::Replace { .. } => self.replace(units as usize),
        }
    }
}

impl<C: Contender> Drop for Session<C> {
    fn drop(&mut self) {
        // Only a replacement has objects that live between runs; `live` is empty otherwise.
        for (&object, &size) in self.objects.iter().zip(&self.live) {
            // SAFETY: the object is live and of this size.
            unsafe { deallocate::<C>(object, usize::from(size), ALIGN) };
        }
    }
}

fn random_sizes(random: &mut Random, sizes: &RangeInclusive<u32>) -> Vec<u16> {
    let (first, span) = (*sizes.start(), sizes.end() - sizes.start() + 1);
    (0..SIZES).map(|_| (first + random.below(span)) as u16).collect()
}
