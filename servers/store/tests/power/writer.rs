//! The writer, a process of its own that says what was acknowledged, and the check of what it left.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use lapwing_store::journal::{
    Append, DirectoryPartitions, Incarnation, Journal, JournalOptions, LaneKey, LogKey, PageLimit,
};
use lapwing_store::{DiskOptions, Engine};

const ROOT: &str = "LAPWING_STORE_WRITER_ROOT";
const ENGINE: &str = "LAPWING_STORE_WRITER_ENGINE";
/// Small, so that new partitions open all the time.
const PARTITION_BYTES_MAX: u64 = 300_000;
/// Entries that share a flush.
const GROUP: u64 = 20;

pub(crate) fn open(root: &Path, engine: Engine) -> Journal {
    let options = JournalOptions {
        partition_bytes_max: PARTITION_BYTES_MAX,
        ..JournalOptions::new(Incarnation::Keep([7; 16]), 0)
    };
    let partitions = DirectoryPartitions::new(root, DiskOptions::of(engine));
    match Journal::open(Arc::new(partitions), &options) {
        Ok(journal) => journal,
        Err(error) => panic!("{engine}: the store does not open: {error}"),
    }
}

/// Entry number `n` of the journal, whole and recognisable.
fn entry(n: u64) -> Append {
    let sensor = [n.to_le_bytes()[0] % 5; 16];
    Append {
        log: LogKey { lane: LaneKey { sensor, lane: 0 }, log: [1; 16] },
        segment: n / 50,
        received_wall_ms: 0,
        header: n.to_le_bytes().to_vec(),
        body: n.to_le_bytes().repeat(1 + (n as usize * 131) % 2000),
        head: n.to_le_bytes().to_vec(),
    }
}

/// Not a test of its own: the writer commits until it is ended, or its disk is.
#[test]
fn child() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let engine: Engine = std::env::var(ENGINE).unwrap().parse().unwrap();
    let journal = open(Path::new(&root), engine);
    let mut out = std::io::stdout();
    // Whoever has ended this process may be gone too.
    let mut say = |words: String| writeln!(out, "{words}").and_then(|()| out.flush()).is_ok();
    say("opened".to_owned());
    let mut next = journal.durable() + 1;
    loop {
        let tickets: Vec<_> = (next..next + GROUP).map(|n| journal.append(entry(n))).collect();
        for ticket in tickets {
            let answer = match ticket {
                Ok(ticket) => ticket.wait().map_err(|error| error.to_string()),
                Err(refused) => Err(refused.to_string()),
            };
            match answer {
                Ok(id) => assert!(say(format!("acked {id}"))),
                Err(error) => {
                    say(format!("stopped {error}"));
                    // What is still open may wait for a disk that never answers.
                    std::process::exit(3);
                }
            }
        }
        next += GROUP;
    }
}

/// A writer at work, and what it said so far.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) acked: u64,
    pub(crate) stopped: Option<String>,
}

impl Running {
    pub(crate) fn start(root: &Path, engine: Engine) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROOT, root)
            .env(ENGINE, engine.name())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, acked: 0, stopped: None }
    }

    /// Listens for `count` words of the writer, or until it is gone.
    pub(crate) fn listen(&mut self, count: u64) {
        let mut heard = 0;
        while heard < count {
            let Some(Ok(line)) = self.lines.next() else { return };
            heard += u64::from(self.hear(&line));
        }
    }

    fn hear(&mut self, line: &str) -> bool {
        // The harness writes the test's name in front of the first words, on the same line.
        if let Some((_, id)) = line.rsplit_once("acked ") {
            assert!(self.stopped.is_none(), "acknowledged {id} after {:?}", self.stopped);
            if let Ok(id) = id.parse::<u64>() {
                assert!(id > self.acked, "acknowledged {id} behind {}", self.acked);
                self.acked = id;
            }
        } else if let Some((_, error)) = line.rsplit_once("stopped ") {
            self.stopped = Some(error.to_owned());
        } else {
            return line.ends_with("opened");
        }
        true
    }

    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What is still in the pipe was acknowledged too; the very last line may be cut.
        let rest: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        for line in &rest[..rest.len().saturating_sub(1)] {
            self.hear(line);
        }
        self.acked
    }

    /// Listens until the writer ended by itself; gives the last acknowledged id, and what it said.
    pub(crate) fn end(mut self) -> (u64, Option<String>) {
        self.listen(u64::MAX);
        self.child.wait().unwrap();
        (self.acked, self.stopped)
    }
}

/// Everything up to the last acknowledged entry is there, each one whole, once, in its place; and
/// so are the heads.
pub(crate) fn verify(journal: &Journal, acked: u64) {
    assert!(journal.durable() >= acked, "{} of {acked} are left", journal.durable());
    let mut next = 1;
    while next <= journal.durable() {
        let page = journal.read_from(next, PageLimit::default()).unwrap();
        assert!(page.dropped.is_empty() && page.next > next);
        for stored in page.entries {
            assert_eq!(stored.commit_id, next, "each number once, none left out");
            let expected = entry(stored.commit_id);
            assert_eq!((stored.log, stored.segment), (expected.log, expected.segment));
            assert!(stored.header == expected.header && stored.body == expected.body);
            next += 1;
        }
        assert_eq!(next, page.next);
    }
    for (lane, head) in journal.heads(None, 100).unwrap() {
        let last = journal.entry(head.last_commit).unwrap().unwrap();
        assert_eq!((last.log.lane, last.header), (lane, head.record));
    }
}
