//! A small corpus for tests: what a few services and shells of an invented machine might do.
//!
//! Invariant: the same arguments give the same lines, and every event has its place as its `seq`.

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
    let mut text = String::new();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    let mut running = std::collections::VecDeque::new();
    let mut pid = FIRST_PID;
    for seq in 0..events {
        let ts = BEGIN_NS + seq * STEP_NS;
        let head = format!("{{\"seq\":{seq},\"ts\":{ts},\"host\":\"anywhere\"");
        let choice = next() % 100;
        let line = if running.len() < 12 || choice < 20 {
            let hash = match seq {
                0 => FIRST_HASH.to_owned(),
                _ => format!("{:064x}", next() % 40),
            };
            let line = format!(
                "\"type\":\"process_start\",\"pid\":{pid},\"ppid\":{},\"path\":\"/opt/tool/{}\",\
                 \"cmdline\":\"tool --job {} --step {}\",\"uid\":1500,\"user\":\"robin\",\
                 \"parent\":\"/sbin/first\",\"sha256\":\"{hash}\",\"cwd\":\"/srv\"",
                running.back().copied().unwrap_or(1),
                next() % 40,
                next() % 30,
                next() % 500
            );
            running.push_back(pid);
            pid += 1;
            line
        } else {
            let at = next() as usize % running.len();
            let of = running.get(at).copied().unwrap_or(FIRST_PID);
            match choice {
                20..38 => {
                    running.remove(at);
                    format!(
                        "\"type\":\"process_end\",\"pid\":{of},\"exit_code\":{},\"utime_us\":{},\
                         \"stime_us\":12,\"duration_ms\":{}",
                        next() % 2,
                        next() % 9_000,
                        next() % 5_000
                    )
                }
                38..60 => {
                    // Every third is closed without having been seen open.
                    let ends = format!(
                        "\"pid\":{of},\"path\":\"/opt/tool/1\",\"user\":\"robin\",\"saddr\":\
                         \"192.0.2.7\",\"sport\":{},\"daddr\":\"198.51.100.{}\",\"dport\":443,\
                         \"proto\":\"tcp\"",
                        20_000 + next() % 64,
                        next() % 16
                    );
                    match next() % 3 {
                        0 => format!(
                            "\"type\":\"tcp_close\",{ends},\"bytes_sent\":{}",
                            next() % 9_999
                        ),
                        _ => format!("\"type\":\"tcp_connect\",{ends},\"direction\":\"outbound\""),
                    }
                }
                60..92 => {
                    let mut file = format!("/srv/data/{:x}", next());
                    while file.len() < path_bytes {
                        let _ = write!(file, "-{:x}", next());
                    }
                    format!(
                        "\"type\":\"file_modify\",\"pid\":{of},\"path\":\"/opt/tool/2\",\"user\":\
                         \"robin\",\"file\":\"{file}\",\"size\":{},\"mode\":\"0640\",\"inode\":{}",
                        next() % 100_000,
                        next() % 1_000_000
                    )
                }
                _ => format!(
                    "\"type\":\"dns_query\",\"pid\":{of},\"path\":\"/opt/tool/3\",\"user\":\
                     \"robin\",\"qname\":\"h{}.example.org\",\"qtype\":\"A\",\"rcode\":\"NOERROR\",\
                     \"answers\":[\"198.51.100.9\"]",
                    next() % 90
                ),
            }
        };
        let _ = writeln!(text, "{head},{line}}}");
    }
    text
}
