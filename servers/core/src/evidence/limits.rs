//! Every bound of an evidence, with its reason.

/// The process concerned and its parents, at the most: deeper chains are shells in shells, and the
/// graph still has them.
pub const CHAIN_MAX: usize = 16;

/// Text of one feature of the element and of its process, in bytes. Longer text is cut and ends in
/// `...`; the whole is in the graph and in the journal.
pub const TEXT_BYTES_MAX: usize = 2_048;

/// Text of one feature of a parent, in bytes: sixteen of them must not make an evidence of 64 KiB.
pub const PARENT_TEXT_BYTES_MAX: usize = 256;

/// What is judged but not yet told, at the most per poll loop: 64 bytes each, 6 MB. What is beyond
/// is counted, and the position of its change is judged again after a restart.
pub const PENDING_MAX: usize = 100_000;
