use spanalloc_os::{Geometry, OsSource};
use spanalloc_sync::atomic::Ordering;

use crate::heap::PageHeap;
use crate::held::{COMMIT_PAGES, memory_of};
use crate::pages::PAGE_SHIFT;

/// For which memory a heap asks the system for huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum HugePages {
    /// For none. What the system does by itself is its own affair.
    Off,
    /// For what is expected to be filled from end to end: the first choice of every heap.
    #[default]
    Advise,
    /// For all memory that is got, by blocks of 2 MB.
    Always,
}

impl HugePages {
    const ALL: [Self; 3] = [Self::Off, Self::Advise, Self::Always];

    /// The choice that a heap begins with.
    pub(crate) const FIRST: u8 = Self::Advise as u8;
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// Chooses for which memory huge pages are asked for from now on. What was got before stays as it is.
    pub fn set_huge_pages(&self, huge: HugePages) {
        self.huge.store(huge as u8, Ordering::Relaxed);
    }

    /// For which memory huge pages are asked for.
    pub fn huge_pages(&self) -> HugePages {
        let huge = self.huge.load(Ordering::Relaxed);
        HugePages::ALL.into_iter().find(|known| *known as u8 == huge).unwrap_or_default()
    }

    /// See [`Pages::expect_filled`](crate::Pages::expect_filled). Of the blocks in which the run begins and ends,
    /// huge pages might come to more memory than is used.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn expect_run_filled(&self, page: u64, pages: usize) {
        let low = (page + 1).next_multiple_of(COMMIT_PAGES);
        let high = (page + pages as u64).saturating_sub(1) & !(COMMIT_PAGES - 1);
        if low >= high || self.huge_pages() != HugePages::Advise {
            return;
        }
        self.hold().state.dense = true;
        if let Some(memory) = memory_of(low) {
            // SAFETY: the pages were handed out to the caller (contract), so they are ours and Ready, and
            // they are whole OS pages.
            unsafe { self.source().expect_use(memory, ((high - low) as usize) << PAGE_SHIFT) };
        }
    }
}
