//! The collector of names: hears the answers of name servers as they come in.
//!
//! It hears UDP on port 53 in the sensor's own network namespace, the loopback device included. It
//! does not hear TCP, TLS or HTTPS, nor names that a cache answers without asking.
//!
//! Who asked is who sent from the port that the answer goes to, as the send tracer remembers; where
//! there is no tracer, who holds the socket when the answer is looked at. An answer whose asker is
//! not known yet waits a moment: the tracer's word may come after a fast answer.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use lapwing_protocol::element::{Change, dns};

use super::btf::kernel_sender_layout;
use super::dns::{Answer, parse_packet};
use super::fact::{CollectedFact, FactBuilder, OwnedValue, Room};
use super::health::Parts;
use super::limits::DESCRIPTORS_SEARCHED_MAX;
use super::procfs;
use super::queue::Source;
use super::shared::{ProcessBrief, Shared, Stop};
use crate::sys::bpf::SenderTracer;
use crate::sys::clock;
use crate::sys::host::name_thread;
use crate::sys::packet::{NameAnswers, Network};
use crate::sys::sock_diag::{SockDiag, Transport};
use crate::sys::wait::Interest;

/// Largest IP packet.
const PACKET_BYTES_MAX: usize = 65_536;
/// Answers that are compared with a new one, to pass over one that came twice.
const REMEMBERED_ANSWERS: usize = 64;
/// How long an answer is taken for the same one, and an asker for the owner of its port.
const REMEMBERED_NS: u64 = 2_000_000_000;
/// How long ago a question may have been asked: longer than resolvers wait for one answer.
const ASKED_NS_MAX: u64 = 10_000_000_000;
/// How long an answer waits for word of its asker, and how often it is looked for meanwhile.
const ASKER_PATIENCE_NS: u64 = 60_000_000;
/// See [`ASKER_PATIENCE_NS`].
const ASKER_LOOK: Duration = Duration::from_millis(5);
/// Answers that may wait for word of their askers; beyond it the oldest is told without.
const WAITING_ANSWERS_MAX: usize = 256;
/// Searches for askers a second; beyond it the asker is shown as not seen. A search costs about 2
/// ms.
const SEARCHES_PER_SECOND_MAX: usize = 20;

/// The collector, opened but not running.
#[derive(Debug)]
pub(crate) struct NameCollector {
    shared: Shared,
    stop: Stop,
    captures: Vec<NameAnswers>,
    sockets: Option<SockDiag>,
    tracer: Option<SenderTracer>,
    buffer: Vec<u8>,
    heard: VecDeque<(u64, Answer)>,
    askers: VecDeque<(u64, (IpAddr, u16), ProcessBrief)>,
    /// Answers without an asker yet, with when they came.
    waiting: VecDeque<(u64, Answer)>,
    searched_ns: VecDeque<u64>,
}

impl NameCollector {
    /// Opens what can be opened, and reports it.
    pub(crate) fn open(shared: Shared, stop: Stop) -> Self {
        let mut parts = Parts::default();
        let unseen = "names that were looked up";
        let captures = [
            parts.keep("answers over IPv4", unseen, NameAnswers::open(Network::V4)),
            parts.keep("answers over IPv6", unseen, NameAnswers::open(Network::V6)),
        ];
        let sockets = SockDiag::open();
        if let Err(error) = &sockets {
            parts.fails("socket table", "which process looked a name up", error);
        }
        let tracer = parts.keep(
            "send tracer",
            "which process looked a name up, where it closes its socket at once",
            kernel_sender_layout().and_then(|layout| SenderTracer::attach(&layout)),
        );
        shared.health.report(Source::Names, parts.report());
        Self {
            shared,
            stop,
            captures: captures.into_iter().flatten().collect(),
            sockets: sockets.ok(),
            tracer,
            buffer: vec![0; PACKET_BYTES_MAX],
            heard: VecDeque::new(),
            askers: VecDeque::new(),
            waiting: VecDeque::new(),
            searched_ns: VecDeque::new(),
        }
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) {
        name_thread(c"lapwing-names");
        loop {
            let mut watched = vec![self.stop.wake.watched()];
            watched.extend(self.captures.iter().map(|c| (c.as_fd(), Interest::Readable)));
            let timeout = (!self.waiting.is_empty()).then_some(ASKER_LOOK);
            if let Err(error) = self.stop.wait(&watched, timeout) {
                log::error!("the collector of names cannot wait, and ends: {error}");
                return;
            }
            if self.stop.is_asked() {
                return;
            }
            self.stop.wake.clear();
            if let Err(error) = self.read() {
                log::warn!("answers of name servers cannot be read: {error}");
            }
            self.look_for_askers();
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let captures = std::mem::take(&mut self.captures);
        let mut read_all = || {
            for capture in &captures {
                loop {
                    let length = capture.receive(&mut self.buffer)?;
                    if length == 0 {
                        break;
                    }
                    let answer = self.buffer.get(..length).and_then(parse_packet);
                    if let Some(answer) = answer {
                        self.take(answer);
                    }
                }
                if capture.dropped() > 0 {
                    self.shared.sender.overflowed(Source::Names);
                }
            }
            Ok(())
        };
        let result = read_all();
        self.captures = captures;
        result
    }

    fn take(&mut self, answer: Answer) {
        let now_ns = clock::boottime_ns();
        self.forget(now_ns);
        if self.heard.iter().any(|(_, heard)| *heard == answer) {
            return;
        }
        self.heard.push_back((now_ns, answer.clone()));
        match self.asker_of(answer.asker, now_ns) {
            Some(asker) => self.tell(&answer, Some(asker), now_ns),
            None => {
                self.waiting.push_back((now_ns, answer));
                if self.waiting.len() > WAITING_ANSWERS_MAX
                    && let Some((came_ns, oldest)) = self.waiting.pop_front()
                {
                    self.tell(&oldest, None, came_ns);
                }
            }
        }
    }

    /// Tells the answers whose asker is known by now, or has been waited for long enough.
    fn look_for_askers(&mut self) {
        let now_ns = clock::boottime_ns();
        for (came_ns, answer) in std::mem::take(&mut self.waiting) {
            let asker = self.sender_to(answer.asker.1, now_ns);
            if asker.is_some() || now_ns.saturating_sub(came_ns) > ASKER_PATIENCE_NS {
                self.tell(&answer, asker, came_ns);
            } else {
                self.waiting.push_back((came_ns, answer));
            }
        }
    }

    fn tell(&self, answer: &Answer, asker: Option<ProcessBrief>, came_ns: u64) {
        self.shared.sender.give(self.fact(answer, asker, came_ns));
    }

    fn forget(&mut self, now_ns: u64) {
        let fresh = |time_ns: u64| now_ns.saturating_sub(time_ns) < REMEMBERED_NS;
        self.heard.retain(|(time_ns, _)| fresh(*time_ns));
        self.askers.retain(|(time_ns, ..)| fresh(*time_ns));
        while self.heard.len() >= REMEMBERED_ANSWERS {
            self.heard.pop_front();
        }
        while self.askers.len() >= REMEMBERED_ANSWERS {
            self.askers.pop_front();
        }
        self.searched_ns.retain(|time_ns| now_ns.saturating_sub(*time_ns) < 1_000_000_000);
    }

    fn asker_of(&mut self, asker: (IpAddr, u16), now_ns: u64) -> Option<ProcessBrief> {
        if let Some((_, _, known)) = self.askers.iter().find(|(_, known, _)| *known == asker) {
            return Some(known.clone());
        }
        if let Some(sender) = self.sender_to(asker.1, now_ns) {
            return Some(sender);
        }
        if self.searched_ns.len() >= SEARCHES_PER_SECOND_MAX {
            return None;
        }
        self.searched_ns.push_back(now_ns);
        let inodes = self.inodes_at(asker);
        let pid = (!inodes.is_empty()).then(|| self.holder_of(&inodes)).flatten()?;
        let brief = self.shared.processes.find(pid)?;
        self.askers.push_back((now_ns, asker, brief.clone()));
        Some(brief)
    }

    /// The process that the tracer saw send from `port`.
    fn sender_to(&self, port: u16, now_ns: u64) -> Option<ProcessBrief> {
        let sender = self.tracer.as_ref()?.sender(port)?;
        let fresh = now_ns.saturating_sub(sender.time_ns) < ASKED_NS_MAX;
        fresh.then(|| self.shared.processes.find(sender.pid)).flatten()
    }

    /// The sockets that an answer to `address` and `port` is for.
    fn inodes_at(&mut self, (address, port): (IpAddr, u16)) -> BTreeSet<u64> {
        let mut inodes = BTreeSet::new();
        if let Some(sockets) = &mut self.sockets {
            let asked = sockets.dump(Transport::Udp, |row| {
                let here = row.local.ip() == address || row.local.ip().is_unspecified();
                if row.local.port() == port && here && row.inode != 0 {
                    inodes.insert(u64::from(row.inode));
                }
            });
            if let Err(error) = asked {
                log::debug!("who asked a name server cannot be asked: {error}");
            }
        }
        inodes
    }

    /// The process that holds one of `inodes`, the latest processes first.
    fn holder_of(&self, inodes: &BTreeSet<u64>) -> Option<u32> {
        let mut pids = self.shared.processes.latest_first();
        if pids.is_empty() {
            pids = procfs::process_numbers();
        }
        let mut looked_at = 0;
        for pid in pids {
            let mut holds = false;
            let left = DESCRIPTORS_SEARCHED_MAX.saturating_sub(looked_at) + 1;
            let mut look = |inode| holds |= inodes.contains(&inode);
            looked_at += procfs::socket_inodes(pid, left, &mut look);
            if holds {
                return Some(pid);
            }
            if looked_at > DESCRIPTORS_SEARCHED_MAX {
                break;
            }
        }
        None
    }

    fn fact(&self, answer: &Answer, asker: Option<ProcessBrief>, now_ns: u64) -> CollectedFact {
        let message = &answer.message;
        let addresses: Vec<String> = message.addresses.iter().map(ToString::to_string).collect();
        let fact = FactBuilder::new(Source::Names, dns::KIND, Change::Event, now_ns)
            .text(dns::question, &message.question, Room::Path)
            .number(dns::question_type, u64::from(message.question_type))
            .number(dns::response_code, u64::from(message.response_code))
            .text(dns::answers, addresses.join(","), Room::Path)
            .value(dns::server, OwnedValue::Ip(answer.server));
        match asker {
            Some(asker) => {
                let user = asker.user.and_then(|user| self.shared.users.name_of(user));
                fact.value(dns::process, asker.key.reference())
                    .text_if(dns::user, user, Room::Path)
                    .text_if(dns::image_path, asker.image_path, Room::Path)
            }
            None => fact.missing(dns::process),
        }
        .build()
    }
}
