//! The writer, a process of its own that says what was acknowledged, and the check of what it left.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

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

/// A writer at work, and what it has said.
pub(crate) struct Running {
    child: Child,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    listener: JoinHandle<()>,
}

/// What a writer has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    words: u64,
    /// The last acknowledged id.
    pub(crate) acked: u64,
    /// Why it ended by itself.
    pub(crate) stopped: Option<String>,
    is_over: bool,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        // The harness writes the test's name in front of the first words, on the same line.
        if let Some((_, id)) = line.rsplit_once("acked ") {
            assert!(self.stopped.is_none(), "acknowledged {id} after {:?}", self.stopped);
            let id = id.parse::<u64>().unwrap();
            assert!(id > self.acked, "acknowledged {id} behind {}", self.acked);
            self.acked = id;
        } else if let Some((_, error)) = line.rsplit_once("stopped ") {
            self.stopped = Some(error.to_owned());
        } else if !line.ends_with("opened") {
            return;
        }
        self.words += 1;
    }
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
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let listener = std::thread::spawn({
            let heard = Arc::clone(&heard);
            move || {
                let mut line = String::new();
                // A line without its end was cut by the kill: it counts for nothing.
                while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
                    heard.0.lock().unwrap().hear(line.trim_end());
                    heard.1.notify_all();
                    line.clear();
                }
                heard.0.lock().unwrap().is_over = true;
                heard.1.notify_all();
            }
        });
        Self { child, heard, listener }
    }

    /// Waits for `count` words of the writer, or until it is gone; gives what was heard by then.
    pub(crate) fn listen(&self, count: u64) -> Heard {
        let (heard, changed) = &*self.heard;
        let heard = heard.lock().unwrap();
        let enough = changed.wait_while(heard, |heard| heard.words < count && !heard.is_over);
        enough.unwrap().clone()
    }

    /// Kills it; what is still in the pipe was acknowledged too.
    pub(crate) fn kill(mut self) -> Heard {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits until it has ended; gives all that it said.
    pub(crate) fn end(mut self) -> Heard {
        self.child.wait().unwrap();
        self.listener.join().unwrap();
        self.heard.0.lock().unwrap().clone()
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
