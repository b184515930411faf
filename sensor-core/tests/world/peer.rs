//! A Detection server in memory: it keeps every promise of the wire, checks the sensor's, and can
//! be told to be stingy, forgetful or rude.

use std::collections::BTreeMap;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::{Ack, Credit, Jump, Nack, NackReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::{
    Hello, HelloAck, LogCause, LogGrant, LogHead, LogParent, LogVerdict, Memory, StoredRange,
};
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::message::Message;

use super::{DEPLOYMENT, SENSOR};

/// What the server keeps of one log.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) next_seq: u64,
    pub(crate) next_index: u64,
    pub(crate) chain: Chain,
    pub(crate) chunks: BTreeMap<u64, Vec<u8>>,
    pub(crate) jumps: Vec<Jump>,
    must_open: bool,
}

/// What a Hello said of one log, and what the server made of it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) lane: Lane,
    pub(crate) log: LogId,
    pub(crate) cause: LogCause,
    pub(crate) parent: Option<LogParent>,
    pub(crate) first_seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) acked_seq: u64,
    pub(crate) elsewhere: Vec<StoredRange>,
    pub(crate) verdict: LogVerdict,
}

#[derive(Clone, Debug, Default)]
struct Granted {
    log: Option<LogId>,
    credit: Credit,
    bytes: u64,
    episode: u32,
    is_waiting: bool,
}

pub(crate) struct Peer {
    pub(crate) id: ServerId,
    pub(crate) heads: BTreeMap<(Lane, LogId), Head>,
    pub(crate) output: Vec<u8>,
    /// Chunks and bytes of credit beyond what is stored.
    pub(crate) chunks_ahead: u64,
    pub(crate) bytes_ahead: u64,
    pub(crate) rows_max: u32,
    /// Whether acknowledgements are held back.
    pub(crate) is_silent: bool,
    /// Refuse this many chunks yet to come.
    pub(crate) nacks: u32,
    pub(crate) hellos: usize,
    pub(crate) memory: Option<Memory>,
    /// What all Hellos said, log by log.
    pub(crate) said: Vec<Said>,
    /// Chunks that came although they were stored.
    pub(crate) repeats: usize,
    /// Chains that a log starts with are disturbed by this: another deployment.
    pub(crate) start_flip: u8,
    /// Says of every log that it forked.
    pub(crate) is_forking: bool,
    granted: BTreeMap<Lane, Granted>,
    input: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(id: u8) -> Self {
        Self {
            id: ServerId([id; 16]),
            heads: BTreeMap::new(),
            output: Vec::new(),
            chunks_ahead: 100,
            bytes_ahead: 1 << 20,
            rows_max: 1_000,
            is_silent: false,
            nacks: 0,
            hellos: 0,
            memory: None,
            said: Vec::new(),
            repeats: 0,
            start_flip: 0,
            is_forking: false,
            granted: BTreeMap::new(),
            input: Vec::new(),
        }
    }

    pub(crate) fn connected(&mut self) {
        self.granted.clear();
        self.input.clear();
        self.output.clear();
    }

    pub(crate) fn send(&mut self, message: &Message<'_>) {
        let mut buffer = vec![0; 65_536];
        let length = message.encode(&mut buffer).expect("room");
        self.output.extend(&buffer[..length]);
    }

    pub(crate) fn handle(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        let input = std::mem::take(&mut self.input);
        let mut buffer = vec![0; 65_536];
        let mut deframer = Deframer::new(&mut buffer);
        let mut rest = &input[..];
        loop {
            while let Some(frame) = deframer.next_frame().expect("a frame") {
                match Message::decode(&frame).expect("a message").expect("a known kind") {
                    Message::Hello(hello) => self.hello(&hello),
                    Message::Chunk(chunk) => self.chunk(&chunk, frame.body),
                    Message::Jump(jump) => self.jump(&jump),
                    Message::ChainMark(mark) => {
                        let head = self.head(mark.lane);
                        if head.next_seq == mark.seq + 1 {
                            assert_eq!(head.chain, mark.chain, "the chain it marks");
                        }
                    }
                    Message::Ping(_) | Message::Pong(_) | Message::Reply(_) => {}
                    other => panic!("out of place: {other:?}"),
                }
            }
            if rest.is_empty() {
                break;
            }
            let fed = deframer.feed(rest);
            rest = &rest[fed..];
        }
        assert!(!deframer.is_midway(), "frames are written whole");
    }

    fn hello(&mut self, hello: &Hello<'_>) {
        self.hellos += 1;
        self.memory = Some(hello.memory);
        let mut logs = heapless::Vec::new();
        for head in &hello.logs {
            let grant = self.grant(head);
            self.said.push(Said {
                lane: head.lane,
                log: head.log,
                cause: head.cause,
                parent: head.parent,
                first_seq: head.first_seq,
                next_seq: head.next_seq,
                acked_seq: head.acked_seq,
                elsewhere: head.elsewhere.iter().map(|run| run.expect("a run")).collect(),
                verdict: grant.verdict,
            });
            logs.push(grant).expect("two lanes");
        }
        let id = self.id;
        let ack = HelloAck {
            version: 1,
            capabilities: heapless::Vec::new(),
            server: id,
            name: "peer",
            session_epoch: 1,
            server_ms: 5,
            receive_bytes_max: 65_536,
            rows_max: self.rows_max,
            logs,
        };
        self.send(&Message::HelloAck(ack));
    }

    fn grant(&mut self, head: &LogHead<'_>) -> LogGrant {
        let (lane, log) = (head.lane, head.log);
        let mut start = Chain::start(DEPLOYMENT, SENSOR, lane, log);
        start.0[0] ^= self.start_flip;
        let is_new = !self.heads.contains_key(&(lane, log));
        let known = self.heads.entry((lane, log)).or_insert(Head {
            next_seq: 1,
            next_index: 1,
            chain: start,
            chunks: BTreeMap::new(),
            jumps: Vec::new(),
            must_open: true,
        });
        let verdict = match known.next_seq {
            _ if self.is_forking => LogVerdict::Forked,
            _ if is_new => LogVerdict::New,
            next if next > head.next_seq => LogVerdict::SensorBehind,
            next if next <= head.acked_seq => {
                let runs: Vec<_> = head.elsewhere.iter().map(|run| run.expect("a run")).collect();
                let others = || runs.iter().filter(|run| run.server != self.id);
                let is_elsewhere =
                    |seq| others().any(|run| (run.from_seq..=run.to_seq).contains(&seq));
                let is_moved = (next..=head.acked_seq).all(is_elsewhere);
                if is_moved { LogVerdict::Resume } else { LogVerdict::ServerBehind }
            }
            next if next == head.acked_seq + 1 && known.chain != head.acked_chain => {
                LogVerdict::Forked
            }
            _ => LogVerdict::Resume,
        };
        let credit = Credit {
            limit_seq: known.next_seq - 1 + self.chunks_ahead,
            limit_bytes: self.bytes_ahead,
        };
        let grant = LogGrant {
            lane,
            log,
            verdict,
            next_seq: known.next_seq,
            next_index: known.next_index,
            chain: known.chain,
            credit,
        };
        self.granted.insert(lane, Granted { log: Some(log), credit, ..Granted::default() });
        grant
    }

    fn head(&mut self, lane: Lane) -> &mut Head {
        let log = self.granted[&lane].log.expect("a greeted log");
        self.heads.get_mut(&(lane, log)).expect("a head")
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, bytes: &[u8]) {
        let lane = chunk.header.flags.lane();
        let seq = chunk.header.seq;
        let next_seq = self.head(lane).next_seq;
        let is_refused = self.nacks > 0 && seq == next_seq;
        let granted = self.granted.get_mut(&lane).expect("greeted");
        assert!(seq <= granted.credit.limit_seq, "sequence beyond credit");
        if seq < next_seq {
            self.repeats += 1;
            return self.ack(lane);
        }
        if is_refused {
            granted.is_waiting = false;
        }
        if seq > next_seq || is_refused {
            return self.nack(lane, next_seq);
        }
        granted.is_waiting = false;
        granted.bytes += bytes.len() as u64;
        assert!(granted.bytes <= granted.credit.limit_bytes, "bytes beyond credit");
        let head = self.head(lane);
        assert!(!head.must_open || chunk.header.flags.opens(chunk.header.part), "it must open");
        head.must_open = false;
        head.next_seq += 1;
        head.next_index = chunk.next_index();
        head.chain = head.chain.next(bytes);
        head.chunks.insert(seq, bytes.to_vec());
        self.ack(lane);
    }

    /// One nack an episode; followers are dropped in silence.
    fn nack(&mut self, lane: Lane, next_seq: u64) {
        let granted = self.granted.get_mut(&lane).expect("greeted");
        if granted.is_waiting {
            return;
        }
        granted.is_waiting = true;
        granted.episode += 1;
        let episode = granted.episode;
        self.nacks = self.nacks.saturating_sub(1);
        let reason = NackReason::Throttled;
        self.send(&Message::Nack(Nack { lane, next_seq, episode, reason, retry_after_ms: 0 }));
    }

    fn jump(&mut self, jump: &Jump) {
        let lane = jump.lane;
        let next_seq = self.head(lane).next_seq;
        if jump.from_seq > next_seq {
            return self.nack(lane, next_seq);
        }
        if jump.to_seq + 1 < next_seq {
            return self.ack(lane);
        }
        let head = self.head(lane);
        head.next_seq = jump.to_seq + 1;
        head.chain = jump.chain_at_to;
        if let Some(index) = jump.to_index {
            head.next_index = index + 1;
        }
        head.must_open = true;
        head.jumps.push(*jump);
        self.granted.get_mut(&lane).expect("greeted").is_waiting = false;
        self.ack(lane);
    }

    pub(crate) fn ack(&mut self, lane: Lane) {
        if self.is_silent {
            return;
        }
        let stored_seq = self.head(lane).next_seq - 1;
        let (chunks, bytes) = (self.chunks_ahead, self.bytes_ahead);
        let granted = self.granted.get_mut(&lane).expect("greeted");
        granted.credit = Credit {
            limit_seq: granted.credit.limit_seq.max(stored_seq + chunks),
            limit_bytes: granted.credit.limit_bytes.max(granted.bytes + bytes),
        };
        let credit = granted.credit;
        self.send(&Message::Ack(Ack { lane, stored_seq, safe_seq: stored_seq, credit }));
    }

    /// All that was stored of a log, from chunk `from` on, in order.
    pub(crate) fn read(&self, lane: Lane, log: LogId) -> super::reader::Reader {
        let mut reader = super::reader::Reader::new();
        for (seq, bytes) in &self.heads[&(lane, log)].chunks {
            let jumps = self.heads[&(lane, log)].jumps.iter();
            if jumps.clone().any(|jump| jump.to_seq + 1 == *seq) {
                reader.next_index = Chunk::decode(bytes).unwrap().header.first_index;
            }
            reader.apply(log, bytes);
        }
        reader
    }
}
