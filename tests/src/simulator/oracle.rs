//! What must hold when a world has come to rest. Looks at the journal, never at a counter of the
//! cores.
//!
//! * every fact that happened, and that no kill or power cut took before it was on the disk, is in
//!   the journal exactly once, in the log and at the index where the sensor put it;
//! * no fact is there twice, excused or not;
//! * the table that the journal decodes to is the sensor's;
//! * the sensor broke no rule of the wire: no beyond-credit, no wrong index, nothing malformed;
//! * at no moment did the server acknowledge, by Ack or HelloAck, what was not durable;
//! * each command was carried out at most once.

use std::collections::BTreeMap;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_server_core::decode::{BuiltIn, Decoder, LogContext};
use lapwing_server_core::delivery::EntryKind;

use super::faults::Reached;
use super::world::{Outcome, World};
use super::{DEPLOYMENT, SENSOR};

/// Broken rules reported one by one; more say nothing new.
const REPORTED_MAX: usize = 10;

pub(crate) fn judge(seed: u64, world: &mut World) -> Outcome {
    let mut outcome = Outcome { seed, facts: world.machine.made(), ..Outcome::default() };
    if !world.is_at_rest() {
        outcome.broken.push("it did not come to rest within an hour".into());
    }
    let stored = read_journal(world, &mut outcome);
    for (source_seq, placed) in &world.sensor.placed {
        let found = stored.by_source.get(source_seq).map(Vec::as_slice).unwrap_or_default();
        match found {
            [] if placed.is_excused => outcome.excused += 1,
            [] => {
                outcome.lost += 1;
                let (log, index) = (placed.log, placed.index);
                outcome.broken.push(format!("fact {source_seq} is lost (log {log} index {index})"));
            }
            [(log, index)] if (*log, *index) == (placed.log, placed.index) => {}
            [(log, index)] => outcome.broken.push(format!(
                "fact {source_seq} is at {log} {index}, was put at {} {}",
                placed.log, placed.index
            )),
            many => {
                outcome.doubled += 1;
                outcome.broken.push(format!("fact {source_seq} is stored {} times", many.len()));
            }
        }
    }
    judge_table(world, &stored, &mut outcome);
    for fault in &world.server.faults {
        outcome.broken.push(format!("the sensor broke a rule: {}", fault.text()));
    }
    outcome.broken.extend(world.server.broken.iter().take(REPORTED_MAX).cloned());
    for (number, times) in world.sensor.executed.iter().filter(|(_, times)| **times > 1) {
        outcome.broken.push(format!("command {number:?} was carried out {times} times"));
    }
    outcome.broken.truncate(REPORTED_MAX);
    outcome.coverage = world.coverage.clone();
    outcome.trace = world.trace();
    outcome
}

struct StoredFacts {
    by_source: BTreeMap<u64, Vec<(LogId, u64)>>,
    bulk: Option<Decoder>,
}

fn read_journal(world: &mut World, outcome: &mut Outcome) -> StoredFacts {
    let mut stored = StoredFacts { by_source: BTreeMap::new(), bulk: None };
    let built_in = BuiltIn::default();
    let mut decoders: BTreeMap<Lane, Decoder> = BTreeMap::new();
    for entry in &world.server.journal {
        let context =
            LogContext { deployment: DEPLOYMENT, sensor: SENSOR, lane: entry.lane, log: entry.log };
        let decoder = decoders
            .entry(entry.lane)
            .or_insert_with(|| Decoder::new(context, 1_000, built_in.clone()));
        decoder.open_log(entry.log);
        if let EntryKind::Jump { .. } = entry.kind {
            decoder.await_opening();
            continue;
        }
        let decoded = Chunk::decode(&entry.bytes).map(|chunk| {
            if chunk.header.flags.has(lapwing_protocol::chunk::ChunkFlags::KEYFRAME_LAST) {
                world.coverage.count(Reached::Keyframe);
            }
            decoder.handle_chunk(&chunk)
        });
        match decoded {
            Ok(Ok(decoded)) => {
                if decoded.divergent {
                    outcome.broken.push(format!("chunk {} has another digest", entry.seq));
                }
                for change in decoded.changes {
                    if let (Some(source_seq), Some(index)) = (change.source_seq, change.index) {
                        let places = stored.by_source.entry(source_seq).or_default();
                        places.push((entry.log, index));
                    }
                }
            }
            Ok(Err(error)) | Err(error) => {
                outcome.broken.push(format!("chunk {} does not decode: {error}", entry.seq));
            }
        }
    }
    stored.bulk = decoders.remove(&Lane::Bulk);
    stored
}

fn judge_table(world: &World, stored: &StoredFacts, outcome: &mut Outcome) {
    let (Some(sensor), Some(bulk)) = (world.sensor.life(), &stored.bulk) else { return };
    // A sensor that just started and saw nothing yet has told nothing of its new, empty table.
    let has_told = sensor.stats().lanes[0].chunks_made > 0;
    if has_told && sensor.digest() != bulk.digest() {
        outcome.broken.push(format!(
            "the sensor's table has digest {:016x}, the journal's {:016x}",
            sensor.digest(),
            bulk.digest()
        ));
    }
}
