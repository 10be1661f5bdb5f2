//! What a run reports.

use serde::{Deserialize, Serialize};

use crate::Choice;
use crate::answers::Answer;
use crate::corpus::Skipped;
use crate::heap_view::HeapView;

/// One run: what was done, how long it took and what it needed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) allocator: Choice,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
    pub(crate) words: u64,
    pub(crate) distinct: u64,
    pub(crate) skipped: Skipped,
    /// Digest of the paths and the text.
    pub(crate) text_digest: u64,
    pub(crate) phases: Vec<Phase>,
    pub(crate) memory: Memory,
    pub(crate) answers: Vec<Answer>,
    /// Questions asked in bulk.
    pub(crate) questions: u64,
    /// Digest of the answers to them.
    pub(crate) digest: u64,
    pub(crate) heap: Heap,
}

/// A part of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// What happens in it.
    pub(crate) what: String,
    pub(crate) seconds: f64,
}

/// Resident bytes of the process; None where the system does not tell.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The most at any time.
    pub(crate) peak: Option<u64>,
    /// While the index was alive.
    pub(crate) indexed: Option<u64>,
    /// After it was dropped.
    pub(crate) dropped: Option<u64>,
}

/// spanalloc's heap in the course of a run; empty in a process on another allocator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Heap {
    /// Objects before the run began.
    pub(crate) objects_at_start: usize,
    pub(crate) before_drop: HeapView,
    pub(crate) after_drop: HeapView,
}

impl Outcome {
    pub(crate) fn total_seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }
}
