//! What a sensor wants its shell to do, or to know.

use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Command, CommandNumber};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::registration::AssignReason;

use crate::error::CloseReason;
use crate::position::Position;

/// Which Detection server to dial. The shell keeps the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialTarget {
    /// The one that Registration assigned.
    Assigned(ServerId),
    /// The one named in the installation package.
    Package,
}

/// What is looked for in the shell's spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// The place behind this chunk.
    Behind(u64),
    /// The place before the first chunk of the segment that holds this chunk; where none does (it
    /// was trimmed, or lay in a hole), of the first segment behind it.
    SegmentOf(u64),
}

/// One thing for the shell. Each says what the shell answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// Ask Registration (method ASSIGN); answer with `handle_assigned` or `handle_ask_failed`.
    AskRegistration {
        /// Why.
        reason: AssignReason,
        /// The server there was trouble with.
        trouble_with: Option<ServerId>,
    },
    /// Dial; answer with `handle_connected` or `handle_dial_failed`.
    DialDetection(DialTarget),
    /// Close the connection; answer with `handle_disconnected`.
    Close(CloseReason),
    /// The server greeted back.
    Greeted {
        /// Which server it is.
        server: ServerId,
        /// Its wall clock, milliseconds since 1970.
        server_ms: u64,
    },
    /// The server stored more. The shell makes the place durable at leisure and may drop segments
    /// that end at or before `safe_seq`, all but the last one; then it calls `handle_trimmed`.
    Acked {
        /// Which lane.
        lane: Lane,
        /// Which log.
        log: LogId,
        /// Which server.
        server: ServerId,
        /// The place behind what is stored.
        acked: Position,
        /// The highest chunk that is also in the server's backup.
        safe_seq: u64,
    },
    /// Read a chunk; answer with `handle_fetched`, or with `handle_hole` when it is not there.
    Fetch {
        /// Which lane.
        lane: Lane,
        /// Which log.
        log: LogId,
        /// Which chunk.
        seq: u64,
    },
    /// Look something up in the spool; answer with `handle_located`.
    Locate {
        /// Which lane.
        lane: Lane,
        /// Which log.
        log: LogId,
        /// What.
        find: Find,
    },
    /// Open a new log for this lane; answer with `handle_open_log`.
    OpenLog {
        /// Which lane.
        lane: Lane,
        /// Why.
        cause: LogCause,
        /// The log it continues.
        parent: LogParent,
    },
    /// An old log is all stored, or given up; answer with `handle_tail`. Said again, for the same
    /// log, when the session was lost before the answer.
    LogDrained {
        /// Which lane.
        lane: Lane,
        /// Which log.
        log: LogId,
    },
    /// Make this number durable as the last accepted one; answer with `handle_accepted`.
    AcceptCommand(CommandNumber),
    /// Do it; answer with `handle_outcome`.
    ExecuteCommand(Command),
    /// The server asks; answer with a frame from `encode_reply`.
    Call {
        /// The call's number.
        call: u32,
        /// What it asks.
        method: Method,
        /// The request message.
        body: &'e [u8],
    },
    /// The server answers a call of the shell's own (`encode_call`).
    Reply {
        /// The call's number.
        call: u32,
        /// Whether another part follows.
        more: bool,
        /// [`Code::OK`], or what went wrong.
        code: Code,
        /// The reply message or a part of it.
        body: &'e [u8],
    },
}

/// A chunk for the spool, to be appended before anything of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool<'s> {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// Which chunk.
    pub seq: u64,
    /// Whether decoding may begin with it. In the bulk lane it opens a segment and a new file
    /// begins with it; in the urgent lane every chunk may, and files begin as the shell likes.
    pub opens_segment: bool,
    /// The chunk.
    pub bytes: &'s [u8],
    /// The chain after it.
    pub chain_after: Chain,
    /// The index the fact behind it has.
    pub next_index: u64,
}
