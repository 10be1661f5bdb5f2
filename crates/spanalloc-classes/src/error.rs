use thiserror::Error;

/// Why a table of size classes was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClassError {
    /// The list has no sizes.
    #[error("a table needs at least one size class")]
    Empty,
    /// The table would have more classes than there are class numbers.
    #[error("a table has at most 127 size classes")]
    TooMany,
    /// A size is zero.
    #[error("a size class of 0 bytes")]
    Zero,
    /// A size is not a multiple of what its lookup needs: 2 up to 16 bytes, 8 up to 1024,
    /// 128 above.
    #[error("size {bytes} is not a multiple of {multiple}")]
    NotMultiple {
        /// The size, in bytes.
        bytes: u32,
        /// What it has to be a multiple of.
        multiple: u32,
    },
    /// A size is above [`MAX_SMALL`](crate::MAX_SMALL).
    #[error("size {bytes} is above 32768")]
    TooLarge {
        /// The size, in bytes.
        bytes: u32,
    },
    /// A size is not larger than the one before it.
    #[error("size {bytes} comes after {before}: sizes must rise")]
    Unsorted {
        /// The size before, in bytes.
        before: u32,
        /// The size, in bytes.
        bytes: u32,
    },
    /// No span of at most [`MAX_SPAN_PAGES`](crate::MAX_SPAN_PAGES) pages wastes little enough.
    #[error("size {bytes} fits no span of at most 64 pages within the waste limit")]
    SpanTooLong {
        /// The size, in bytes.
        bytes: u32,
    },
    /// A span would hold more than [`MAX_SLOTS`](crate::MAX_SLOTS) objects.
    #[error("a span of size {bytes} has {slots} slots, more than 2048")]
    TooManySlots {
        /// The size, in bytes.
        bytes: u32,
        /// Objects of the span.
        slots: u32,
    },
    /// The division by multiplication is not proven exact over the whole span.
    #[error("dividing by {bytes} is not exact over a span of {pages} pages")]
    InexactDivision {
        /// The size, in bytes.
        bytes: u32,
        /// Pages of the span.
        pages: u32,
    },
    /// A parameter of the rule is outside of its documented bounds.
    #[error("{bound}")]
    BadRule {
        /// The parameter and its bounds, in words.
        bound: &'static str,
    },
}

impl ClassError {
    /// What a failed const evaluation prints: formatting numbers is not possible there.
    pub(crate) const fn message(&self) -> &'static str {
        match self {
            Self::Empty => "size classes: the list is empty",
            Self::TooMany => "size classes: more than 127 classes",
            Self::Zero => "size classes: a size is 0",
            Self::NotMultiple { multiple: 2, .. } => "size classes: a size is not a multiple of 2",
            Self::NotMultiple { multiple: 8, .. } => {
                "size classes: a size above 16 bytes is not a multiple of 8"
            }
            Self::NotMultiple { .. } => {
                "size classes: a size above 1024 bytes is not a multiple of 128"
            }
            Self::TooLarge { .. } => "size classes: a size is above 32768 bytes",
            Self::Unsorted { .. } => "size classes: a size is not larger than the one before it",
            Self::SpanTooLong { .. } => {
                "size classes: a size fits no span of at most 64 pages within the waste limit"
            }
            Self::TooManySlots { .. } => "size classes: a span has more than 2048 slots",
            Self::InexactDivision { .. } => {
                "size classes: dividing by a size is not exact over its whole span"
            }
            Self::BadRule { bound } => bound,
        }
    }
}
