//! What must hold when a world has come to rest. Looks at the journals, never at a counter of the
//! cores.
//!
//! Merged over the servers by (sensor, lane, log, sequence, index):
//! * every numbered fact is stored exactly once, in the log and at the index where it was put, or a
//!   Jump or a Dropped op covers it, or it went with a crash, an image or a backup for which the
//!   promise is only that it is known (a new log after an unclean stop, a finding of lost facts);
//! * no server stores a chunk twice, and one key has two contents only where an image was used;
//! * the table that a server decoded is the sensor's;
//! * no sensor broke a rule of the wire, and what was acknowledged was durable ([`super::server`]);
//! * each command was carried out at most once.

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::element::{Feature, command_outcome, finding};
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::op::DropReason;
use lapwing_server_core::change::{Change, OwnedValue};
use lapwing_server_core::decode::{BuiltIn, Decoder, LogContext};
use lapwing_server_core::delivery::EntryKind;

use super::DEPLOYMENT;
use super::coverage::{Coverage, Reached};
use super::disk::Sync;
use super::sensor::{Excuse, Placed};
use super::server::{ROWS_MAX, ServerMachine, Stored};
use super::world::{Outcome, Place, World};

/// Broken rules reported one by one; more say nothing new.
const REPORTED_MAX: usize = 12;
/// Logs of a lane that a server remembers beside the current one.
const LOGS_REMEMBERED: usize = 8;

type LogKey = (SensorId, Lane, LogId);

/// All journals, merged.
#[derive(Default)]
struct Merged {
    /// The contents of each key, as stored by whomever.
    chunks: BTreeMap<(LogKey, u64), Vec<Vec<u8>>>,
    /// Where each fact is stored: log, index.
    facts: BTreeMap<u64, BTreeSet<(LogId, u64, Vec<u8>)>>,
    /// Indices of stored chunks, from and behind.
    taken: BTreeMap<LogKey, Vec<(u64, u64)>>,
    /// Indices that Jumps or Dropped ops cover, from and behind.
    covered: BTreeMap<LogKey, Vec<(u64, u64)>>,
    /// Where Jumps for what was dropped, or went with the power, begin.
    dropped_from: BTreeMap<LogKey, Vec<u64>>,
    /// Facts that findings say are lost, by sensor.
    told_lost: BTreeMap<SensorId, u64>,
}

pub(crate) fn judge(seed: u64, world: &mut World<'_>) -> Outcome {
    let mut outcome = Outcome { seed, faults: world.faults, ..Outcome::default() };
    outcome.broken.append(&mut world.broken);
    if !world.is_at_rest() {
        outcome.broken.push(unrest(world));
    }
    let mut merged = Merged::default();
    for server in &world.servers {
        read_journal(server, world, &mut merged, &mut outcome);
        outcome.broken.extend(server.broken.iter().cloned());
        for sensor in server.belied.iter().filter(|sensor| !has_images(world, **sensor)) {
            outcome.broken.push(format!("server {}: {sensor} belied its chain", server.number));
        }
    }
    // A Jump that a restore took away told of what it covered all the same.
    for stored in &world.gone {
        note_dropped(&mut merged, stored);
    }
    judge_keys(world, &merged, &mut outcome);
    judge_facts(world, &merged, &mut outcome);
    judge_tables(world, &mut outcome);
    for place in &world.places {
        let (number, truth) = (place.sensor.number, &place.sensor.truth);
        outcome.broken.extend(truth.broken.iter().cloned());
        for ((_, command), times) in truth.executed.iter() {
            outcome.coverage.count(Reached::CommandRun);
            if *times > 1 {
                let text = format!("machine {number}: command {command:?} ran {times} times");
                outcome.broken.push(text);
            }
        }
    }
    let more = outcome.broken.len().saturating_sub(REPORTED_MAX);
    outcome.broken.truncate(REPORTED_MAX);
    if more > 0 {
        outcome.broken.push(format!("and {more} more"));
    }
    outcome.coverage.add(&world.coverage);
    outcome.trace = world.trace();
    outcome
}

fn unrest(world: &World<'_>) -> String {
    let mut text = String::from("it did not come to rest:");
    for place in world.places.iter().filter(|place| !place.is_retired) {
        let Some(life) = place.sensor.life() else {
            text += &format!(" machine {} is dead;", place.sensor.number);
            continue;
        };
        let stands = [Lane::Bulk, Lane::Urgent].map(|lane| {
            let at = life.positions(lane);
            (at.acked.seq, at.made.seq, place.sensor.disk.tail(lane).is_some())
        });
        let (number, at, online) = (place.sensor.number, life.place(), life.server().is_some());
        text += &format!(" machine {number} {at:?} online {online} {stands:?};");
    }
    text
}

fn read_journal(
    server: &ServerMachine,
    world: &World<'_>,
    merged: &mut Merged,
    outcome: &mut Outcome,
) {
    let built_in = BuiltIn::default();
    let mut decoders: BTreeMap<LogKey, Decoder> = BTreeMap::new();
    let mut seen: BTreeMap<LogKey, BTreeSet<u64>> = BTreeMap::new();
    // Logs without a spool that dropped rows: until a keyframe the tables differ, as announced.
    let mut differs: BTreeSet<LogKey> = BTreeSet::new();
    for stored in &server.disk.journal {
        let (sensor, entry) = (stored.sensor, &stored.entry);
        let key = (sensor, entry.lane, entry.log);
        let first_seq = match entry.kind {
            EntryKind::Chunk { .. } => entry.seq,
            EntryKind::Jump { from_seq, .. } => from_seq,
        };
        let begins_again = first_seq == 1 && seen.contains_key(&key);
        if begins_again && may_be_forgotten(world, sensor, entry.lane) {
            // HEL-034: it comes again, and readers tell by the key.
            seen.remove(&key);
            decoders.remove(&key);
        }
        let context =
            LogContext { deployment: DEPLOYMENT, sensor, lane: entry.lane, log: entry.log };
        let decoder = decoders
            .entry(key)
            .or_insert_with(|| Decoder::new(context, ROWS_MAX, built_in.clone()));
        if let EntryKind::Jump { first_index, to_index, cause, .. } = entry.kind {
            count_cause(cause, &mut outcome.coverage);
            decoder.await_opening();
            differs.insert(key);
            note_dropped(merged, stored);
            if !matches!(cause, JumpCause::StoredElsewhere(_)) {
                let behind = to_index.map_or(u64::MAX, |index| index.saturating_add(1));
                merged.covered.entry(key).or_default().push((first_index, behind));
            }
            continue;
        }
        if !seen.entry(key).or_default().insert(entry.seq) {
            outcome.broken.push(format!(
                "server {} stored chunk {} of {} twice",
                server.number, entry.seq, entry.log
            ));
        }
        note_content(merged, (key, entry.seq), &entry.bytes, &mut outcome.coverage);
        if opens_table(&entry.bytes) {
            differs.remove(&key);
        }
        let may_differ = differs.contains(&key) || has_images(world, sensor);
        read_chunk(decoder, stored, may_differ, merged, outcome);
    }
}

/// Remembers where a Jump for what was dropped, or went with the power, begins.
fn note_dropped(merged: &mut Merged, stored: &Stored) {
    let entry = &stored.entry;
    let memory_lost = JumpCause::Lost(LossReason::MemoryLost);
    if let EntryKind::Jump { first_index, cause, .. } = entry.kind
        && (matches!(cause, JumpCause::Dropped(_)) || cause == memory_lost)
    {
        let key = (stored.sensor, entry.lane, entry.log);
        merged.dropped_from.entry(key).or_default().push(first_index);
    }
}

/// Whether a sensor had more logs of a lane than a server remembers: then one that it goes back to,
/// for an image or for progress that a power cut took, is new to the server (HEL-034).
fn may_be_forgotten(world: &World<'_>, sensor: SensorId, lane: Lane) -> bool {
    let of_sensor = world.places.iter().filter(|place| place.sensor.sensor == sensor);
    let logs = of_sensor.flat_map(|place| &place.sensor.truth.logs);
    logs.filter(|log| log.0 == lane).count() > LOGS_REMEMBERED
}

fn note_content(merged: &mut Merged, key: (LogKey, u64), bytes: &[u8], coverage: &mut Coverage) {
    let contents = merged.chunks.entry(key).or_default();
    if contents.iter().any(|known| known == bytes) {
        return coverage.count(Reached::StoredTwice);
    }
    if !contents.is_empty() {
        coverage.count(Reached::ForkSeen);
    }
    contents.push(bytes.to_vec());
}

fn read_chunk(
    decoder: &mut Decoder,
    stored: &Stored,
    may_differ: bool,
    merged: &mut Merged,
    outcome: &mut Outcome,
) {
    let (sensor, entry) = (stored.sensor, &stored.entry);
    let key = (sensor, entry.lane, entry.log);
    let Ok(chunk) = Chunk::decode(&entry.bytes) else {
        return outcome.broken.push(format!("{} chunk {} is none", entry.log, entry.seq));
    };
    let indices = chunk.header.first_index..chunk.header.first_index + chunk.header.count;
    merged.taken.entry(key).or_default().push((indices.start, indices.end));
    let decoded = match decoder.handle_chunk(&chunk) {
        Ok(decoded) => decoded,
        Err(error) => {
            if !may_differ {
                outcome.broken.push(format!("{sensor} {} chunk {}: {error}", entry.log, entry.seq));
            }
            return;
        }
    };
    if decoded.divergent && !may_differ {
        outcome
            .broken
            .push(format!("{sensor} {} chunk {} has another digest", entry.log, entry.seq));
    }
    let mut indices: BTreeSet<u64> = indices.collect();
    for change in &decoded.changes {
        if let Some(index) = change.index {
            indices.remove(&index);
            if let Some(source_seq) = change.source_seq {
                let place = (entry.log, index, entry.bytes.clone());
                merged.facts.entry(source_seq).or_default().insert(place);
            }
        }
        note_urgent(sensor, change, merged, &mut outcome.coverage);
    }
    for index in indices {
        outcome.coverage.count(Reached::DroppedOp);
        merged.covered.entry(key).or_default().push((index, index + 1));
    }
}

/// Whether a keyframe ends with this chunk.
fn opens_table(bytes: &[u8]) -> bool {
    let last = lapwing_protocol::chunk::ChunkFlags::KEYFRAME_LAST;
    Chunk::decode(bytes).is_ok_and(|chunk| chunk.header.flags.has(last))
}

fn note_urgent(sensor: SensorId, change: &Change, merged: &mut Merged, coverage: &mut Coverage) {
    let number = |feature| number_of(change, feature);
    if change.model.kind == finding::KIND
        && number(finding::code) == Some(u64::from(Code::FACTS_LOST.0))
    {
        coverage.count(Reached::LossFinding);
        *merged.told_lost.entry(sensor).or_default() += number(finding::lost).unwrap_or(0);
    }
    let interrupted = lapwing_protocol::command::Outcome::Interrupted as u64;
    if change.model.kind == command_outcome::KIND
        && number(command_outcome::outcome) == Some(interrupted)
    {
        coverage.count(Reached::CommandInterrupted);
    }
}

fn number_of(change: &Change, feature: Feature) -> Option<u64> {
    match change.value(feature)? {
        OwnedValue::U64(number) => Some(*number),
        _ => None,
    }
}

/// The command whose outcome a chunk of the urgent lane tells.
pub(super) fn outcome_of(sensor: SensorId, chunk: &Chunk<'_>) -> Option<CommandNumber> {
    let log = LogId([0; 16]);
    let context = LogContext { deployment: DEPLOYMENT, sensor, lane: Lane::Urgent, log };
    let mut decoder = Decoder::new(context, ROWS_MAX, BuiltIn::default());
    let decoded = decoder.handle_chunk(chunk).ok()?;
    decoded.changes.iter().find(|it| it.model.kind == command_outcome::KIND).and_then(|change| {
        let issuer = number_of(change, command_outcome::issuer)?;
        let seq = number_of(change, command_outcome::command_seq)?;
        Some(CommandNumber { issuer, seq })
    })
}

fn count_cause(cause: JumpCause, coverage: &mut Coverage) {
    coverage.count(match cause {
        JumpCause::Dropped(DropReason::SpoolFull) => Reached::DroppedSpoolFull,
        JumpCause::Dropped(DropReason::SpoolFailed) => Reached::DroppedSpoolFailed,
        JumpCause::Dropped(DropReason::MemoryFull) => Reached::DroppedMemoryFull,
        JumpCause::StoredElsewhere(_) => Reached::StoredElsewhere,
        JumpCause::Lost(LossReason::ServerRolledBack) => Reached::LostServerRolledBack,
        JumpCause::Lost(LossReason::SpoolDamaged) => Reached::LostSpoolDamaged,
        JumpCause::Lost(LossReason::MemoryLost) => Reached::LostMemory,
        // No sensor of ours says these.
        JumpCause::Dropped(_) => return,
    });
}

/// Whether two branches of one sensor's logs may exist: an image was used.
fn has_images(world: &World<'_>, sensor: SensorId) -> bool {
    let of_sensor = world.places.iter().filter(|place| place.sensor.sensor == sensor);
    of_sensor.into_iter().any(|place| place.is_cloned || place.sensor.truth.rollbacks > 0)
}

/// One key, one content: but for branches that an image made.
fn judge_keys(world: &World<'_>, merged: &Merged, outcome: &mut Outcome) {
    for (((sensor, lane, log), seq), contents) in &merged.chunks {
        if contents.len() > 1 && !has_images(world, *sensor) {
            outcome.broken.push(format!("{lane:?} {log} chunk {seq} has two contents"));
        }
    }
}

fn judge_facts(world: &World<'_>, merged: &Merged, outcome: &mut Outcome) {
    let mut given_up: BTreeMap<SensorId, u64> = BTreeMap::new();
    let mut doubtful: BTreeMap<SensorId, Vec<String>> = BTreeMap::new();
    for place in &world.places {
        let (number, sensor) = (place.sensor.number, place.sensor.sensor);
        let current = place.sensor.current(Lane::Bulk);
        for (source_seq, placed) in &place.sensor.truth.placed {
            outcome.facts += 1;
            let fact = source_seq & 0xffff_ffff;
            let name = format!("machine {number} fact {fact} ({} {})", placed.log, placed.index);
            let found = merged.facts.get(source_seq);
            match found.map_or(0, BTreeSet::len) {
                0 => {}
                1 => {
                    let is_there = found.is_some_and(|places| {
                        places
                            .iter()
                            .all(|(log, index, _)| (*log, *index) == (placed.log, placed.index))
                    });
                    if !is_there {
                        outcome.broken.push(format!("{name} is stored elsewhere"));
                    }
                    outcome.stored += 1;
                    continue;
                }
                times => {
                    outcome.doubled += 1;
                    outcome.broken.push(format!("{name} is stored {times} times"));
                    continue;
                }
            }
            let is_in = |runs: &BTreeMap<LogKey, Vec<(u64, u64)>>| {
                runs.get(&(sensor, Lane::Bulk, placed.log)).is_some_and(|runs| {
                    runs.iter().any(|(from, behind)| (*from..*behind).contains(&placed.index))
                })
            };
            match placed.excuse {
                _ if is_in(&merged.covered) => outcome.covered += 1,
                None if has_images(world, sensor)
                    && is_in(&merged.taken)
                    && is_jump_behind(merged, (sensor, Lane::Bulk, placed.log), placed.index) =>
                {
                    outcome.unknown += 1;
                    if !placed.is_told {
                        doubtful.entry(sensor).or_default().push(name);
                    }
                }
                Some(Excuse::PowerCut) if must_be_told(world, place, placed) => {
                    outcome.lost += 1;
                    outcome.broken.push(format!("{name} went with the power, and no Jump says so"));
                }
                // A crash is told by the next log.
                Some(Excuse::Killed | Excuse::PowerCut) if placed.log != current => {
                    outcome.unknown += 1;
                }
                Some(Excuse::RolledBack) => outcome.unknown += 1,
                Some(Excuse::ServerRestored(_)) if !knows_of_restore(world, place, placed) => {
                    outcome.unknown += 1;
                }
                Some(Excuse::GivenUp) => {
                    outcome.unknown += 1;
                    *given_up.entry(sensor).or_default() += 1;
                }
                excuse => {
                    outcome.lost += 1;
                    outcome.broken.push(format!("{name} is lost, {excuse:?}"));
                }
            }
        }
    }
    judge_doubtful(merged, doubtful, outcome);
    judge_given_up(world, merged, &given_up, outcome);
}

/// What a server's word within a hole may have taken is told by findings, whatever came since:
/// here one of lost facts, where not the one that told of the drop.
fn judge_doubtful(
    merged: &Merged,
    doubtful: BTreeMap<SensorId, Vec<String>>,
    outcome: &mut Outcome,
) {
    for (sensor, facts) in doubtful {
        let told = merged.told_lost.get(&sensor).copied().unwrap_or_default();
        for name in facts.into_iter().skip(told as usize) {
            (outcome.unknown, outcome.lost) = (outcome.unknown - 1, outcome.lost + 1);
            outcome.broken.push(format!("{name} is lost in another branch's place"));
        }
    }
}

/// Whether a Jump must tell of what a power cut took: not where all is synced that is sent, the log
/// was given up, or an image took back what was to tell.
fn must_be_told(world: &World<'_>, place: &Place<'_>, placed: &Placed) -> bool {
    let sensor = &place.sensor;
    sensor.kept == Memory::Disk
        && sensor.disk.sync == Sync::Interval
        && !sensor.truth.given_up.contains(&placed.log)
        && !has_images(world, sensor.sensor)
}

/// Whether a sensor stands at the server that was put back, with the log that it was in: then it
/// has said Hello since, and either sends again what it holds or tells what it does not. Not where
/// another was put back as well, which it may count on, or where its own disk was.
fn knows_of_restore(world: &World<'_>, place: &Place<'_>, placed: &Placed) -> bool {
    let Some(Excuse::ServerRestored(Some(server))) = placed.excuse else { return false };
    let stands_at = place.sensor.life().and_then(|life| life.server());
    stands_at == Some(server)
        && !has_images(world, place.sensor.sensor)
        && placed.log == place.sensor.current(Lane::Bulk)
}

/// Whether a Jump for what was dropped begins behind a fact. Where the fact's place is taken, the
/// server stands within a hole with a chunk of the branch that an image ended, and of what was
/// dropped no chain is left to tell the two apart: its word is taken (HEL-038).
fn is_jump_behind(merged: &Merged, key: LogKey, index: u64) -> bool {
    merged.dropped_from.get(&key).is_some_and(|begins| begins.iter().any(|first| *first > index))
}

/// What went with a log that was given up is told by findings.
fn judge_given_up(
    world: &World<'_>,
    merged: &Merged,
    given_up: &BTreeMap<SensorId, u64>,
    outcome: &mut Outcome,
) {
    for (sensor, facts) in given_up {
        let of_sensor = world.places.iter().filter(|place| place.sensor.sensor == *sensor);
        // A finding may itself go with a crash or an image.
        let is_certain = of_sensor.into_iter().all(|place| {
            // Of a clone's old log, a server that has more of the other branch says that it has
            // all; and what a process was to tell goes with it.
            let logs = &place.sensor.truth.logs;
            let is_whole = logs.iter().all(|log| log.2 != LogCause::Unclean);
            place.sensor.truth.disasters == 0 && !place.is_cloned && is_whole
        });
        let told = merged.told_lost.get(sensor).copied().unwrap_or_default();
        if is_certain && told < *facts {
            outcome.broken.push(format!("{sensor}: {facts} facts went, {told} are told of"));
        }
    }
}

fn judge_tables(world: &World<'_>, outcome: &mut Outcome) {
    for place in world.places.iter().filter(|place| !place.is_retired) {
        let sensor = &place.sensor;
        let Some((life, server)) = sensor.life().and_then(|life| Some((life, life.server()?)))
        else {
            continue;
        };
        let server = world.servers.iter().find(|known| known.server == server);
        let decoded = server.and_then(|server| server.digest(sensor.sensor));
        // Who told nothing since its start must have nothing to tell: its server still has the rows
        // of the life before.
        let has_told = life.stats().lanes[0].chunks_made > 0;
        if !has_told && life.stats().rows > 0 {
            outcome.broken.push(format!("machine {} told nothing of its rows", sensor.number));
        }
        if has_told && sensor.kept == Memory::Disk && decoded != Some(life.digest()) {
            let (number, digest) = (sensor.number, life.digest());
            outcome.broken.push(format!(
                "machine {number}'s table has digest {digest:016x}, its server's {decoded:x?}"
            ));
        }
    }
}
