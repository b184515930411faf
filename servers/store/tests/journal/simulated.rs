//! Many short lives of a journal with random appends, days, retention, failing disks and power
//! cuts at any moment: what was acknowledged is there, whole and in order, or reported as dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_store::journal::{
    Append, Journal, JournalOptions, LaneKey, MemoryPartitions, PageLimit, Retention,
};

use crate::rig::*;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct World {
    random: Random,
    partitions: Arc<MemoryPartitions>,
    /// Every append that may be stored, by the commit id that it got or would get.
    sent: BTreeMap<u64, Append>,
    acknowledged: u64,
    day: u64,
    segments: [u64; 4],
}

impl World {
    fn life(&mut self) {
        let options = JournalOptions { partition_bytes_max: 3000, ..options(self.day) };
        // An ordered fault that nobody has met yet meets the opening, once.
        let journal = Journal::open(Arc::clone(&self.partitions) as _, &options)
            .or_else(|_| Journal::open(Arc::clone(&self.partitions) as _, &options))
            .unwrap();
        self.verify(&journal);
        for _ in 0..self.random.below(12) {
            match self.random.below(10) {
                0 => self.day += 1,
                1 => {
                    let wall = self.day.saturating_sub(2) * DAY_MS;
                    let retention =
                        Retention { before_wall_ms: Some(wall), ..Retention::default() };
                    journal.retain(retention).unwrap();
                }
                _ => self.append_some(&journal),
            }
        }
        self.die(&journal);
    }

    fn append_some(&mut self, journal: &Journal) {
        let first = journal.durable() + 1;
        let count = 1 + self.random.below(9);
        let tickets: Vec<_> = (first..first + count)
            .map(|id| {
                let append = self.next_append(id);
                self.sent.insert(id, append.clone());
                journal.append(append).unwrap()
            })
            .collect();
        for (id, ticket) in (first..).zip(tickets) {
            assert_eq!(ticket.wait().unwrap(), id);
            self.acknowledged = id;
        }
    }

    fn next_append(&mut self, id: u64) -> Append {
        let sensor = self.random.below(4) as u8;
        let segment = &mut self.segments[usize::from(sensor)];
        *segment += u64::from(self.random.below(5) == 0);
        Append {
            body: vec![id.to_le_bytes()[0]; self.random.below(6000) as usize],
            head: id.to_le_bytes().to_vec(),
            ..append(sensor, *segment, self.day)
        }
    }

    /// Ends this life at any moment: nobody waits for the last entries.
    fn die(&mut self, journal: &Journal) {
        let first = journal.durable() + 1;
        let fails = self.random.below(3) == 0;
        if fails {
            self.partitions.newest_disk().unwrap().fail_next_sync();
        }
        let tickets: Vec<_> = (first..first + self.random.below(30))
            .map_while(|id| {
                let append = self.next_append(id);
                self.sent.insert(id, append.clone());
                journal.append(append).ok()
            })
            .collect();
        if self.random.below(4) != 0 {
            self.partitions.cut_power(self.random.below(4) as usize);
        }
        for ticket in tickets {
            if let Ok(id) = ticket.wait() {
                self.acknowledged = id;
            }
        }
        journal.close();
    }

    fn verify(&mut self, journal: &Journal) {
        let durable = journal.durable();
        assert!(durable >= self.acknowledged, "{durable} of {} are left", self.acknowledged);
        // What was sent behind it is lost, and its numbers are given again.
        self.sent.split_off(&(durable + 1));
        let mut next = 1;
        let mut heads: BTreeMap<LaneKey, u64> = BTreeMap::new();
        heads.extend(self.sent.iter().map(|(id, sent)| (sent.log.lane, *id)));
        while next <= durable {
            let page = journal.read_from(next, PageLimit::default()).unwrap();
            assert!(page.next > next);
            let dropped: u64 = page.dropped.iter().map(|range| range.end - range.start).sum();
            assert_eq!(page.entries.len() as u64 + dropped, page.next - next);
            for entry in page.entries {
                let sent = &self.sent[&entry.commit_id];
                assert_eq!((entry.log, entry.segment), (sent.log, sent.segment));
                assert!(entry.body == sent.body && entry.header == sent.header);
            }
            next = page.next;
        }
        let stored = journal.heads(None, 100).unwrap();
        assert_eq!(stored.len(), heads.len());
        for (lane, head) in stored {
            assert_eq!(head.last_commit, heads[&lane]);
            assert_eq!(head.record, head.last_commit.to_le_bytes());
            self.verify_live_segment(journal, lane, head.segment, head.segment_start);
        }
    }

    /// Retention never takes a part of the segment that a head stands in.
    fn verify_live_segment(&self, journal: &Journal, lane: LaneKey, segment: u64, start: u64) {
        let log = lapwing_store::journal::LogKey { lane, log: [1; 16] };
        let range = journal.log_range(&log, segment..=segment).unwrap();
        let sent = self.sent.iter().filter(|(_, sent)| sent.log == log && sent.segment == segment);
        assert!(range.complete && range.commits[0] == start);
        assert!(range.commits.iter().eq(sent.map(|(id, _)| id)));
    }
}

#[test]
fn what_was_acknowledged_outlives_every_end() {
    for seed in 1..=150 {
        let mut world = World {
            random: Random(seed << 32 | 0x9e37_79b9),
            partitions: in_memory(),
            sent: BTreeMap::new(),
            acknowledged: 0,
            day: 0,
            segments: [1; 4],
        };
        for _ in 0..8 {
            world.life();
        }
    }
}
