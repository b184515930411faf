//! The bounds of the runner, each with its reason.

use std::time::Duration;

/// Facts taken from the collectors' queue before anything else is looked at: a few milliseconds of
/// work, so that an acknowledgement or a signal is never kept waiting long.
pub(crate) const FACTS_AT_ONCE: usize = 256;
/// Facts of an agent's own that may wait for the runner. Full: the agent's `send` waits.
pub(crate) const OWN_FACTS_WAITING_MAX: usize = 1_024;
/// Facts of an agent's own of which it waits for the storing. Full: no more of them are taken until
/// some are stored.
pub(crate) const RECEIPTS_MAX: usize = 65_536;
/// Between two writings of the status file when only its numbers change.
pub(crate) const STATUS_PERIOD_MS: u64 = 1_000;
/// After an acknowledgement, before its place is written: at most once in this time.
pub(crate) const PROGRESS_PERIOD_MS: u64 = 1_000;
/// Before something that the disk refused is tried again.
pub(crate) const DISK_RETRY_MS: u64 = 5_000;
/// Between two looks after the collectors' threads: one that keeps ending is started no more often.
pub(crate) const TEND_PERIOD_MS: u64 = 10_000;
/// Between two findings of loss: a full spool loses something with every chunk.
pub(crate) const LOSS_TOLD_MS: u64 = 60_000;
/// Before an enrolment that failed is tried again, at first ...
pub(crate) const ENROL_RETRY_FIRST: Duration = Duration::from_secs(1);
/// ... and at the most.
pub(crate) const ENROL_RETRY_MAX: Duration = Duration::from_secs(30);
/// Bytes of what an outcome or a finding says to a person; the rest is cut.
pub(crate) const DETAIL_BYTES_MAX: usize = 512;
/// A day of the spool's age, in milliseconds.
pub(crate) const DAY_MS: u64 = 86_400_000;
