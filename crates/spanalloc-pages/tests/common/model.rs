//! The naive page heap: sorted intervals of free pages and a set of pages ever written.

use std::collections::{BTreeMap, BTreeSet};

/// Free runs, first page to length; neighbours are always joined.
#[derive(Clone, Debug, Default)]
pub struct Runs(pub BTreeMap<u64, u64>);

impl Runs {
    pub fn add(&mut self, mut page: u64, mut pages: u64) {
        if let Some((&start, &len)) = self.0.range(..page).next_back() {
            assert!(start + len <= page, "page {page:#x} is free already");
            if start + len == page {
                self.0.remove(&start);
                page = start;
                pages += len;
            }
        }
        if let Some((&start, &len)) = self.0.range(page..).next() {
            assert!(page + pages <= start, "page {start:#x} is free already");
            if page + pages == start {
                self.0.remove(&start);
                pages += len;
            }
        }
        self.0.insert(page, pages);
    }

    pub fn has(&self, page: u64, pages: u64) -> bool {
        self.0.range(..=page).next_back().is_some_and(|(&start, &len)| page + pages <= start + len)
    }

    pub fn touches(&self, page: u64, pages: u64) -> bool {
        (page..page + pages).any(|page| self.has(page, 1))
    }

    pub fn remove(&mut self, page: u64, pages: u64) {
        assert!(self.has(page, pages));
        let (&start, &len) = self.0.range(..=page).next_back().unwrap();
        self.0.remove(&start);
        if start < page {
            self.0.insert(start, page - start);
        }
        if page + pages < start + len {
            self.0.insert(page + pages, start + len - page - pages);
        }
    }

    pub fn first_fit(&self, pages: u64) -> Option<u64> {
        self.0.iter().find(|(_, len)| **len >= pages).map(|(&start, _)| start)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The window of a page cache.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub base: u64,
    pub free: BTreeSet<u64>,
    /// Pages of the window that were the heap's when the cache took it.
    pub ours: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub struct Model {
    pub ours: Runs,
    pub free: Runs,
    /// Pages handed out since they were last given back to the system.
    pub touched: BTreeSet<u64>,
    pub window: Option<Window>,
}

impl Model {
    pub fn grow(&mut self, page: u64, pages: u64) {
        self.ours.add(page, pages);
        self.free.add(page, pages);
    }

    /// Marks a run as handed out; returns whether all of it was still zero.
    pub fn hand_out(&mut self, page: u64, pages: u64) -> bool {
        let zero = self.touched.range(page..page + pages).next().is_none();
        self.touched.extend(page..page + pages);
        zero
    }

    pub fn flush(&mut self) {
        if let Some(window) = self.window.take() {
            for page in window.free {
                self.free.add(page, 1);
            }
        }
    }

    pub fn take_from_window(&mut self, pages: u64) -> Option<u64> {
        let window = self.window.as_mut()?;
        let page = (window.base..window.base + 64)
            .find(|&page| (page..page + pages).all(|p| window.free.contains(&p)))?;
        for taken in page..page + pages {
            window.free.remove(&taken);
        }
        Some(page)
    }

    pub fn open_window(&mut self, page: u64) {
        let base = page & !63;
        let free: BTreeSet<u64> = (base..base + 64).filter(|&p| self.free.has(p, 1)).collect();
        for &page in &free {
            self.free.remove(page, 1);
        }
        let ours = (base..base + 64).filter(|&p| self.ours.has(p, 1)).collect();
        self.window = Some(Window { base, free, ours });
    }

    pub fn in_window(&self, page: u64, pages: u64) -> bool {
        self.window
            .as_ref()
            .is_some_and(|window| (page..page + pages).all(|p| window.ours.contains(&p)))
    }

    pub fn window_pages(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.free.len() as u64)
    }

    /// The pages that go back if `most` are to: first blocks that are free and Ready, each as a whole, then
    /// other dirty pages in groups, the highest of each first.
    pub fn to_release(
        &self,
        most: u64,
        group: u64,
        block: u64,
        ready: impl Fn(u64) -> bool,
    ) -> BTreeSet<u64> {
        let mut released = BTreeSet::new();
        let starts = |size: u64| -> BTreeSet<u64> {
            self.touched.iter().map(|page| page / size * size).collect()
        };
        for &page in starts(block).iter().rev() {
            let whole = self.free.has(page, block) && (page..page + block).all(&ready);
            if (released.len() as u64) < most && whole {
                released.extend(page..page + block);
            }
        }
        for &page in starts(group).iter().rev() {
            let fits = released.len() as u64 + group <= most;
            if fits && self.free.has(page, group) && !released.contains(&page) {
                released.extend(page..page + group);
            }
        }
        released
    }
}
