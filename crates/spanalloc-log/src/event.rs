/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An object was handed out.
    #[default]
    Alloc = 1,
    /// An object was handed out that reads as zero.
    AllocZeroed = 2,
    /// An object is about to be freed.
    Free = 3,
    /// An object is about to get a new size.
    Resize = 4,
    /// The object of the thread's last [`Resize`](Self::Resize) has its new size, and lies at this
    /// address; at 0 if it was refused.
    Resized = 5,
    /// The thread ends.
    End = 6,
}

impl Kind {
    fn from_number(number: u64) -> Option<Self> {
        let all =
            [Self::Alloc, Self::AllocZeroed, Self::Free, Self::Resize, Self::Resized, Self::End];
        all.into_iter().find(|kind| *kind as u64 == number)
    }
}

/// One thing that a program did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What it was.
    pub kind: Kind,
    /// Where the object is.
    pub address: usize,
    /// Bytes asked for.
    pub size: usize,
    /// The logarithm of the alignment asked for.
    pub align_log2: u8,
    /// The thread: a number below 2^56 that no other thread of the process has at the time.
    pub thread: u64,
    /// A clock's nanoseconds; the lowest 56 bits are kept, which are two years.
    pub nanoseconds: u64,
}

/// The low bits that a second number shares a word with.
const LOW_BITS: u32 = 56;

impl Event {
    pub(crate) fn words(&self) -> [u64; 4] {
        let thread = self.thread & ((1 << LOW_BITS) - 1);
        let time = self.nanoseconds & ((1 << LOW_BITS) - 1);
        [
            self.address as u64,
            self.size as u64,
            thread | u64::from(self.align_log2) << LOW_BITS,
            time | (self.kind as u64) << LOW_BITS,
        ]
    }

    pub(crate) fn from_words([address, size, thread, last]: [u64; 4]) -> Option<Self> {
        let low = (1 << LOW_BITS) - 1;
        Some(Self {
            kind: Kind::from_number(last >> LOW_BITS)?,
            address: usize::try_from(address).ok()?,
            size: usize::try_from(size).ok()?,
            align_log2: (thread >> LOW_BITS) as u8,
            thread: thread & low,
            nanoseconds: last & low,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_four_words() {
        let event = Event {
            kind: Kind::Resized,
            address: usize::MAX - 15,
            size: 1 << 40,
            align_log2: 63,
            thread: (1 << 47) + 5,
            nanoseconds: (1 << 56) - 1,
        };
        assert_eq!(Event::from_words(event.words()), Some(event));
        for last in [0, 7 << 56, u64::MAX] {
            assert_eq!(Event::from_words([0, 0, 0, last]), None);
        }
    }
}
