//! Every bound of the WebApp, with its reason and what happens at it.
//!
//! Bounds of HTTP itself (heads, bodies, times) are in `lapwing_net::limits`.

use std::time::Duration;

/// One question to a peer, where nothing longer is said. At the bound the page shows it as missing.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(5);
/// One question in the query language; the server is told half a second less.
pub(crate) const QUERY_TIME: Duration = Duration::from_secs(15);
/// Stopping or starting a server: as long as its drain may take.
pub(crate) const SUPERVISOR_TIME: Duration = Duration::from_secs(40);
/// Asking a server whether it lives, for a list: short, since the list waits for the slowest.
pub(crate) const STATUS_TIME: Duration = Duration::from_millis(1_500);

/// Rows of an answer on the page and in the API unless fewer are asked for.
pub(crate) const ROWS_MAX: u32 = 1_000;
/// MalOps in one list; the newest are kept. A list with evidence asks for each.
pub(crate) const MALOPS_MAX: u32 = 500;
/// Entries in one page of reputations or suspicions.
pub(crate) const PAGE_MAX: u32 = 1_000;
/// A comment, tag or reason, in bytes; more is refused.
pub(crate) const TEXT_BYTES_MAX: usize = 4_096;

/// Facts kept for sensors' pages, over all sensors: about 1 KiB each. The oldest leave.
pub(crate) const RECENT_FACTS_MAX: usize = 4_096;
/// Names of elements kept for facts that do not name theirs, over all sensors: some 3 MiB. The
/// oldest leave; a fact about them is told by the element's id.
pub(crate) const NAMES_MAX: usize = 16_384;
/// Facts shown on one sensor's page.
pub(crate) const SHOWN_FACTS_MAX: usize = 60;
/// Browsers that listen for events at once; one more is answered busy.
pub(crate) const LISTENERS_MAX: usize = 256;
/// How often sensor management is asked for changes while somebody listens, and while nobody does.
pub(crate) const SENSORS_POLL: Duration = Duration::from_millis(1_000);
/// See [`SENSORS_POLL`].
pub(crate) const SENSORS_POLL_IDLE: Duration = Duration::from_secs(10);
/// How long a long poll waits at the peer.
pub(crate) const LONG_POLL_MS: u32 = 15_000;
/// Pause after a peer failed to answer a poll.
pub(crate) const POLL_PAUSE: Duration = Duration::from_secs(1);
/// Events of one name are sent to a browser at most this often: a busy machine must not make a
/// page ask without end.
pub(crate) const EVENTS_GAP: Duration = Duration::from_millis(400);
/// Silence after which a browser is sent a comment, so that a dead connection is noticed.
pub(crate) const EVENTS_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A session ends this long after login ...
pub(crate) const SESSION_MS_MAX: u64 = 12 * 3_600_000;
/// ... or this long after its last request.
pub(crate) const SESSION_IDLE_MS_MAX: u64 = 30 * 60_000;
/// Sessions of one user; the oldest is ended by one more login.
pub(crate) const SESSIONS_PER_USER_MAX: usize = 16;
/// A session's last use is written down only when it moved by this much.
pub(crate) const SESSION_TOUCH_MS: u64 = 5 * 60_000;
/// Failed logins of one account, and from one address, within [`LOGIN_WINDOW_MS`].
pub(crate) const LOGIN_FAILURES_MAX: usize = 5;
/// See [`LOGIN_FAILURES_MAX`].
pub(crate) const LOGIN_WINDOW_MS: u64 = 15 * 60_000;
/// Accounts and addresses whose failures are remembered. At the bound those with the oldest
/// failure are forgotten: an attacker with that many addresses is bounded by the account.
pub(crate) const LOGIN_SOURCES_MAX: usize = 8_192;
/// Password hashes computed at once: 19 MiB and some 20 ms of a core each.
pub(crate) const HASHES_AT_ONCE: usize = 2;
/// Logins waiting for a hash; one more is answered busy.
pub(crate) const HASHES_WAITING_MAX: usize = 32;
/// The shortest password; there is no other rule.
pub(crate) const PASSWORD_CHARS_MIN: usize = 10;
/// The longest password, in bytes: hashing must not be fed megabytes.
pub(crate) const PASSWORD_BYTES_MAX: usize = 512;
/// A user's or token's name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Audit records in one answer.
pub(crate) const AUDIT_PAGE_MAX: usize = 1_000;
