//! The table of connections: what the tracer, the dumps and the notices of the kernel come to.
//!
//! Pure: `now_ns` is an argument, nothing is read. With the tracer every TCP connection is told of
//! by its own changes of state, and a dump only reconciles. Without it dumps find the connections,
//! and a socket that is destroyed or waits out its time tells of one that lived between two dumps.
//!
//! Invariants: a connection is told once and ended once; a connection that is not told has not
//! ended; an owner is what the kernel named or what holds the socket's inode, never a guess.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::limits::CONNECTIONS_MAX;
use crate::sys::bpf::SocketChange;
use crate::sys::sock_diag::{SocketRow, Transport};

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECEIVED: u8 = 3;
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const LISTENING: u8 = 10;
const NEW_SYN_RECEIVED: u8 = 12;

/// How long an attempt without an answer waits before a dump is to tell its local port.
const ATTEMPT_PATIENCE_NS: u64 = 50_000_000;
/// Dumps that look for the local port of an attempt, before its own end is waited for.
const ATTEMPT_DUMPS_MAX: u8 = 2;
/// No attempt takes longer by the kernel's own bounds; one that seems to has had its end lost.
const ATTEMPT_NS_MAX: u64 = 600_000_000_000;
/// How long a connection waits for its owner to be searched for before it is told of without.
const OWNER_PATIENCE_NS: u64 = 1_500_000_000;
/// How long the kernel shows a socket that waits out its time, and a little more.
const TIME_WAIT_NS: u64 = 70_000_000_000;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ends {
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A process of this machine.
    Outbound,
    /// The other side, to a port that listens here.
    Inbound,
}

/// Which process owns a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The process with this number.
    Process(u32),
    /// To be searched for by the socket's inode.
    Holder(u32),
    /// It could not be found.
    Unseen,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) ends: Ends,
    pub(crate) first_seen_ns: u64,
    pub(crate) direction: Direction,
    pub(crate) owner: Owner,
    /// User number of the owner.
    pub(crate) user: Option<u32>,
    /// `established`, `syn_sent`, `failed` or, of UDP, `connected`.
    pub(crate) state: &'static str,
    told: bool,
}

/// What is to be made of a socket that a dump shows waiting out its time, and nobody told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lingering {
    /// It lived between two dumps: tell of it.
    Tell,
    /// It ended before collection began, or the tracer told of it: remember that, no more.
    Remember,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// The connection is so.
    Is(Connection),
    /// It is no more. Bytes sent and received, where known.
    Ended(Connection, u64, Option<(u64, u64)>),
}

/// An attempt that has no local port yet.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    pid: u32,
    user: u32,
    remote: SocketAddr,
    began_ns: u64,
    ends: Option<Ends>,
    /// Dumps that did not show it.
    dumps: u8,
}

impl Attempt {
    /// Whether a dump may still show its local port.
    fn is_searched(&self) -> bool {
        self.ends.is_none() && self.dumps < ATTEMPT_DUMPS_MAX
    }
}

#[derive(Clone, Copy, Debug)]
struct Listener {
    owner: Owner,
    user: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SocketTable {
    open: BTreeMap<Ends, Connection>,
    /// The tracer's names of sockets.
    attempts: BTreeMap<u64, Attempt>,
    named: BTreeMap<u64, Ends>,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// Told of already, and shown by the kernel until it has waited out its time.
    lingering: BTreeMap<Ends, u64>,
    changes: VecDeque<ConnectionChange>,
    not_followed: u64,
}

impl SocketTable {
    /// The tracer saw a socket change its state.
    pub(crate) fn handle_change(&mut self, change: &SocketChange) {
        match change.new_state {
            LISTENING => {
                let listener = Listener { owner: Owner::Process(change.pid), user: change.user };
                self.listeners.insert(change.local, listener);
            }
            SYN_SENT => {
                // The kernel uses a socket's address again: what had it before is over.
                self.named.remove(&change.socket);
                let attempt = Attempt {
                    pid: change.pid,
                    user: change.user,
                    remote: change.remote,
                    began_ns: change.time_ns,
                    ends: None,
                    dumps: 0,
                };
                if self.attempts.len() < CONNECTIONS_MAX {
                    self.attempts.insert(change.socket, attempt);
                } else {
                    self.not_followed += 1;
                }
            }
            ESTABLISHED => self.established(change),
            CLOSED if change.old_state == LISTENING => {
                self.listeners.remove(&change.local);
            }
            CLOSED => self.closed(change),
            _ => {}
        }
    }

    fn established(&mut self, change: &SocketChange) {
        let ends = ends_of(change);
        let attempt = self.attempts.remove(&change.socket);
        if let Some(told) = attempt.and_then(|attempt| attempt.ends) {
            // A dump told of the attempt; now it is answered.
            if let Some(connection) = self.open.get_mut(&told) {
                connection.state = "established";
                self.changes.push_back(ConnectionChange::Is(*connection));
            }
            self.named.insert(change.socket, told);
            return;
        }
        let connection = match attempt {
            Some(attempt) => Connection {
                ends,
                first_seen_ns: attempt.began_ns,
                direction: Direction::Outbound,
                owner: Owner::Process(attempt.pid),
                user: Some(attempt.user),
                state: "established",
                told: false,
            },
            None if change.old_state == SYN_RECEIVED => {
                let listener = self.listener(ends.local);
                Connection {
                    ends,
                    first_seen_ns: change.time_ns,
                    direction: Direction::Inbound,
                    owner: listener.map_or(Owner::Unseen, |listener| listener.owner),
                    user: listener.map(|listener| listener.user),
                    state: "established",
                    told: false,
                }
            }
            None => return,
        };
        if self.insert(change.time_ns, connection) {
            self.named.insert(change.socket, ends);
            self.tell_owned(change.time_ns);
        }
    }

    fn closed(&mut self, change: &SocketChange) {
        let bytes = Some((change.bytes_sent, change.bytes_received));
        if let Some(ends) = self.named.remove(&change.socket) {
            return self.end(change.time_ns, ends, bytes);
        }
        let Some(attempt) = self.attempts.remove(&change.socket) else {
            return self.end(change.time_ns, ends_of(change), bytes);
        };
        if let Some(ends) = attempt.ends {
            return self.end(change.time_ns, ends, bytes);
        }
        let failed = Connection {
            ends: Ends { remote: attempt.remote, ..ends_of(change) },
            first_seen_ns: attempt.began_ns,
            direction: Direction::Outbound,
            owner: Owner::Process(attempt.pid),
            user: Some(attempt.user),
            state: "failed",
            told: false,
        };
        if self.insert(change.time_ns, failed) {
            self.end(change.time_ns, failed.ends, bytes);
        }
    }

    /// A whole dump of `transport` that began at `began_ns` showed `rows`.
    pub(crate) fn handle_dump(
        &mut self,
        transport: Transport,
        now_ns: u64,
        began_ns: u64,
        rows: &[SocketRow],
        lingering: Lingering,
    ) {
        if transport == Transport::Tcp {
            self.show_listeners(rows);
        }
        let mut shown = BTreeSet::new();
        for row in rows.iter().filter(|row| row.remote.port() != 0) {
            let ends = Ends { transport, local: row.local, remote: row.remote };
            shown.insert(ends);
            self.show(now_ns, ends, row, lingering);
        }
        if transport == Transport::Tcp {
            self.attempts.retain(|_, attempt| {
                let searched = attempt.ends.is_none() && attempt.began_ns < began_ns;
                attempt.dumps = attempt.dumps.saturating_add(u8::from(searched));
                now_ns.saturating_sub(attempt.began_ns) < ATTEMPT_NS_MAX
            });
        }
        self.lingering.retain(|_, until_ns| *until_ns > now_ns);
        let gone: Vec<Ends> = self
            .open
            .values()
            .filter(|known| known.ends.transport == transport)
            .filter(|known| known.first_seen_ns < began_ns && !shown.contains(&known.ends))
            .map(|known| known.ends)
            .collect();
        gone.into_iter().for_each(|ends| self.end(now_ns, ends, None));
        self.named.retain(|_, ends| self.open.contains_key(ends));
    }

    fn show_listeners(&mut self, rows: &[SocketRow]) {
        for row in rows.iter().filter(|row| row.state == LISTENING) {
            let listener = Listener { owner: Owner::Holder(row.inode), user: row.user };
            let known = self.listeners.entry(row.local).or_insert(listener);
            if known.owner == Owner::Unseen {
                *known = listener;
            }
        }
        let listening: BTreeSet<SocketAddr> =
            rows.iter().filter(|row| row.state == LISTENING).map(|row| row.local).collect();
        self.listeners.retain(|local, _| listening.contains(local));
    }

    fn show(&mut self, now_ns: u64, ends: Ends, row: &SocketRow, lingering: Lingering) {
        let lived_between = match row.state {
            LISTENING | CLOSED | SYN_RECEIVED | NEW_SYN_RECEIVED => return,
            TIME_WAIT => true,
            _ => false,
        };
        if lived_between {
            if self.open.contains_key(&ends) {
                self.end(now_ns, ends, None);
            } else if lingering == Lingering::Tell && !self.lingering.contains_key(&ends) {
                let connection = self.found(now_ns, ends, row);
                if self.insert(now_ns, Connection { owner: Owner::Unseen, ..connection }) {
                    self.end(now_ns, ends, None);
                }
            }
            self.linger(now_ns, ends);
            return;
        }
        if self.open.contains_key(&ends) {
            return;
        }
        let mut connection = self.found(now_ns, ends, row);
        let attempt = self
            .attempts
            .values_mut()
            .filter(|_| row.state == SYN_SENT)
            .find(|attempt| attempt.ends.is_none() && attempt.remote == ends.remote);
        if let Some(attempt) = attempt {
            attempt.ends = Some(ends);
            connection.owner = Owner::Process(attempt.pid);
            connection.first_seen_ns = attempt.began_ns;
        }
        self.insert(now_ns, connection);
    }

    fn found(&self, now_ns: u64, ends: Ends, row: &SocketRow) -> Connection {
        let inbound = ends.transport == Transport::Tcp && self.listener(ends.local).is_some();
        Connection {
            ends,
            first_seen_ns: now_ns,
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            owner: if row.inode == 0 { Owner::Unseen } else { Owner::Holder(row.inode) },
            user: Some(row.user),
            state: match (ends.transport, row.state) {
                (Transport::Udp, _) => "connected",
                (Transport::Tcp, SYN_SENT) => "syn_sent",
                (Transport::Tcp, _) => "established",
            },
            told: false,
        }
    }

    /// Without the tracer: the kernel destroyed a socket.
    pub(crate) fn handle_destroyed(&mut self, now_ns: u64, row: &SocketRow) {
        if row.remote.port() == 0 || row.local.port() == 0 {
            return;
        }
        let ends = Ends { transport: row.transport, local: row.local, remote: row.remote };
        if !self.open.contains_key(&ends) && !self.lingering.contains_key(&ends) {
            let found = self.found(now_ns, ends, row);
            self.insert(now_ns, Connection { owner: Owner::Unseen, ..found });
        }
        self.end(now_ns, ends, row.bytes);
        self.linger(now_ns, ends);
    }

    /// The inodes whose holders are to be searched for.
    pub(crate) fn holders_wanted(&self) -> Vec<u32> {
        let listeners = self.listeners.values().map(|listener| listener.owner);
        let owners = self.open.values().map(|connection| connection.owner).chain(listeners);
        owners
            .filter_map(|owner| match owner {
                Owner::Holder(inode) => Some(inode),
                Owner::Process(_) | Owner::Unseen => None,
            })
            .collect()
    }

    /// The search for [`Self::holders_wanted`] found these; the others were not found.
    pub(crate) fn handle_holders(&mut self, now_ns: u64, holders: &BTreeMap<u32, u32>) {
        let settle = |owner: &mut Owner| {
            if let Owner::Holder(inode) = owner {
                *owner = holders.get(inode).map_or(Owner::Unseen, |pid| Owner::Process(*pid));
            }
        };
        self.listeners.values_mut().for_each(|listener| settle(&mut listener.owner));
        self.open.values_mut().for_each(|connection| settle(&mut connection.owner));
        self.tell_owned(now_ns);
    }

    /// Whether only a dump can tell the local port of an attempt.
    pub(crate) fn wants_dump(&self, now_ns: u64) -> bool {
        self.attempts.values().any(|attempt| {
            attempt.is_searched() && now_ns.saturating_sub(attempt.began_ns) > ATTEMPT_PATIENCE_NS
        })
    }

    /// Whether an attempt has neither a local port nor an end.
    pub(crate) fn has_attempts(&self) -> bool {
        self.attempts.values().any(Attempt::is_searched)
    }

    /// Tells the connections whose owner is settled, or has been waited for long enough.
    pub(crate) fn tell_owned(&mut self, now_ns: u64) {
        for connection in self.open.values_mut().filter(|connection| !connection.told) {
            let waits = matches!(connection.owner, Owner::Holder(_))
                && now_ns.saturating_sub(connection.first_seen_ns) < OWNER_PATIENCE_NS;
            if !waits {
                connection.told = true;
                self.changes.push_back(ConnectionChange::Is(*connection));
            }
        }
    }

    /// Tells every open connection again: something was lost on the way.
    pub(crate) fn tell_all(&mut self) {
        let told = self.open.values().filter(|connection| connection.told);
        self.changes.extend(told.map(|connection| ConnectionChange::Is(*connection)));
    }

    /// What is to be told next.
    pub(crate) fn poll_change(&mut self) -> Option<ConnectionChange> {
        self.changes.pop_front()
    }

    /// How many connections were not followed since this was last asked.
    pub(crate) fn take_not_followed(&mut self) -> u64 {
        std::mem::take(&mut self.not_followed)
    }

    /// The tracer lost changes, or begins anew: its names mean nothing any more.
    pub(crate) fn forget_names(&mut self) {
        self.attempts.clear();
        self.named.clear();
    }

    fn listener(&self, local: SocketAddr) -> Option<Listener> {
        let any_v4 = SocketAddr::new([0, 0, 0, 0].into(), local.port());
        let any_v6 = SocketAddr::new([0_u16; 8].into(), local.port());
        [local, any_v4, any_v6].iter().find_map(|address| self.listeners.get(address)).copied()
    }

    /// Remembers that a connection was told of for as long as the kernel may show it. At the bound
    /// it is not, and may be told of twice.
    fn linger(&mut self, now_ns: u64, ends: Ends) {
        if self.lingering.len() < CONNECTIONS_MAX {
            self.lingering.insert(ends, now_ns + TIME_WAIT_NS);
        }
    }

    /// Adds a connection; a former one with the same ends is over.
    fn insert(&mut self, now_ns: u64, connection: Connection) -> bool {
        self.end(now_ns, connection.ends, None);
        if self.open.len() >= CONNECTIONS_MAX {
            self.not_followed += 1;
            return false;
        }
        self.lingering.remove(&connection.ends);
        self.open.insert(connection.ends, connection);
        true
    }

    fn end(&mut self, now_ns: u64, ends: Ends, bytes: Option<(u64, u64)>) {
        let Some(mut connection) = self.open.remove(&ends) else { return };
        if !connection.told {
            connection.told = true;
            self.changes.push_back(ConnectionChange::Is(connection));
        }
        self.changes.push_back(ConnectionChange::Ended(connection, now_ns, bytes));
    }
}

fn ends_of(change: &SocketChange) -> Ends {
    Ends { transport: Transport::Tcp, local: change.local, remote: change.remote }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
