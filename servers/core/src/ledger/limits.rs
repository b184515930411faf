//! Every bound of the ledger, with its reason.

/// Runs that an account keeps apart. A log that was never dropped from has one, each hole adds two;
/// with more the oldest are summed up by kind, which keeps every count and blurs positions. 64 of
/// them fit one stored value.
pub const RUNS_MAX: usize = 64;

/// Runs that a scan keeps apart of one log: a scan holds the logs of a whole journal, and 4,096 are
/// more holes than a spool can announce in a day.
pub const SCAN_RUNS_MAX: usize = 4_096;

/// Logs that are told apart in a lane; the oldest of more are summed up. A sensor without a spool
/// makes one at each start.
pub const LOGS_MAX: usize = 64;

/// Faults that a scan names. One each of the first bad logs is enough to know where to look.
pub const FAULTS_MAX: usize = 256;

/// Chains that a row of a scan tells, for other servers to compare: the newest segments' starts.
pub const ANCHORS_MAX: usize = 32;
