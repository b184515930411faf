//! Every bound of this crate, with what it costs, why it is this large, and what happens at it.
//!
//! Bounds of the wire are in `lapwing_protocol::limits`.

use std::time::Duration;

/// Bounds of one listener. Tests lower them; an operator changes some in `[server.limits]`.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Connections at once: the sensors of a whole server and some more. One more is closed before
    /// its handshake, counted and logged. As much memory as so many sensors' connections may hold
    /// ([`SENSOR_BYTES`]), 410 MiB, is what all connections of a process share: those of a plane
    /// whose connections hold more are fewer.
    pub connections_max: usize,
    /// Connections at once without a client certificate (enrol and HTTP), out of
    /// `connections_max`: strangers must not be able to take the places of sensors, nor more than
    /// a fifth of the memory. One more is closed after its handshake.
    pub anonymous_max: usize,
    /// Connections whose ClientHello is not here yet, or whose turn among `handshakes_max` has not
    /// come: at most 49 KiB each, 49 MiB. One more crowds out the oldest of the network that has
    /// most of them: an honest peer says its hello at once, who floods mostly does not.
    pub hellos_max: usize,
    /// Handshakes at once whose ClientHello is here: each may cost a millisecond of CPU and 40 KiB.
    /// More wait, as one of `hellos_max` and within `handshake_time`; networks get turns one after
    /// the other, and of one network the newest first.
    pub handshakes_max: usize,
    /// Handshakes at once from one network, so that no single one can fill `handshakes_max`. One
    /// more is closed.
    pub source_handshakes_max: usize,
    /// A whole handshake; then the connection is closed.
    pub handshake_time: Duration,
    /// Bytes of a peer's handshake. The last read of it may go on into what follows, for which
    /// [`HANDSHAKE_OVERREAD_BYTES`] are granted; one more byte closes the connection.
    pub handshake_bytes_max: u64,
    /// New connections a second from one network (/24 of IPv4, /64 of IPv6), on average; above it
    /// and the burst they are closed before the handshake.
    pub source_rate_per_s: u32,
    /// New connections at a stroke from one network: an office behind one address, all restarting
    /// at once.
    pub source_burst: u32,
    /// Whether this machine's own loopback counts as a network with those bounds.
    pub loopback: LoopbackSources,
    /// After shutdown begins: how long connections may take to end by themselves before they are
    /// cut.
    pub drain_time: Duration,
}

/// How connections from the loopback address are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopbackSources {
    /// They are exempt from the bounds by network: a proxy, or all of `lapwing up`, stands behind
    /// that address.
    Exempt,
    /// They are bounded like any network.
    Bounded,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_500,
            anonymous_max: 500,
            hellos_max: 1_024,
            handshakes_max: 256,
            source_handshakes_max: 128,
            handshake_time: Duration::from_secs(5),
            handshake_bytes_max: 16 * 1024,
            source_rate_per_s: 100,
            source_burst: 1_000,
            loopback: LoopbackSources::Exempt,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// What a connection of the sensor plane may hold: 17 KiB for the largest frame, as much in the
/// TLS library for a record that is not whole, some KiB of TLS and of the session.
pub const SENSOR_BYTES: usize = 40 * 1024;
/// What one of the enrol plane may hold: frames of 4 KiB, and a TLS record that is not whole.
pub const ENROL_BYTES: usize = 40 * 1024;
/// What one of the peer plane is counted for: a frame of 64 KiB each way. Its peers are servers of
/// the deployment; frames that wait to be written to one ([`SEND_FRAMES_MAX`]) come on top.
pub const PEER_BYTES: usize = 160 * 1024;
/// What one of HTTP may hold beside its requests: windows of [`HTTP_WINDOW_BYTES`] both ways, and
/// buffers.
pub const HTTP_BYTES: usize = 160 * 1024;

/// What the last read of a handshake may hold beyond it: the TLS library reads on until a record is
/// whole, and a client may send its first full record (16 KiB and some) in one breath with the end
/// of its handshake.
pub const HANDSHAKE_OVERREAD_BYTES: u64 = 2 * (16_384 + 256 + 5);

/// Connections that the kernel keeps until they are accepted: half a second of two thousand a
/// second. Of one more the first packet is dropped, and its peer asks again a second later.
pub(crate) const BACKLOG_MAX: i32 = 1_024;
/// Connections accepted at a stroke, each a few microseconds; then others get their turn.
pub(crate) const ACCEPTS_MAX: usize = 64;
/// By how much the thread that does handshakes is nicer than those that serve: where a processor is
/// short it gets a third of what one of them gets.
#[cfg(target_os = "linux")]
pub(crate) const DOOR_NICE: i32 = 5;

/// Networks whose rate is remembered: 4,096 x about 64 bytes. At the bound those that are idle are
/// forgotten; when none is idle, new networks share one bucket, so an attacker with many addresses
/// slows only newcomers.
pub const SOURCES_MAX: usize = 4_096;

/// Log lines about misbehaving peers in each period of [`COMPLAINT_PERIOD`]; the rest are counted
/// and summed up.
pub const COMPLAINTS_MAX: u32 = 20;
/// See [`COMPLAINTS_MAX`].
pub const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// Bytes of one HTTP request's head.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of one HTTP request's body; more is answered 413.
pub const HTTP_BODY_BYTES_MAX: usize = 1 << 20;
/// From a request's first byte to the end of its head.
pub const HTTP_HEAD_TIME: Duration = Duration::from_secs(10);
/// From the end of a request's head to the head of its answer; then 504. Longer than any long poll.
pub const HTTP_ANSWER_TIME: Duration = Duration::from_secs(60);
/// One whole request body.
pub const HTTP_BODY_TIME: Duration = Duration::from_secs(30);
/// Streams at once on one h2 connection.
pub const HTTP_STREAMS_MAX: u32 = 64;
/// What one connection's client may send ahead of its routes, and what an answer may be ahead of
/// its client, a stream: enough to be quick.
pub const HTTP_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes that all requests under way hold, each the largest head and what came of its body: 4,096
/// of them, or 64 with the largest bodies. One more, or a byte more of a body, is answered 503.
pub const HTTP_HELD_BYTES_MAX: usize = 64 << 20;
/// The same of one connection, so that no single one can hold all of it: 64 requests without a
/// body, and one with the largest.
pub const HTTP_CONNECTION_BYTES_MAX: usize = 2 << 20;
/// How long a client is told to wait when it was answered 503 for others' bytes, in seconds.
pub const HTTP_RETRY_AFTER_S: u32 = 2;
/// Bytes of one answer that our own HTTP client takes: an events export streams, all else is far
/// smaller.
pub const HTTP_ANSWER_BYTES_MAX: usize = 256 << 20;

/// Frames waiting to be written on one peer connection, at most 64 KiB each; a reply then waits for
/// room.
pub const SEND_FRAMES_MAX: usize = 16;
/// How long a peer may leave our bytes unread, on any plane, before its connection is closed.
pub const WRITE_STALL_TIME: Duration = Duration::from_secs(30);
/// A whole connection of the enrol plane: one call, waited for by someone without an identity.
pub const ENROL_TIME: Duration = Duration::from_secs(60);
/// How long the calls under way on a peer connection may still take when the server shuts down.
/// Calls can be made again, so none is worth a slow restart.
pub const PEER_DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long a peer may take to hear why its connection ends.
pub const PARTING_TIME: Duration = Duration::from_secs(1);
/// How long HTTP answers may still take when the server shuts down; an event stream never ends by
/// itself.
pub const HTTP_DRAIN_TIME: Duration = Duration::from_secs(2);
/// A begun frame must be whole after this long: a peer that drips is closed.
pub const FRAME_TIME: Duration = Duration::from_secs(30);
/// Calls that one [`crate::peer::PeerClient`] lets wait for a connection; one more fails at once.
pub const CALLS_WAITING_MAX: usize = 1_024;
/// The first, and the longest, mean wait between two attempts to connect.
pub const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// See [`RECONNECT_MIN`]. Servers call each other: a restarted one should be found again soon.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// One attempt to connect, handshake included.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
