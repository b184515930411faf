//! Every bound of the MalOp service itself, with its reason. Those of what it keeps are in
//! `lapwing_server_core::malop::limits`.

use std::time::Duration;

use lapwing_protocol::limits::FEED_WAIT_MS_MAX;

/// Evidences asked for at a time: a page is decoded and stored as a whole, in about 10 ms.
pub(crate) const PAGE_EVIDENCES: u32 = 128;
/// How long a Detection server holds a question for evidence of which it has none.
pub(crate) const WAIT_MS: u32 = FEED_WAIT_MS_MAX;
/// How long such an answer may take.
pub(crate) const WAIT_TIME: Duration = Duration::from_secs(30);
/// How long other answers may take.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(5);
/// The pause after a failure. The client spreads its attempts to connect by itself.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
/// The pause after an empty answer that came at once: who does not hold a question must not be
/// asked without end.
pub(crate) const EMPTY_PAUSE: Duration = Duration::from_millis(50);
/// How long an address stands back whose server is read at another address already.
pub(crate) const STAND_BACK: Duration = Duration::from_secs(5);
/// How often Registration is asked which servers there are: an added one is found this soon.
pub(crate) const DIRECTORY_EVERY: Duration = Duration::from_secs(2);
/// Detection servers that are followed: each costs a connection and two tasks. Further ones are not
/// followed, and the status says so.
pub(crate) const SERVERS_MAX: usize = 1_024;

/// Bytes of a list in an answer, exceeded by one item at the most: half of what a reply may have.
/// MalOps, suspicions and changes beyond are in the next page, or left out where there is none.
pub(crate) const LIST_BYTES: usize = 4 << 20;
/// How long a reader waits for what it would see to be durable; then the store is stuck.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Runs of ids forgotten with each page: more than a page adds.
pub(crate) const FORGET_RUNS: usize = 2;
