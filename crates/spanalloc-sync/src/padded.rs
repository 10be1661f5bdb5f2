use core::ops::Deref;

/// A value alone on its cache lines.
///
/// 128 bytes: two lines of 64, because x86-64 prefetches lines in pairs and some aarch64 cores
/// have lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(T);

impl<T> Padded<T> {
    /// Puts `value` on lines of its own.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Padded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use core::mem::{align_of, size_of};

    use super::*;

    #[test]
    fn neighbours_share_no_lines() {
        assert_eq!(align_of::<Padded<u8>>(), 128);
        assert_eq!(size_of::<Padded<u8>>(), 128);
        assert_eq!(size_of::<Padded<[u8; 129]>>(), 256);
        let pair = [Padded::new(1_u8), Padded::new(2)];
        assert_eq!((&raw const *pair[1]).addr() - (&raw const *pair[0]).addr(), 128);
        assert_eq!(*pair[0] + *pair[1], 3);
    }
}
