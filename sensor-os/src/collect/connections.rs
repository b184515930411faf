//! The collector of connections: reads the kernel's word of sockets, and feeds the table.
//!
//! With the tracer every TCP connection is seen, its process included, and the socket table is
//! dumped once a minute. Without it the table is dumped every half second while sockets change and
//! every two seconds while they do not, and notices of destroyed sockets tell of those that lived
//! between. UDP has no connections; a connected UDP socket is told as one, and is found by dumps
//! alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use lapwing_protocol::element::{Change, connection};

use super::btf::kernel_socket_layout;
use super::fact::{CollectedFact, FactBuilder, OwnedValue, Room};
use super::health::Parts;
use super::limits::{
    DESCRIPTORS_SEARCHED_MAX, OWNER_SEARCH_PERIOD, SCAN_PERIOD, SOCKET_POLL_PERIOD,
    SOCKET_POLL_PERIOD_QUIET,
};
use super::period::Period;
use super::procfs;
use super::queue::{Rescan, Source};
use super::shared::{ProcessBrief, Shared, Stop};
use super::sockets::{Connection, ConnectionChange, Direction, Lingering, Owner, SocketTable};
use crate::sys::bpf::{SocketTracer, TracerReading};
use crate::sys::clock;
use crate::sys::host::name_thread;
use crate::sys::sock_diag::{DestroyedReading, SockDiag, SocketRow, Transport};
use crate::sys::wait::Interest;

/// How long a fact waits for the collector of processes to tell of its process.
const PROCESS_PATIENCE_NS: u64 = 60_000_000;
/// How often an attempt without an answer is looked after.
const ATTEMPT_LOOK: Duration = Duration::from_millis(60);

/// What stays when collection stops, so that its next start knows what ended meanwhile.
#[derive(Debug, Default)]
pub(crate) struct ConnectionMemory {
    table: SocketTable,
}

/// The collector, opened but not running.
#[derive(Debug)]
pub(crate) struct ConnectionCollector {
    shared: Shared,
    stop: Stop,
    table: SocketTable,
    tracer: Option<SocketTracer>,
    destroyed: Option<SockDiag>,
    dumps: SockDiag,
    /// Changes whose process is not told of yet, with when they are told without.
    waiting: VecDeque<(u64, ConnectionChange)>,
    tcp_dumps: Period,
    udp_dumps: Period,
    searches: Period,
    scans: Period,
    /// The UDP sockets of the last dump: a whole dump is both.
    udp_rows: Vec<SocketRow>,
    tcp_rows: Vec<SocketRow>,
    /// What the next dump of TCP is to make of what waits out its time.
    lingering: Lingering,
    /// Rows that are told again, and how many of them still wait.
    rescan: Option<(Rescan, usize)>,
}

impl ConnectionCollector {
    /// Opens what can be opened, and reports it.
    ///
    /// # Errors
    ///
    /// The kernel has no socket table to ask.
    pub(crate) fn open(shared: Shared, stop: Stop, memory: ConnectionMemory) -> io::Result<Self> {
        let mut parts = Parts::default();
        let tracer = parts.keep(
            "socket tracer",
            "the processes of connections that live shorter than 500 ms",
            open_tracer(),
        );
        let destroyed = match tracer {
            Some(_) => None,
            None => parts.keep(
                "notices of destroyed sockets",
                "connections that live shorter than 500 ms and are closed by the other side",
                SockDiag::open_destroyed(),
            ),
        };
        let dumps = SockDiag::open()?;
        parts.works("socket table");
        shared.health.report(Source::Connections, parts.report());
        let tcp_period = if tracer.is_some() { SCAN_PERIOD } else { SOCKET_POLL_PERIOD };
        let mut table = memory.table;
        table.forget_names();
        Ok(Self {
            shared,
            stop,
            table,
            tracer,
            destroyed,
            dumps,
            waiting: VecDeque::new(),
            tcp_dumps: Period::new(tcp_period),
            udp_dumps: Period::new(SOCKET_POLL_PERIOD_QUIET),
            searches: Period::new(OWNER_SEARCH_PERIOD),
            scans: Period::new(SCAN_PERIOD),
            udp_rows: Vec::new(),
            tcp_rows: Vec::new(),
            lingering: Lingering::Remember,
            rescan: None,
        })
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) -> ConnectionMemory {
        name_thread(c"lapwing-connect");
        self.tcp_dumps.make_due();
        self.udp_dumps.make_due();
        self.searches.make_due();
        loop {
            if let Err(error) = self.step() {
                log::warn!("connections: {error}");
            }
            if let Err(error) = self.wait() {
                log::error!("the collector of connections cannot wait, and ends: {error}");
                break;
            }
            if self.stop.is_asked() {
                break;
            }
            self.stop.wake.clear();
        }
        ConnectionMemory { table: self.table }
    }

    fn wait(&self) -> io::Result<()> {
        let now_ns = clock::boottime_ns();
        let mut due_ns = self.tcp_dumps.due_ns().min(self.udp_dumps.due_ns());
        due_ns = due_ns.min(self.scans.due_ns());
        if let Some((patience_ns, _)) = self.waiting.front() {
            // The collector of processes tells within some milliseconds: look again soon.
            due_ns = due_ns.min(*patience_ns).min(now_ns + 5_000_000);
        }
        if !self.table.holders_wanted().is_empty() {
            due_ns = due_ns.min(self.searches.due_ns());
        }
        let mut timeout = Duration::from_nanos(due_ns.saturating_sub(now_ns));
        if self.table.has_attempts() {
            timeout = timeout.min(ATTEMPT_LOOK);
        }
        let mut watched = vec![self.stop.wake.watched()];
        let tracer = self.tracer.as_ref().map(AsFd::as_fd);
        let destroyed = self.destroyed.as_ref().map(AsFd::as_fd);
        watched.extend(tracer.into_iter().chain(destroyed).map(|fd| (fd, Interest::Readable)));
        self.stop.wait(&watched, Some(timeout)).map(drop)
    }

    fn step(&mut self) -> io::Result<()> {
        self.read_tracer();
        let now_ns = clock::boottime_ns();
        if let Some(destroyed) = &mut self.destroyed {
            let reading = destroyed.read_destroyed(|row| {
                self.table.handle_destroyed(now_ns, &row);
            })?;
            if reading == DestroyedReading::Lost {
                self.shared.sender.overflowed(Source::Connections);
                self.tcp_dumps.make_due();
            }
        }
        self.dump_what_is_due(now_ns)?;
        self.search_owners(now_ns);
        self.table.tell_owned(clock::boottime_ns());
        if self.scans.is_due(now_ns) && self.shared.sender.take_alarm(Source::Connections) {
            self.tell();
            let rescan = self.shared.sender.begin_scan(Source::Connections, connection::KIND);
            self.table.tell_all();
            self.take_changes();
            self.rescan = Some((rescan, self.waiting.len()));
        }
        for _ in 0..self.table.take_not_followed() {
            self.shared.sender.not_followed(Source::Connections);
        }
        self.tell();
        Ok(())
    }

    fn read_tracer(&mut self) {
        let Some(tracer) = &mut self.tracer else { return };
        let reading = tracer.read(|change| self.table.handle_change(&change));
        if reading == TracerReading::MayHaveLost {
            log::warn!("the ring of the socket tracer was full; dumping the socket table");
            self.shared.sender.overflowed(Source::Connections);
            self.tcp_dumps.make_due();
            self.lingering = Lingering::Tell;
        }
    }

    fn dump_what_is_due(&mut self, now_ns: u64) -> io::Result<()> {
        let tcp = self.tcp_dumps.is_due(now_ns) || self.table.wants_dump(now_ns);
        let udp = self.udp_dumps.is_due(now_ns);
        if !tcp && !udp {
            return Ok(());
        }
        let began_ns = clock::boottime_ns();
        if tcp {
            let before = std::mem::take(&mut self.tcp_rows);
            self.dumps.dump(Transport::Tcp, |row| self.tcp_rows.push(row))?;
            if self.tracer.is_none() {
                let quiet = same_sockets(&before, &self.tcp_rows);
                let period = if quiet { SOCKET_POLL_PERIOD_QUIET } else { SOCKET_POLL_PERIOD };
                self.tcp_dumps.set(period, now_ns);
            }
        }
        if udp {
            let before = std::mem::take(&mut self.udp_rows);
            self.dumps.dump(Transport::Udp, |row| self.udp_rows.push(row))?;
            let quiet = same_sockets(&before, &self.udp_rows);
            let period = if quiet { SOCKET_POLL_PERIOD_QUIET } else { SOCKET_POLL_PERIOD };
            self.udp_dumps.set(period, now_ns);
        }
        // What the tracer told while the dump ran is newer than the dump.
        self.read_tracer();
        let now_ns = clock::boottime_ns();
        if tcp {
            let rows = &self.tcp_rows;
            self.table.handle_dump(Transport::Tcp, now_ns, began_ns, rows, self.lingering);
            let told_otherwise = self.tracer.is_some();
            self.lingering = if told_otherwise { Lingering::Remember } else { Lingering::Tell };
        }
        if udp {
            let rows = &self.udp_rows;
            self.table.handle_dump(Transport::Udp, now_ns, began_ns, rows, self.lingering);
        }
        Ok(())
    }

    /// Looks through the descriptors of all processes, the latest first, for sockets without an
    /// owner.
    fn search_owners(&mut self, now_ns: u64) {
        let mut wanted: BTreeSet<u64> =
            self.table.holders_wanted().into_iter().map(u64::from).collect();
        if wanted.is_empty() || !self.searches.is_due(now_ns) {
            return;
        }
        let mut holders = BTreeMap::new();
        let mut looked_at = 0;
        let mut pids = self.shared.processes.latest_first();
        if pids.is_empty() {
            pids = procfs::process_numbers();
        }
        for pid in pids {
            if wanted.is_empty() || looked_at > DESCRIPTORS_SEARCHED_MAX {
                break;
            }
            let left = DESCRIPTORS_SEARCHED_MAX.saturating_sub(looked_at) + 1;
            looked_at += procfs::socket_inodes(pid, left, |inode| {
                if wanted.remove(&inode) {
                    holders.extend(u32::try_from(inode).map(|inode| (inode, pid)));
                }
            });
        }
        self.table.handle_holders(clock::boottime_ns(), &holders);
    }

    fn take_changes(&mut self) {
        let patience_ns = clock::boottime_ns() + PROCESS_PATIENCE_NS;
        while let Some(change) = self.table.poll_change() {
            self.waiting.push_back((patience_ns, change));
        }
    }

    fn tell(&mut self) {
        let now_ns = clock::boottime_ns();
        self.take_changes();
        self.end_rescan();
        while let Some((patience_ns, change)) = self.waiting.front().copied() {
            let (ConnectionChange::Is(connection) | ConnectionChange::Ended(connection, ..)) =
                &change;
            let process = match (&change, connection.owner) {
                (ConnectionChange::Is(_), Owner::Process(pid)) => {
                    let found = self.shared.processes.find(pid);
                    if found.is_none() && now_ns < patience_ns {
                        return;
                    }
                    found
                }
                _ => None,
            };
            self.waiting.pop_front();
            self.shared.sender.give(self.fact(&change, process));
            if let Some((_, left)) = &mut self.rescan {
                *left = left.saturating_sub(1);
            }
            self.end_rescan();
        }
    }

    /// Ends the telling of all once everything of it was given.
    fn end_rescan(&mut self) {
        if let Some((rescan, _)) = self.rescan.take_if(|(_, left)| *left == 0) {
            self.shared.sender.end_scan(rescan);
        }
    }

    fn fact(&self, change: &ConnectionChange, process: Option<ProcessBrief>) -> CollectedFact {
        match change {
            ConnectionChange::Is(told) => {
                let user = told.user.or(process.as_ref().and_then(|process| process.user));
                let number = |value: u32| OwnedValue::U64(value.into());
                let name = user.and_then(|user| self.shared.users.name_of(user));
                let direction = match told.direction {
                    Direction::Outbound => 1,
                    Direction::Inbound => 2,
                };
                let fact = keyed(told, Change::Whole, clock::boottime_ns())
                    .number(connection::direction, direction)
                    .text(connection::state, told.state, Room::Path)
                    .value_if(connection::uid, user.map(number))
                    .text_if(connection::user, name, Room::Path);
                match process {
                    Some(process) => fact
                        .value(connection::process, process.key.reference())
                        .text_if(connection::image_path, process.image_path, Room::Path),
                    None => fact.missing(connection::process).missing(connection::image_path),
                }
                .build()
            }
            ConnectionChange::Ended(told, ended_ns, bytes) => {
                let lived_ns = ended_ns.saturating_sub(told.first_seen_ns);
                let fact = keyed(told, Change::Ended, *ended_ns)
                    .number(connection::duration_ms, lived_ns / 1_000_000);
                match bytes {
                    Some((sent, received)) => fact
                        .number(connection::bytes_sent, *sent)
                        .number(connection::bytes_received, *received),
                    None => {
                        fact.missing(connection::bytes_sent).missing(connection::bytes_received)
                    }
                }
                .build()
            }
        }
    }
}

fn keyed(told: &Connection, change: Change, time_ns: u64) -> FactBuilder {
    let ends = told.ends;
    FactBuilder::new(Source::Connections, connection::KIND, change, time_ns)
        .number(connection::protocol, u64::from(ends.transport.number()))
        .value(connection::local_address, OwnedValue::Ip(ends.local.ip()))
        .number(connection::local_port, u64::from(ends.local.port()))
        .value(connection::remote_address, OwnedValue::Ip(ends.remote.ip()))
        .number(connection::remote_port, u64::from(ends.remote.port()))
        .value(connection::first_seen, OwnedValue::Time(told.first_seen_ns))
}

fn open_tracer() -> io::Result<SocketTracer> {
    SocketTracer::attach(&kernel_socket_layout()?)
}

fn same_sockets(before: &[SocketRow], after: &[SocketRow]) -> bool {
    let names = |rows: &[SocketRow]| rows.iter().map(|row| row.cookie).collect::<BTreeSet<_>>();
    names(before) == names(after)
}
