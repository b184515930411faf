//! A small corpus for tests: what a few services and shells of an invented machine might do.
//!
//! Invariant: the same arguments give the same lines, and every event has its place as its `seq`.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// The SHA-256 of the executable of the process that starts first, as the corpus writes it.
pub const FIRST_HASH: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// The first event's process number.
pub const FIRST_PID: u64 = 700;
/// Nanoseconds between two events.
const STEP_NS: u64 = 350_000;
/// When the first event happens, nanoseconds since 1970.
const BEGIN_NS: u64 = 1_790_000_000_000_000_000;

/// `events` lines. Paths of files have about `path_bytes` bytes more than they need, of which no
/// two are alike.
#[must_use]
pub fn corpus(events: u64, path_bytes: usize) -> String {
    let mut machine = Machine { chance: Chance(0x9e37_79b9_7f4a_7c15), ..Machine::default() };
    let mut text = String::new();
    for seq in 0..events {
        let ts = BEGIN_NS + seq * STEP_NS;
        let line = machine.happening(seq, path_bytes);
        let _ = writeln!(text, "{{\"seq\":{seq},\"ts\":{ts},\"host\":\"anywhere\",{line}}}");
    }
    text
}

/// Numbers that look random and are not.
#[derive(Default)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The invented machine.
#[derive(Default)]
struct Machine {
    chance: Chance,
    running: VecDeque<u64>,
    started: u64,
}

impl Machine {
    fn happening(&mut self, seq: u64, path_bytes: usize) -> String {
        let choice = self.chance.below(100);
        if self.running.len() < 12 || choice < 20 {
            return self.start(seq);
        }
        let at = self.chance.below(self.running.len() as u64) as usize;
        let pid = self.running.get(at).copied().unwrap_or(FIRST_PID);
        match choice {
            20..38 => {
                self.running.remove(at);
                self.end(pid)
            }
            38..60 => self.connection(pid),
            60..92 => self.file(pid, path_bytes),
            _ => self.look_up(pid),
        }
    }

    fn start(&mut self, seq: u64) -> String {
        let pid = FIRST_PID + self.started;
        self.started += 1;
        let hash = match seq {
            0 => FIRST_HASH.to_owned(),
            _ => format!("{:064x}", self.chance.below(40)),
        };
        let parent = self.running.back().copied().unwrap_or(1);
        self.running.push_back(pid);
        format!(
            "\"type\":\"process_start\",\"pid\":{pid},\"ppid\":{parent},\"path\":\"/opt/tool/{}\",\
             \"cmdline\":\"tool --job {} --step {}\",\"uid\":1500,\"user\":\"robin\",\
             \"parent\":\"/sbin/first\",\"sha256\":\"{hash}\",\"cwd\":\"/srv\"",
            self.chance.below(40),
            self.chance.below(30),
            self.chance.below(500)
        )
    }

    fn end(&mut self, pid: u64) -> String {
        format!(
            "\"type\":\"process_end\",\"pid\":{pid},\"exit_code\":{},\"utime_us\":{},\
             \"stime_us\":12,\"duration_ms\":{}",
            self.chance.below(2),
            self.chance.below(9_000),
            self.chance.below(5_000)
        )
    }

    /// Every third is closed, whether it was seen open or not.
    fn connection(&mut self, pid: u64) -> String {
        let ends = format!(
            "\"pid\":{pid},\"path\":\"/opt/tool/1\",\"user\":\"robin\",\"saddr\":\"192.0.2.7\",\
             \"sport\":{},\"daddr\":\"198.51.100.{}\",\"dport\":443,\"proto\":\"tcp\"",
            20_000 + self.chance.below(64),
            self.chance.below(16)
        );
        match self.chance.below(3) {
            0 => {
                let sent = self.chance.below(9_999);
                format!("\"type\":\"tcp_close\",{ends},\"bytes_sent\":{sent}")
            }
            _ => format!("\"type\":\"tcp_connect\",{ends},\"direction\":\"outbound\""),
        }
    }

    fn file(&mut self, pid: u64, path_bytes: usize) -> String {
        let mut file = format!("/srv/data/{:x}", self.chance.number());
        while file.len() < path_bytes {
            let _ = write!(file, "-{:x}", self.chance.number());
        }
        format!(
            "\"type\":\"file_modify\",\"pid\":{pid},\"path\":\"/opt/tool/2\",\"user\":\"robin\",\
             \"file\":\"{file}\",\"size\":{},\"mode\":\"0640\",\"inode\":{}",
            self.chance.below(100_000),
            self.chance.below(1_000_000)
        )
    }

    fn look_up(&mut self, pid: u64) -> String {
        format!(
            "\"type\":\"dns_query\",\"pid\":{pid},\"path\":\"/opt/tool/3\",\"user\":\"robin\",\
             \"qname\":\"h{}.example.org\",\"qtype\":\"A\",\"rcode\":\"NOERROR\",\
             \"answers\":[\"198.51.100.9\"]",
            self.chance.below(90)
        )
    }
}
