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
