//! The ten rules of the log by name (docs/concurrency.md), so that a test can switch one off and must then find a loss.

/// A rule of the log protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1: a session is registered before it looks at what exists.
    OpenBeforeRead,
    /// 2: nobody relies on a retired pack.
    SkipRetired,
    /// 3: just before its commit a writer re-checks that the packs it relies on are live.
    RevalidateCommit,
    /// 4: just before its commit a writer re-checks that its parent is committed and unforgotten.
    RevalidateParent,
    /// 5: what a fenced session appends is refused.
    FenceCheck,
    /// 6: a pruner re-checks its plan at the entry just before the retirement.
    RevalidateRetire,
    /// 7: retired objects are deleted only when every session opened before the retirement is over.
    WaitForSessions,
    /// 8: the entry that retires also closes the pruner's session.
    CloseBeforeWait,
    /// 9: a stored pack in no fragment is an orphan only if the session in its name is over.
    OrphanNeedsDeadSession,
    /// 10: an object's name ends in the session that wrote it.
    NamesCarrySession,
}

impl Rule {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 10] = [
        Self::OpenBeforeRead,
        Self::SkipRetired,
        Self::RevalidateCommit,
        Self::RevalidateParent,
        Self::FenceCheck,
        Self::RevalidateRetire,
        Self::WaitForSessions,
        Self::CloseBeforeWait,
        Self::OrphanNeedsDeadSession,
        Self::NamesCarrySession,
    ];

    /// As the documents and the model call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenBeforeRead => "open-before-read",
            Self::SkipRetired => "skip-retired",
            Self::RevalidateCommit => "revalidate-commit",
            Self::RevalidateParent => "revalidate-parent",
            Self::FenceCheck => "fence-check",
            Self::RevalidateRetire => "revalidate-retire",
            Self::WaitForSessions => "wait-for-sessions",
            Self::CloseBeforeWait => "close-before-wait",
            Self::OrphanNeedsDeadSession => "orphan-needs-dead-session",
            Self::NamesCarrySession => "names-carry-session",
        }
    }
}
