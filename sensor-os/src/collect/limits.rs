//! The bounds of the collectors, each with its reason and what happens at it.

use std::time::Duration;

/// Facts that may wait for the runner. At about 300 bytes each this is 2.5 MiB, some seconds of a
/// machine that builds software. Beyond it the newest fact is refused and counted, and its
/// collector tells all its rows again at its next scan, and rows that are not among them end, so
/// that state heals; an event is lost, and counted.
pub(crate) const FACTS_WAITING_MAX: usize = 8_192;

/// Bytes of a command line: with the paths below, a process row stays within the wire's row. What
/// is longer is cut and marked as truncated.
pub(crate) const COMMAND_LINE_BYTES_MAX: usize = 3_072;
/// Bytes of a path or name, for the same reason and with the same rule.
pub(crate) const PATH_BYTES_MAX: usize = 1_024;
/// Bytes of a name that is part of a natural key: the wire bounds the whole key.
pub(crate) const KEY_TEXT_BYTES_MAX: usize = 255;

/// Processes known at once. The wire's table holds 65,536 rows of all kinds; beyond this bound a
/// new process is not followed, and is counted as refused.
pub(crate) const PROCESSES_MAX: usize = 32_768;
/// Connections known at once; beyond it a new one is not followed, and is counted as refused.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Programs opened by one process that may wait for their exec; beyond it the oldest is forgotten.
pub(crate) const OPENS_PER_PROCESS_MAX: usize = 16;
/// Processes whose opens may wait; beyond it all waiting opens older than their patience are
/// forgotten, and if none is, the new one is not kept and its image is read from `/proc` instead.
pub(crate) const OPENING_PROCESSES_MAX: usize = 4_096;

/// Command lines of one process that may wait for their exec; beyond it the oldest is forgotten.
pub(crate) const ARGUMENTS_PER_PROCESS_MAX: usize = 8;

/// Programs that may wait, open, to be hashed: one descriptor each. Beyond it a program is hashed
/// through its process, and its hash is not seen if that ends first.
pub(crate) const OPEN_PROGRAMS_MAX: usize = 256;
/// Hashes remembered; the least recently used goes first.
pub(crate) const HASHES_MAX: usize = 4_096;
/// Largest program that is hashed, about two seconds of one core. A larger one's hash is shown as
/// not seen.
pub(crate) const HASHED_BYTES_MAX: u64 = 1 << 30;

/// Folders watched, those below the configured ones included: a mark each, about 1 KiB of kernel
/// memory. Beyond it the deeper folders are not watched, and health says so.
pub(crate) const FOLDERS_MAX: usize = 8_192;
/// Services followed; beyond it the rest is left out, and health says so.
pub(crate) const SERVICES_MAX: usize = 4_096;
/// Accounts followed; beyond it the rest is left out, and health says so.
pub(crate) const USERS_MAX: usize = 8_192;
/// Bytes of one file of `/proc`, `/etc` or a unit that are read; the rest is not.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Names in one answer's chain that are followed, and addresses that are kept of it.
pub(crate) const ANSWERS_MAX: usize = 32;
/// Descriptors looked through in one search for the owners of sockets: about 40 ms. Beyond it the
/// search ends and owners are shown as not seen.
pub(crate) const DESCRIPTORS_SEARCHED_MAX: usize = 20_000;

/// How long a fork waits for an exec before it is told of as a copy of its parent.
pub(crate) const EXEC_PATIENCE: Duration = Duration::from_millis(20);
/// How long a new program waits for its hash before it is told of without.
pub(crate) const HASH_PATIENCE: Duration = Duration::from_millis(40);
/// How long an ended process waits for its hash before its end is told.
pub(crate) const ENDED_HASH_PATIENCE: Duration = Duration::from_secs(5);
/// One read of a program that takes longer than this does not answer: its filesystem is then left
/// alone for [`UNREADABLE_PERIOD`], and its programs' hashes are shown as not seen.
pub(crate) const HASH_STALL: Duration = Duration::from_secs(10);
/// See [`HASH_STALL`].
pub(crate) const UNREADABLE_PERIOD: Duration = Duration::from_secs(600);
/// Filesystems that did not answer; beyond it the one that was found first is tried again, and each
/// try may cost a thread that never ends.
pub(crate) const UNREADABLE_MAX: usize = 16;
/// Events of one kind that are handled at one go: about what the kernel's queues hold. What is left
/// is read next, after a look at whether to stop.
pub(crate) const EVENTS_AT_ONCE: usize = 16_384;
/// How long an opened program waits for its exec before the open is taken for a failed one.
pub(crate) const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long an ended process can still be named as the owner of a connection or a file event.
pub(crate) const REMEMBERED_AFTER_END: Duration = Duration::from_secs(30);

/// Between two scans of what is also told by events.
pub(crate) const SCAN_PERIOD: Duration = Duration::from_secs(60);
/// Between two looks at `/proc` where nothing tells of processes.
pub(crate) const PROCESS_POLL_PERIOD: Duration = Duration::from_millis(200);
/// Between two dumps of the socket table where sockets change, and where they do not.
pub(crate) const SOCKET_POLL_PERIOD: Duration = Duration::from_millis(500);
/// See [`SOCKET_POLL_PERIOD`].
pub(crate) const SOCKET_POLL_PERIOD_QUIET: Duration = Duration::from_secs(2);
/// Between two searches for the owners of sockets through all processes.
pub(crate) const OWNER_SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at services and accounts whose sources say they may have changed.
pub(crate) const INVENTORY_PERIOD: Duration = Duration::from_secs(2);
