//! The collector of names: hears the answers of name servers as they come in.
//!
//! It hears UDP on port 53 in the sensor's own network namespace, the loopback device included. It
//! does not hear TCP, TLS or HTTPS, nor names that a cache answers without asking. Who asked is
//! who holds the socket that the answer goes to, if it still does when the answer is looked at; an
//! asker found once is remembered for its other questions from the same port.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use lapwing_protocol::element::{Change, dns};

use super::dns::{Answer, parse_packet};
use super::fact::{CollectedFact, FactBuilder, OwnedValue, Room};
use super::health::Parts;
use super::limits::DESCRIPTORS_SEARCHED_MAX;
use super::procfs;
use super::queue::Source;
use super::shared::{ProcessBrief, Shared, Stop};
use crate::sys::clock;
use crate::sys::host::name_thread;
use crate::sys::packet::{NameAnswers, Network};
use crate::sys::sock_diag::{SockDiag, Transport};
use crate::sys::wait::{Interest, wait};

/// Largest IP packet.
const PACKET_BYTES_MAX: usize = 65_536;
/// Answers that are compared with a new one, to pass over one that came twice.
const REMEMBERED_ANSWERS: usize = 64;
/// How long an answer is taken for the same one, and an asker for the owner of its port.
const REMEMBERED_NS: u64 = 2_000_000_000;
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
    buffer: Vec<u8>,
    heard: VecDeque<(u64, Answer)>,
    askers: VecDeque<(u64, (IpAddr, u16), ProcessBrief)>,
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
        shared.health.report(Source::Names, parts.report());
        Self {
            shared,
            stop,
            captures: captures.into_iter().flatten().collect(),
            sockets: sockets.ok(),
            buffer: vec![0; PACKET_BYTES_MAX],
            heard: VecDeque::new(),
            askers: VecDeque::new(),
            searched_ns: VecDeque::new(),
        }
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) {
        name_thread(c"lapwing-names");
        loop {
            let mut watched = vec![self.stop.wake.watched()];
            watched.extend(self.captures.iter().map(|c| (c.as_fd(), Interest::Readable)));
            if let Err(error) = wait(&watched, None) {
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
        let asker = self.asker_of(answer.asker, now_ns);
        let fact = self.fact(&answer, asker, now_ns);
        self.shared.sender.give(fact);
        self.heard.push_back((now_ns, answer));
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
            looked_at += procfs::socket_inodes(pid, |inode| holds |= inodes.contains(&inode));
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
