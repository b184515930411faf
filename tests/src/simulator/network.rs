//! Connections between sensors and servers: bytes with a delay, in order, until they are cut.
//!
//! Invariant: what arrives is a prefix of what was sent, and the end comes last. (A lost or
//! repeated Ack is made at the server's edge, before its bytes are sent.)

use std::collections::VecDeque;

use super::skew::Skew;

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Bytes(Vec<u8>),
    /// The other end closed.
    Close,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    packets: VecDeque<(u64, Packet)>,
    last_arrival_ns: u64,
}

impl Pipe {
    /// Sends, to arrive `delay_ns` from `now_ns`, never before what was sent earlier.
    pub(crate) fn send(&mut self, now_ns: u64, delay_ns: u64, packet: Packet) {
        self.last_arrival_ns = self.last_arrival_ns.max(now_ns + delay_ns);
        self.packets.push_back((self.last_arrival_ns, packet));
    }

    /// Everything on its way comes later by `delay_ns`.
    pub(crate) fn delay(&mut self, delay_ns: u64) {
        self.packets.iter_mut().for_each(|(at_ns, _)| *at_ns += delay_ns);
        self.last_arrival_ns += delay_ns;
    }

    /// When the next packet arrives.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.packets.front().map(|(at_ns, _)| *at_ns)
    }

    /// The packet that arrives at `now_ns`.
    pub(crate) fn arrive(&mut self, now_ns: u64) -> Option<Packet> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.packets.pop_front().map(|(_, packet)| packet)
    }

    /// Cuts at byte `at` of what is on its way; answers with what still arrives.
    pub(crate) fn cut(&mut self, at: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (_, packet) in self.packets.drain(..) {
            if let Packet::Bytes(more) = packet {
                bytes.extend_from_slice(&more);
            }
        }
        bytes.truncate(at);
        bytes
    }

    /// Bytes on their way.
    pub(crate) fn in_flight(&self) -> usize {
        let bytes = |packet: &Packet| match packet {
            Packet::Bytes(bytes) => bytes.len(),
            Packet::Close => 0,
        };
        self.packets.iter().map(|(_, packet)| bytes(packet)).sum()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The sensor's machine.
    pub(crate) machine: usize,
    /// The server.
    pub(crate) server: usize,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// Nothing arrives any more, and neither end knows.
    pub(crate) is_silent: bool,
    /// The sensor's end is open.
    pub(crate) has_sensor: bool,
    /// The server's end is open.
    pub(crate) has_server: bool,
    /// The sensor speaks as another version would.
    pub(crate) skew: Option<Skew>,
}

impl Link {
    pub(crate) fn new(machine: usize, server: usize) -> Self {
        Self {
            machine,
            server,
            up: Pipe::default(),
            down: Pipe::default(),
            is_silent: false,
            has_sensor: true,
            has_server: true,
            skew: None,
        }
    }

    /// When something arrives next.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let up = self.up.next_ns().filter(|_| self.has_server);
        let down = self.down.next_ns().filter(|_| self.has_sensor);
        up.into_iter().chain(down).min().filter(|_| !self.is_silent)
    }
}
