//! The corpus: one JSON object a line becomes one event, its texts kept once.
//!
//! Not here: what an event is in the element model (`facts`). Invariant: nothing is guessed: a line
//! that is no event is an error that names the line and what is wrong.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;

/// The longest line that is read: far above any event.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A text of the corpus, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TextId(u32);

impl TextId {
    /// The empty text.
    pub(super) const EMPTY: Self = Self(0);
}

/// Every text once. The empty text is number 0.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// The bytes of a text.
    pub(super) fn get(&self, id: TextId) -> &[u8] {
        let at = id.0 as usize;
        let begin = at.checked_sub(1).and_then(|at| self.ends.get(at)).copied().unwrap_or_default();
        let end = self.ends.get(at).copied().unwrap_or_default();
        self.bytes.get(begin..end).unwrap_or_default()
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) protocol: u8,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    ProcessStart {
        ppid: u32,
        command_line: TextId,
        uid: u32,
        user: TextId,
        parent_path: TextId,
        hash: Option<TextId>,
        folder: TextId,
    },
    ProcessEnd {
        exit_code: i32,
        user_time_us: u64,
        system_time_us: u64,
        duration_ms: u64,
    },
    Connect {
        ends: Ends,
        user: TextId,
        is_inbound: bool,
    },
    Close {
        ends: Ends,
        user: TextId,
        sent: u64,
        received: u64,
        duration_ms: u64,
    },
    File {
        action: u8,
        file: TextId,
        user: TextId,
        bytes: u64,
        mode: u32,
        inode: u64,
    },
    Dns {
        question: TextId,
        question_type: u16,
        code: u16,
        answers: TextId,
        user: TextId,
    },
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its number in the corpus.
    pub(super) seq: u64,
    /// Its time, nanoseconds since 1970.
    pub(super) time_ns: u64,
    /// Its place in the corpus, from 0.
    pub(super) place: u64,
    pub(super) pid: u32,
    /// The executable of the process.
    pub(super) path: TextId,
    pub(super) what: What,
}

/// The events of one run, by sensor.
#[derive(Debug, Default)]
pub(super) struct Corpus {
    pub(super) texts: Texts,
    pub(super) by_sensor: Vec<Vec<Event>>,
    pub(super) events: u64,
    /// Times of the first and the last event, nanoseconds since 1970.
    pub(super) span_ns: (u64, u64),
}

/// A line, as it is written.
#[derive(Debug, Deserialize)]
struct Line<'l> {
    seq: u64,
    ts: u64,
    #[serde(borrow, rename = "type")]
    kind: Cow<'l, str>,
    pid: u32,
    #[serde(default)]
    ppid: u32,
    #[serde(borrow, default)]
    path: Cow<'l, str>,
    #[serde(borrow, default)]
    cmdline: Cow<'l, str>,
    #[serde(default)]
    uid: u32,
    #[serde(borrow, default)]
    user: Cow<'l, str>,
    #[serde(borrow, default)]
    parent: Cow<'l, str>,
    #[serde(borrow, default)]
    sha256: Cow<'l, str>,
    #[serde(borrow, default)]
    cwd: Cow<'l, str>,
    #[serde(default)]
    exit_code: i32,
    #[serde(default)]
    utime_us: u64,
    #[serde(default)]
    stime_us: u64,
    #[serde(default)]
    duration_ms: u64,
    saddr: Option<IpAddr>,
    #[serde(default)]
    sport: u16,
    daddr: Option<IpAddr>,
    #[serde(default)]
    dport: u16,
    #[serde(borrow, default)]
    proto: Cow<'l, str>,
    #[serde(borrow, default)]
    direction: Cow<'l, str>,
    #[serde(default)]
    bytes_sent: u64,
    #[serde(default)]
    bytes_recv: u64,
    #[serde(borrow, default)]
    file: Cow<'l, str>,
    #[serde(default)]
    size: u64,
    #[serde(borrow, default)]
    mode: Cow<'l, str>,
    #[serde(default)]
    inode: u64,
    #[serde(borrow, default)]
    qname: Cow<'l, str>,
    #[serde(borrow, default)]
    qtype: Cow<'l, str>,
    #[serde(borrow, default)]
    rcode: Cow<'l, str>,
    #[serde(borrow, default)]
    answers: Vec<Cow<'l, str>>,
}

impl Corpus {
    /// Reads `limit` events, or all of them, for `sensors` sensors; `tell` hears of every 100,000.
    pub(super) fn read(
        file: &Path,
        sensors: u32,
        limit: Option<u64>,
        mut tell: impl FnMut(u64),
    ) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let open = File::open(file)
            .map_err(|error| format!("{}: {error}; name a file of JSON lines", file.display()))?;
        let mut reading = Reading::new(sensors);
        let (mut lines, mut line, mut number) = (BufReader::new(open), Vec::new(), 0_u64);
        while limit.is_none_or(|limit| reading.corpus.events < limit) {
            line.clear();
            number += 1;
            if lines.read_until(b'\n', &mut line).map_err(|error| named(&error))? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            reading
                .take(&line)
                .map_err(|problem| format!("{} line {number}: {problem}", file.display()))?;
            if reading.corpus.events.is_multiple_of(100_000) {
                tell(reading.corpus.events);
            }
        }
        let events = reading.corpus.events;
        match limit.filter(|limit| events < *limit) {
            None => Ok(reading.corpus),
            Some(limit) => Err(format!(
                "{}: it holds {events} events, not {limit}; lower --events or name a longer one",
                file.display()
            )),
        }
    }
}

/// A corpus while it is read.
struct Reading {
    corpus: Corpus,
    known: HashMap<Box<[u8]>, TextId>,
}

impl Reading {
    fn new(sensors: u32) -> Self {
        let by_sensor = vec![Vec::new(); sensors.max(1) as usize];
        let mut reading =
            Self { corpus: Corpus { by_sensor, ..Corpus::default() }, known: HashMap::new() };
        reading.text(b"");
        reading
    }

    fn text(&mut self, bytes: &[u8]) -> TextId {
        if let Some(known) = self.known.get(bytes) {
            return *known;
        }
        let texts = &mut self.corpus.texts;
        let id = TextId(u32::try_from(texts.ends.len()).unwrap_or(u32::MAX));
        texts.bytes.extend_from_slice(bytes);
        texts.ends.push(texts.bytes.len());
        self.known.insert(bytes.into(), id);
        id
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        let line: Line<'_> =
            serde_json::from_slice(line).map_err(|error| format!("it is no event: {error}"))?;
        let place = self.corpus.events;
        let (path, what) = (self.text(line.path.as_bytes()), self.what(&line)?);
        let event = Event { seq: line.seq, time_ns: line.ts, place, pid: line.pid, path, what };
        let sensor = line.pid as usize % self.corpus.by_sensor.len();
        if let Some(events) = self.corpus.by_sensor.get_mut(sensor) {
            events.push(event);
        }
        let span = &mut self.corpus.span_ns;
        *span = match place {
            0 => (line.ts, line.ts),
            _ => (span.0.min(line.ts), span.1.max(line.ts)),
        };
        self.corpus.events += 1;
        Ok(())
    }

    fn what(&mut self, line: &Line<'_>) -> Result<What, String> {
        let user = self.text(line.user.as_bytes());
        Ok(match line.kind.as_ref() {
            "process_start" => What::ProcessStart {
                ppid: line.ppid,
                command_line: self.text(line.cmdline.as_bytes()),
                uid: line.uid,
                user,
                parent_path: self.text(line.parent.as_bytes()),
                hash: self.hash(&line.sha256)?,
                folder: self.text(line.cwd.as_bytes()),
            },
            "process_end" => What::ProcessEnd {
                exit_code: line.exit_code,
                user_time_us: line.utime_us,
                system_time_us: line.stime_us,
                duration_ms: line.duration_ms,
            },
            "tcp_connect" => {
                What::Connect { ends: ends(line)?, user, is_inbound: line.direction == "inbound" }
            }
            "tcp_close" => What::Close {
                ends: ends(line)?,
                user,
                sent: line.bytes_sent,
                received: line.bytes_recv,
                duration_ms: line.duration_ms,
            },
            "file_create" | "file_modify" => What::File {
                action: if line.kind == "file_create" { 1 } else { 2 },
                file: self.text(line.file.as_bytes()),
                user,
                bytes: line.size,
                mode: u32::from_str_radix(&line.mode, 8).unwrap_or_default(),
                inode: line.inode,
            },
            "dns_query" => What::Dns {
                question: self.text(line.qname.as_bytes()),
                question_type: question_type(&line.qtype)?,
                code: response_code(&line.rcode)?,
                answers: self.text(line.answers.join(",").as_bytes()),
                user,
            },
            other => {
                return Err(format!(
                    "its type is {other:?}; known are process_start, process_end, tcp_connect, \
                     tcp_close, file_create, file_modify, dns_query"
                ));
            }
        })
    }

    fn hash(&mut self, text: &str) -> Result<Option<TextId>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        let bytes = bytes.filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| format!("sha256 {text:?} is not 64 hexadecimal digits"))?;
        Ok(Some(self.text(&bytes)))
    }
}

fn ends(line: &Line<'_>) -> Result<Ends, String> {
    let (Some(local), Some(remote)) = (line.saddr, line.daddr) else {
        return Err("it has no saddr or no daddr".into());
    };
    let protocol = match line.proto.as_ref() {
        "udp" => 17,
        _ => 6,
    };
    Ok(Ends { protocol, local: (local, line.sport), remote: (remote, line.dport) })
}

fn question_type(name: &str) -> Result<u16, String> {
    Ok(match name {
        "A" | "" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "SOA" => 6,
        "PTR" => 12,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        "SRV" => 33,
        other => return other.parse().map_err(|_| format!("qtype {other:?} is unknown")),
    })
}

fn response_code(name: &str) -> Result<u16, String> {
    Ok(match name {
        "NOERROR" | "" => 0,
        "FORMERR" => 1,
        "SERVFAIL" => 2,
        "NXDOMAIN" => 3,
        "NOTIMP" => 4,
        "REFUSED" => 5,
        other => return other.parse().map_err(|_| format!("rcode {other:?} is unknown")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let read = Corpus::read(file.path(), 2, Some(2), |_| {}).unwrap_err();
        read.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn what_is_no_event_is_named_by_file_line_and_reason() {
        let good = r#"{"seq":0,"ts":1,"type":"process_end","pid":3}"#;
        let cases = [
            ("{}", "FILE line 1: it is no event: missing field `seq`"),
            (good, "FILE: it holds 1 events, not 2; lower --events or name a longer one"),
            (
                r#"{"seq":0,"ts":1,"type":"tcp_close","pid":3}"#,
                "FILE line 1: it has no saddr or no daddr",
            ),
            (
                r#"{"seq":0,"ts":1,"type":"boot","pid":3}"#,
                "FILE line 1: its type is \"boot\"; known are process_start",
            ),
        ];
        for (text, expected) in cases {
            let said = refused(text);
            assert!(said.starts_with(expected), "{said}");
        }
        let said = refused(&format!("{good}\n\nnothing\n"));
        assert!(said.starts_with("FILE line 3: it is no event"), "{said}");
    }

    #[test]
    fn an_event_goes_to_the_sensor_of_its_process_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = (0..6).map(|pid| {
            format!("{{\"seq\":{pid},\"ts\":1,\"type\":\"process_end\",\"pid\":{pid}}}\n")
        });
        std::fs::write(file.path(), lines.collect::<String>()).unwrap();
        let corpus = Corpus::read(file.path(), 4, None, |_| {}).unwrap();
        let pids = |at: usize| corpus.by_sensor[at].iter().map(|event| event.pid);
        assert_eq!(pids(0).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(pids(3).collect::<Vec<_>>(), [3]);
    }
}
