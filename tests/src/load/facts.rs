//! From events to facts: what a sensor that saw these events would tell.
//!
//! Processes and connections are rows that begin and end; file changes and look-ups are events that
//! refer to their process. What the row of the process says already, its path and its user, is not
//! said again with each of its events.
//!
//! Not here: what the core makes of a fact. Invariants: each event gives one fact with its
//! source_seq; facts without one stand for what the corpus does not tell: that an element which is
//! forgotten here has ended, or that one began before the corpus.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use lapwing_protocol::element::{
    Change, Fact, Feature, Field, Kind, Reference, Value, connection, dns, file_event, process,
};
use lapwing_protocol::limits::VALUE_BYTES_MAX;
use lapwing_protocol::varint::Writer;

use super::corpus::{Corpus, Ends, Event, TextId, Texts, What};

/// Fields of the longest fact.
const FIELDS_MAX: usize = 16;
/// Nanoseconds of a clock tick, by which processes are told apart.
const TICK_NS: u64 = 10_000_000;
/// Bytes of a reference's key: two integers.
const KEY_BYTES: usize = 20;

/// Where the corpus' times lie on this machine's clock: it ends when the run begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    first_ns: u64,
    base_ns: u64,
}

impl Timeline {
    /// The corpus' last event happens at `now_ns`, which is far enough from 0.
    pub(super) fn ending_at(now_ns: u64, corpus: &Corpus) -> Self {
        let (first_ns, last_ns) = corpus.span_ns;
        Self { first_ns, base_ns: now_ns.saturating_sub(last_ns - first_ns) }
    }

    /// The moment of an event.
    pub(super) fn time_ns(&self, event: &Event) -> u64 {
        self.base_ns + event.time_ns.saturating_sub(self.first_ns)
    }
}

/// The fields of a fact on the stack.
struct List<'f> {
    fields: [Field<'f>; FIELDS_MAX],
    length: usize,
}

impl<'f> List<'f> {
    fn new() -> Self {
        Self { fields: [Field::new(Feature(0), Value::U64(0)); FIELDS_MAX], length: 0 }
    }

    /// Adds a field; in ascending order of feature, at most [`FIELDS_MAX`] of them.
    fn add(&mut self, feature: Feature, value: Value<'f>) {
        if let Some(place) = self.fields.get_mut(self.length) {
            *place = Field::new(feature, value);
            self.length += 1;
        }
    }

    fn number(&mut self, feature: Feature, number: impl Into<u64>) {
        self.add(feature, Value::U64(number.into()));
    }

    /// Adds a text that is not empty, as much of it as a value may be.
    fn text(&mut self, feature: Feature, bytes: &'f [u8]) {
        if !bytes.is_empty() {
            let length = bytes.len().min(VALUE_BYTES_MAX);
            self.add(feature, Value::Text(bytes.get(..length).unwrap_or_default()));
        }
    }

    fn source(&mut self, source_seq: Option<u64>) {
        if let Some(seq) = source_seq {
            self.add(Feature::SOURCE_SEQ, Value::U64(seq));
        }
    }

    fn give(&self, head: (Kind, Change, u64), take: &mut impl FnMut(&Fact<'_>)) {
        let (kind, change, time_ns) = head;
        let fields = self.fields.get(..self.length).unwrap_or_default();
        take(&Fact { kind, change, time_ns, fields });
    }
}

/// A process that runs.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    start_ticks: u64,
    path: TextId,
    user: TextId,
}

impl Process {
    fn key<'b>(&self, buffer: &'b mut [u8; KEY_BYTES]) -> &'b [u8] {
        let length = {
            let mut writer = Writer::new(buffer);
            // Two integers take at most twenty bytes.
            let _ = writer.unsigned(u64::from(self.pid));
            let _ = writer.unsigned(self.start_ticks);
            writer.len()
        };
        buffer.get(..length).unwrap_or_default()
    }

    fn add_key(&self, list: &mut List<'_>) {
        list.number(process::pid, self.pid);
        list.number(process::start_ticks, self.start_ticks);
    }
}

/// Elements that began, oldest first, and no more than a bound.
#[derive(Debug)]
struct Living<K, V> {
    known: HashMap<K, V>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Living<K, V> {
    fn new(max: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max }
    }

    /// Puts one in; gives the oldest, where there is no room for both.
    fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let mut oldest = None;
        while self.known.len() >= self.max && oldest.is_none() {
            let Some(key) = self.order.pop_front() else { break };
            oldest = self.known.remove(&key).map(|value| (key, value));
        }
        if self.known.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        // What ended stays in the order until its turn comes or there is too much of it.
        if self.order.len() > 2 * self.max {
            let known = &self.known;
            let mut seen = std::collections::HashSet::new();
            self.order.retain(|key| known.contains_key(key) && seen.insert(*key));
        }
        oldest
    }
}

/// A connection by its ends and owner.
type ConnectionKey = (u32, Ends);

/// What one sensor knows of its machine.
#[derive(Debug)]
pub(super) struct World {
    timeline: Timeline,
    processes: Living<u32, Process>,
    /// When each open connection was first seen.
    connections: Living<ConnectionKey, u64>,
}

impl World {
    /// A machine of which at most `rows_max` elements are known at once.
    pub(super) fn new(timeline: Timeline, rows_max: usize) -> Self {
        let max = (rows_max / 2).max(1);
        Self { timeline, processes: Living::new(max), connections: Living::new(max) }
    }

    /// Hands `take` the facts of an event, in order.
    pub(super) fn tell(&mut self, event: &Event, texts: &Texts, mut take: impl FnMut(&Fact<'_>)) {
        let time_ns = self.timeline.time_ns(event);
        match event.what {
            What::ProcessStart { .. } => self.start(event, texts, &mut take),
            What::ProcessEnd { .. } => self.end(event, texts, &mut take),
            What::Connect { ends, .. } => {
                let key = (event.pid, ends);
                if let Some(first_seen) = self.connections.known.remove(&key) {
                    end_connection((&ends, first_seen), time_ns, &mut take);
                }
                let oldest = self.connections.insert(key, time_ns);
                if let Some(((_, ends), first_seen)) = oldest {
                    end_connection((&ends, first_seen), time_ns, &mut take);
                }
                self.connect(event, texts, Some(event.seq), time_ns, &mut take);
            }
            What::Close { ends, .. } => {
                let known = self.connections.known.remove(&(event.pid, ends));
                let first_seen = known.unwrap_or(time_ns);
                if known.is_none() {
                    self.connect(event, texts, None, first_seen, &mut take);
                }
                self.close(event, first_seen, &mut take);
            }
            What::File { .. } => self.file(event, texts, &mut take),
            What::Dns { .. } => self.dns(event, texts, &mut take),
        }
    }

    fn start(&mut self, event: &Event, texts: &Texts, take: &mut impl FnMut(&Fact<'_>)) {
        let What::ProcessStart { ppid, command_line, uid, user, parent_path, hash, folder } =
            event.what
        else {
            return;
        };
        let time_ns = self.timeline.time_ns(event);
        let mut started =
            Process { pid: event.pid, start_ticks: time_ns / TICK_NS, path: event.path, user };
        let parent = self.processes.known.get(&ppid).copied();
        if let Some(before) = self.processes.known.remove(&event.pid) {
            end_process(&before, time_ns, take);
            started.start_ticks = started.start_ticks.max(before.start_ticks + 1);
        }
        if let Some((_, oldest)) = self.processes.insert(event.pid, started) {
            end_process(&oldest, time_ns, take);
        }
        let mut key = [0; KEY_BYTES];
        let mut list = List::new();
        list.source(Some(event.seq));
        started.add_key(&mut list);
        if let Some(parent) = &parent {
            let key = parent.key(&mut key);
            list.add(process::parent, Value::Ref(Reference { kind: process::KIND, key }));
        }
        list.text(process::image_path, texts.get(event.path));
        list.text(process::command_line, texts.get(command_line));
        list.number(process::uid, uid);
        list.text(process::user, texts.get(user));
        if let Some(hash) = hash {
            list.add(process::image_hash, Value::Hash(texts.get(hash)));
        }
        list.text(process::working_directory, texts.get(folder));
        if parent.is_none_or(|parent| parent.path != parent_path) {
            list.text(process::parent_image_path, texts.get(parent_path));
        }
        list.give((process::KIND, Change::Whole, time_ns), take);
    }

    fn end(&mut self, event: &Event, texts: &Texts, take: &mut impl FnMut(&Fact<'_>)) {
        let What::ProcessEnd { exit_code, user_time_us, system_time_us, duration_ms } = event.what
        else {
            return;
        };
        let time_ns = self.timeline.time_ns(event);
        let ended = match self.processes.known.remove(&event.pid) {
            Some(known) => known,
            None => unseen(event, texts, time_ns, take),
        };
        let mut list = List::new();
        list.source(Some(event.seq));
        ended.add_key(&mut list);
        list.add(process::exit_code, Value::I64(i64::from(exit_code)));
        list.number(process::duration_ms, duration_ms);
        list.number(process::user_time_us, user_time_us);
        list.number(process::system_time_us, system_time_us);
        list.give((process::KIND, Change::Ended, time_ns), take);
    }

    fn connect(
        &self,
        event: &Event,
        texts: &Texts,
        source_seq: Option<u64>,
        first_seen: u64,
        take: &mut impl FnMut(&Fact<'_>),
    ) {
        let (What::Connect { ends, user, .. } | What::Close { ends, user, .. }) = event.what else {
            return;
        };
        let is_inbound = matches!(event.what, What::Connect { is_inbound: true, .. });
        let (mut key, owner) = ([0; KEY_BYTES], self.owner(event));
        let mut list = List::new();
        list.source(source_seq);
        add_ends(&mut list, &ends, first_seen);
        if let Some(owner) = &owner {
            let key = owner.key(&mut key);
            list.add(connection::process, Value::Ref(Reference { kind: process::KIND, key }));
        }
        list.number(connection::direction, if is_inbound { 2_u64 } else { 1 });
        if owner.is_none_or(|owner| owner.user != user) {
            list.text(connection::user, texts.get(user));
        }
        if owner.is_none_or(|owner| owner.path != event.path) {
            list.text(connection::image_path, texts.get(event.path));
        }
        list.give((connection::KIND, Change::Whole, first_seen), take);
    }

    fn close(&self, event: &Event, first_seen: u64, take: &mut impl FnMut(&Fact<'_>)) {
        let What::Close { ends, sent, received, duration_ms, .. } = event.what else { return };
        let mut list = List::new();
        list.source(Some(event.seq));
        add_ends(&mut list, &ends, first_seen);
        list.number(connection::bytes_sent, sent);
        list.number(connection::bytes_received, received);
        list.number(connection::duration_ms, duration_ms);
        list.give((connection::KIND, Change::Ended, self.timeline.time_ns(event)), take);
    }

    fn file(&self, event: &Event, texts: &Texts, take: &mut impl FnMut(&Fact<'_>)) {
        let What::File { action, file, user, bytes, mode, inode } = event.what else { return };
        let (mut key, owner) = ([0; KEY_BYTES], self.owner(event));
        let mut list = List::new();
        list.source(Some(event.seq));
        list.text(file_event::path, texts.get(file));
        list.number(file_event::action, action);
        if let Some(owner) = &owner {
            let key = owner.key(&mut key);
            list.add(file_event::process, Value::Ref(Reference { kind: process::KIND, key }));
        }
        if owner.is_none_or(|owner| owner.user != user) {
            list.text(file_event::user, texts.get(user));
        }
        list.number(file_event::file_bytes, bytes);
        list.number(file_event::mode, mode);
        list.number(file_event::inode, inode);
        if owner.is_none_or(|owner| owner.path != event.path) {
            list.text(file_event::image_path, texts.get(event.path));
        }
        list.give((file_event::KIND, Change::Event, self.timeline.time_ns(event)), take);
    }

    fn dns(&self, event: &Event, texts: &Texts, take: &mut impl FnMut(&Fact<'_>)) {
        let What::Dns { question, question_type, code, answers, user } = event.what else { return };
        let (mut key, owner) = ([0; KEY_BYTES], self.owner(event));
        let mut list = List::new();
        list.source(Some(event.seq));
        list.text(dns::question, texts.get(question));
        list.number(dns::question_type, question_type);
        list.number(dns::response_code, code);
        list.text(dns::answers, texts.get(answers));
        if let Some(owner) = &owner {
            let key = owner.key(&mut key);
            list.add(dns::process, Value::Ref(Reference { kind: process::KIND, key }));
        }
        if owner.is_none_or(|owner| owner.user != user) {
            list.text(dns::user, texts.get(user));
        }
        if owner.is_none_or(|owner| owner.path != event.path) {
            list.text(dns::image_path, texts.get(event.path));
        }
        list.give((dns::KIND, Change::Event, self.timeline.time_ns(event)), take);
    }

    fn owner(&self, event: &Event) -> Option<Process> {
        self.processes.known.get(&event.pid).copied()
    }
}

fn add_ends(list: &mut List<'_>, ends: &Ends, first_seen: u64) {
    list.number(connection::protocol, ends.protocol);
    list.add(connection::local_address, Value::Ip(ends.local.0));
    list.number(connection::local_port, ends.local.1);
    list.add(connection::remote_address, Value::Ip(ends.remote.0));
    list.number(connection::remote_port, ends.remote.1);
    list.add(connection::first_seen, Value::Time(first_seen));
}

/// A process that ended and of which no start is known: its row is told before its end.
fn unseen(event: &Event, texts: &Texts, time_ns: u64, take: &mut impl FnMut(&Fact<'_>)) -> Process {
    let process = Process {
        pid: event.pid,
        start_ticks: time_ns / TICK_NS,
        path: event.path,
        user: TextId::EMPTY,
    };
    let mut list = List::new();
    process.add_key(&mut list);
    list.text(process::image_path, texts.get(event.path));
    list.give((process::KIND, Change::Whole, time_ns), take);
    process
}

fn end_process(ended: &Process, time_ns: u64, take: &mut impl FnMut(&Fact<'_>)) {
    let mut list = List::new();
    ended.add_key(&mut list);
    list.give((process::KIND, Change::Ended, time_ns), take);
}

fn end_connection(
    (ends, first_seen): (&Ends, u64),
    time_ns: u64,
    take: &mut impl FnMut(&Fact<'_>),
) {
    let mut list = List::new();
    add_ends(&mut list, ends, first_seen);
    list.give((connection::KIND, Change::Ended, time_ns), take);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::load::sample;

    /// What the fact was about, and its number.
    type Told = (Kind, Change, Option<u64>);

    fn tell_all(text: &str, rows_max: usize) -> (Vec<Told>, usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let corpus = Corpus::read(file.path(), 1, None, |_| {}).unwrap();
        let mut world = World::new(Timeline::ending_at(1 << 60, &corpus), rows_max);
        let (mut told, mut rows) = (Vec::new(), BTreeSet::new());
        let mut rows_most = 0;
        for event in &corpus.by_sensor[0] {
            world.tell(event, &corpus.texts, |fact| {
                let features: Vec<u16> = fact.fields.iter().map(|field| field.feature.0).collect();
                assert!(features.is_sorted(), "{fact:?}");
                let number = match fact.value(Feature::SOURCE_SEQ) {
                    Some(Value::U64(number)) => Some(number),
                    _ => None,
                };
                let keys = if fact.kind == process::KIND { 3..=4 } else { 3..=8 };
                let is_key = |field: &&Field<'_>| keys.contains(&field.feature.0);
                let key = format!("{:?}", fact.fields.iter().filter(is_key).collect::<Vec<_>>());
                match fact.change {
                    Change::Whole => assert!(rows.insert((fact.kind, key)), "{fact:?}"),
                    Change::Ended => assert!(rows.remove(&(fact.kind, key)), "{fact:?}"),
                    Change::Event | Change::Update => {}
                }
                rows_most = rows_most.max(rows.len());
                told.push((fact.kind, fact.change, number));
            });
        }
        (told, rows_most)
    }

    #[test]
    fn every_event_is_one_numbered_fact_and_rows_begin_before_they_end() {
        let (told, _) = tell_all(&sample::corpus(5_000, 0), 600);
        let numbers: Vec<u64> = told.iter().filter_map(|(_, _, number)| *number).collect();
        assert_eq!(numbers, (0..5_000).collect::<Vec<_>>());
        let implied = told.iter().filter(|(_, _, number)| number.is_none()).count();
        assert!(implied > 0, "the corpus closes what it never opened");
    }

    #[test]
    fn no_more_elements_are_known_than_there_is_room_for() {
        let (told, rows_most) = tell_all(&sample::corpus(5_000, 0), 20);
        assert!(rows_most <= 21, "{rows_most}");
        assert!(told.iter().any(|told| matches!(told, (_, Change::Ended, None))));
    }
}
