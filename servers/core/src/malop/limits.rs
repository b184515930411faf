//! Every bound of the MalOps, with its reason and what happens at it.

/// Bounds of what is held in memory and in the store. An operator changes the first two; tests
/// lower all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalOpLimits {
    /// MalOps: at 2 KiB each, 40 MB of memory. One more removes another one: of those that are
    /// closed or remediated the one that changed longest ago; where there is none, of the open ones
    /// the least severe that changed longest ago; excluded ones last, since they hold a decision of
    /// a person. Removals are counted.
    pub malops_max: usize,
    /// Causes under suspicion that are no MalOp: 20 MB of memory. One more removes the one that
    /// changed longest ago. Removals are counted.
    pub suspicious_causes_max: usize,
    /// Evidences of one MalOp or cause that are kept whole, the newest: 64 of at most 64 KiB fit a
    /// reply, and nobody reads more. The count goes on.
    pub evidence_kept_max: usize,
    /// Machines, and users, that one MalOp lists: a MalOp on more is everywhere. Evidence of
    /// further ones is counted and not listed.
    pub affected_max: usize,
    /// Evidences whose id is remembered so that a repeat is told: what four Detection servers keep
    /// in their feeds, 400 MB of disk. One more forgets the oldest, which those feeds no longer
    /// have either; were it told again, it would count again.
    pub identities_max: u64,
}

impl Default for MalOpLimits {
    fn default() -> Self {
        Self {
            malops_max: 20_000,
            suspicious_causes_max: 10_000,
            evidence_kept_max: 64,
            affected_max: 128,
            identities_max: 4_000_000,
        }
    }
}

/// ATT&CK techniques of one MalOp; further ones are not listed. No behaviour has more.
pub const TECHNIQUES_MAX: usize = 64;
/// The longest technique, in bytes: `T1071.004` and room for other catalogues. Longer ones are cut.
pub const TECHNIQUE_BYTES_MAX: usize = 32;
/// A title or root cause as a MalOp shows it, in bytes: a page's width many times over. Longer ones
/// are cut and end in `...`; ids are made of the whole.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// The bytes of one kept evidence. A larger one is kept without its features and processes, which
/// its Detection server still has.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Comments of one MalOp: a discussion longer than this belongs elsewhere. One more is refused.
pub const COMMENTS_MAX: u32 = 200;
/// A comment, in bytes; a longer one is refused.
pub const COMMENT_BYTES_MAX: usize = 4_096;

/// Bytes of one stored part: below the store's bound for a value.
pub const PART_BYTES_MAX: usize = 4_000;

/// A batch of rows is full with so many rows: half of what the store takes, and the last evidence
/// may add a thousand.
pub const BATCH_ROWS: usize = 4_000;
/// See [`BATCH_ROWS`]: bytes of evidence, a quarter of what the store takes.
pub const BATCH_BYTES: usize = 1 << 20;
/// See [`BATCH_ROWS`]: MalOps, each at most 90 KiB when it lists all that it may.
pub const BATCH_GROUPS: usize = 16;
/// Ids forgotten in one batch.
pub const FORGOTTEN_PER_BATCH: u64 = 128;
