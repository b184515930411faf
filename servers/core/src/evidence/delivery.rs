//! What a sensor's delivery is evidence of: a disk that was rolled back, a machine that was copied,
//! a server that lost data, a clock that is wrong, chunks that do not decode.
//!
//! Not here: noticing it (the decision table in [`crate::delivery`], [`DeliveryWatch`], the
//! decoder). Rows HEL-023 to HEL-029, HEL-035 and DLV-010 to DLV-012 of docs/protocol.md.
//!
//! Invariant: an honest sensor that is stopped, killed, cut off from power or moved raises none;
//! the same thing noticed again has the same id.

use lapwing_protocol::console::Severity::{Low, Medium};
use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::delivery::LossReason;
use lapwing_protocol::digest::derived_id;
use lapwing_protocol::element::finding;
use lapwing_protocol::hello::{LogCause, LogVerdict};
use lapwing_protocol::id::{BootId, DeploymentId, ElementGuid, Lane, LogId, SensorId};
use serde::{Deserialize, Serialize};

use super::record::{Evidence, evidence_id};
use crate::delivery::Greeting;
use crate::view::{OwnedCell, OwnedNamedCell};

/// Boots of a sensor that are remembered: a copy of a machine and the machine itself come in turns.
const BOOTS_MAX: usize = 8;
/// How long what was noticed of a sensor counts together, in milliseconds.
const WATCH_MS: u64 = 3_600_000;
/// Sessions of one sensor that a newer one ended while they were open, within that time, from which
/// on two machines are thought of.
const FENCES_MIN: usize = 3;
/// How far a sensor's clock may be off, in milliseconds: certificates and what people compare by
/// eye still work within it.
const SKEW_MS_MAX: u64 = 300_000;

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// HEL-023: the sensor has less of its log than this server.
    RolledBack(Lane, LogId),
    /// HEL-024: the sensor has other chunks under the same numbers.
    Forked(Lane, LogId),
    /// HEL-025: two machines say that they are this sensor.
    Cloned(BootId, &'static str),
    /// HEL-026: somebody came with another key, of this SHA-256.
    OtherKey([u8; 32]),
    /// HEL-027, HEL-028: this server has less of the log than it acknowledged.
    ServerRestored(Lane, LogId),
    /// HEL-029: this server has nothing of a log that it acknowledged.
    ServerDataLost(Lane, LogId),
    /// HEL-028: facts that are nowhere, by a Jump; none where their number is not known.
    FactsLost(Lane, LogId, u64, LossReason, Option<u64>),
    /// HEL-035: the sensor's clock is off by so many milliseconds, ahead or behind.
    ClockSkew(BootId, u64, bool),
    /// DLV-010: a chunk of the segment does not decode.
    Undecodable(Lane, LogId, u64, u64),
    /// STO-054: the entry of a chunk that was acknowledged cannot be read any more.
    JournalDamaged(Lane, LogId, u64),
    /// DLV-012: the state here differs from the sensor's, again and again.
    Divergent(Lane, LogId, u64),
}

/// Whose delivery it is.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The sensor.
    pub sensor: SensorId,
    /// Its machine's name.
    pub machine: &'a str,
    /// The server that noticed it.
    pub server: &'a str,
}

/// What a suspicion says.
struct Wording {
    rule: &'static str,
    severity: Severity,
    title: String,
    key: String,
    place: Option<(Lane, LogId)>,
}

fn journal_damaged(subject: Subject<'_>, (lane, log, seq): (Lane, LogId, u64)) -> Wording {
    let Subject { machine, server, .. } = subject;
    Wording {
        rule: "journal_damaged",
        severity: Medium,
        title: format!(
            "the journal of {server} is damaged: chunk {seq} of {machine} cannot be read"
        ),
        key: format!("{lane:?}:{log}:{seq}"),
        place: Some((lane, log)),
    }
}

impl Suspicion {
    /// It as an evidence.
    #[must_use]
    pub fn evidence(&self, now_ms: u64, subject: Subject<'_>) -> Evidence {
        let Wording { rule, severity, title, key, place } = self.wording(subject);
        let Subject { deployment, sensor, .. } = subject;
        let parts: [&[u8]; 2] = [&deployment.0, &sensor.0];
        let element = ElementGuid(derived_id(b"lapwing-delivery-1", &parts));
        let text = |name: &str, text: String| (name.to_owned(), OwnedCell::Text(text));
        let mut fields: Vec<OwnedNamedCell> = vec![text("server", subject.server.to_owned())];
        if let Some((lane, log)) = place {
            fields.push(text("lane", format!("{lane:?}").to_lowercase()));
            fields.push(text("log", log.to_string()));
        }
        Evidence {
            evidence: evidence_id(rule, element, &key),
            rule: rule.to_owned(),
            title,
            sensor,
            machine: subject.machine.to_owned(),
            user: String::new(),
            element,
            kind: finding::KIND,
            label: format!("delivery of {}", subject.machine),
            root_cause: format!("delivery:{sensor}:{rule}"),
            happened_ms: now_ms,
            raised_ms: now_ms,
            severity,
            activity: ActivityType::None,
            suspicious: true,
            techniques: Vec::new(),
            reputation: Vec::new(),
            fields,
            processes: Vec::new(),
        }
    }

    fn wording(&self, subject: Subject<'_>) -> Wording {
        let Subject { machine, server, .. } = subject;
        let of_log = |rule, severity, lane: &Lane, log: &LogId, title| Wording {
            rule,
            severity,
            title,
            key: format!("{lane:?}:{log}"),
            place: Some((*lane, *log)),
        };
        let plain =
            |rule, severity, key, title| Wording { rule, severity, title, key, place: None };
        match self {
            Self::RolledBack(lane, log) => {
                let title =
                    format!("the disk of {machine} was rolled back: it has less than {server}");
                of_log("sensor_rolled_back", Medium, lane, log, title)
            }
            Self::Forked(lane, log) => {
                let title =
                    format!("{machine} has other chunks than {server} under the same numbers");
                of_log("sensor_forked", Medium, lane, log, title)
            }
            Self::Cloned(boot, why) => {
                let title = format!("two machines are the sensor of {machine}: {why}");
                plain("sensor_cloned", Medium, boot.to_string(), title)
            }
            Self::OtherKey(digest) => {
                let key = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let title =
                    format!("somebody with another key says to be {machine}; it was refused");
                plain("sensor_other_key", Medium, key, title)
            }
            Self::ServerRestored(lane, log) => {
                let title = format!("{server} has less of {machine} than it acknowledged");
                of_log("server_restored", Medium, lane, log, title)
            }
            Self::ServerDataLost(lane, log) => {
                let title =
                    format!("{server} has lost all that it acknowledged of a log of {machine}");
                of_log("server_data_lost", Medium, lane, log, title)
            }
            Self::FactsLost(lane, log, seq, reason, count) => {
                let count = count.map_or("an unknown number of".to_owned(), |it| it.to_string());
                let why = match reason {
                    LossReason::ServerRolledBack => "a server lost them after the sensor let go",
                    LossReason::MemoryLost => "the sensor's memory was lost",
                    LossReason::SpoolDamaged => "the sensor's spool was damaged",
                };
                let title = format!("{count} facts of {machine} are lost: {why}");
                let wording = of_log("facts_lost", Medium, lane, log, title);
                Wording { key: format!("{}:{seq}", wording.key), ..wording }
            }
            Self::ClockSkew(boot, skew_ms, is_ahead) => {
                let side = if *is_ahead { "ahead" } else { "behind" };
                let title = format!("the clock of {machine} is {} s {side}", skew_ms / 1_000);
                plain("clock_skew", Low, format!("{boot}:{side}"), title)
            }
            Self::Undecodable(lane, log, segment, seq) => {
                let title =
                    format!("chunk {seq} of {machine} does not decode; it is kept as it came");
                let wording = of_log("chunk_undecodable", Medium, lane, log, title);
                Wording { key: format!("{}:{segment}", wording.key), ..wording }
            }
            Self::JournalDamaged(lane, log, seq) => journal_damaged(subject, (*lane, *log, *seq)),
            Self::Divergent(lane, log, segment) => {
                let title =
                    format!("the state of {machine} differs from what it sends, again and again");
                let wording = of_log("state_divergent", Low, lane, log, title);
                Wording { key: format!("{}:{segment}", wording.key), ..wording }
            }
        }
    }
}

/// What is remembered of a sensor's sessions, to notice what one Hello alone does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryWatch {
    /// The SHA-256 of the sensor's public key, from its first session on.
    key: Option<[u8; 32]>,
    /// Boots, oldest first; the last is the present one.
    boots: Vec<BootId>,
    /// When sessions were ended by newer ones while they were open, milliseconds since 1970.
    fences: Vec<u64>,
    /// When the sensor was last behind or beside this server.
    branched_ms: Option<u64>,
    /// Segments in which the state differed, and when.
    divergent: Vec<(LogId, u64, u64)>,
}

impl DeliveryWatch {
    /// A sensor comes with a key of this digest: whether it is its own. The first is kept.
    pub fn admit(&mut self, digest: Option<[u8; 32]>) -> Result<(), Suspicion> {
        match (self.key, digest) {
            (Some(known), Some(digest)) if known != digest => Err(Suspicion::OtherKey(digest)),
            (None, Some(digest)) => {
                self.key = Some(digest);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A newer session began while one was open.
    pub fn handle_fence(&mut self, now_ms: u64) {
        self.fences.retain(|at| now_ms.saturating_sub(*at) < WATCH_MS);
        if self.fences.len() < 2 * FENCES_MIN {
            self.fences.push(now_ms);
        }
    }

    /// What a Hello and its answer give cause for.
    pub fn handle_greeting(&mut self, now_ms: u64, greeting: &Greeting) -> Vec<Suspicion> {
        let mut found = Vec::new();
        for log in &greeting.logs {
            let (lane, of) = (log.grant.lane, log.grant.log);
            match log.grant.verdict {
                LogVerdict::SensorBehind => found.push(Suspicion::RolledBack(lane, of)),
                LogVerdict::Forked => found.push(Suspicion::Forked(lane, of)),
                LogVerdict::ServerBehind if log.grant.next_seq == 1 => {
                    found.push(Suspicion::ServerDataLost(lane, of));
                }
                LogVerdict::ServerBehind => found.push(Suspicion::ServerRestored(lane, of)),
                LogVerdict::New | LogVerdict::Resume => {}
            }
            // The sensor compares too, and says by the log's cause what it found.
            match (log.cause, log.parent, log.grant.verdict) {
                (LogCause::RolledBack, Some(parent), LogVerdict::New) => {
                    found.push(Suspicion::RolledBack(lane, parent.log));
                }
                (LogCause::Forked, Some(parent), LogVerdict::New) => {
                    found.push(Suspicion::Forked(lane, parent.log));
                }
                _ => {}
            }
        }
        let is_branch =
            |it: &Suspicion| matches!(it, Suspicion::RolledBack(..) | Suspicion::Forked(..));
        if found.iter().any(is_branch) {
            self.branched_ms = Some(now_ms);
        }
        found.extend(self.cloned(now_ms, greeting.boot));
        found
    }

    fn cloned(&mut self, now_ms: u64, boot: BootId) -> Option<Suspicion> {
        let returned = self.boots.iter().position(|known| *known == boot);
        let is_present = returned.is_some_and(|at| at + 1 == self.boots.len());
        if !is_present {
            if let Some(at) = returned {
                self.boots.remove(at);
            }
            self.boots.push(boot);
            if self.boots.len() > BOOTS_MAX {
                self.boots.remove(0);
            }
        }
        if returned.is_some() && !is_present && !cfg!(mutant = "clone_unnoticed") {
            return Some(Suspicion::Cloned(boot, "one came back with a boot that was over"));
        }
        let is_recent = |at: &u64| now_ms.saturating_sub(*at) < WATCH_MS;
        let fences = self.fences.iter().filter(|at| is_recent(at)).count();
        let is_branched = self.branched_ms.as_ref().is_some_and(is_recent);
        (fences >= FENCES_MIN && is_branched).then_some(Suspicion::Cloned(
            boot,
            "their sessions end each other, and their logs branch",
        ))
    }

    /// What the sensor's clock said at `now_ms` of this server's.
    pub fn handle_clock(&self, now_ms: u64, wall_ms: u64) -> Option<Suspicion> {
        let skew_ms = now_ms.abs_diff(wall_ms);
        let boot = *self.boots.last()?;
        let is_watched = wall_ms != 0 && !cfg!(mutant = "skew_unnoticed");
        (is_watched && skew_ms > SKEW_MS_MAX).then_some(Suspicion::ClockSkew(
            boot,
            skew_ms,
            wall_ms > now_ms,
        ))
    }

    /// The state differs in a segment. Once is a fault of the moment, which the next keyframe
    /// mends; the third within an hour is told.
    pub fn handle_divergent(
        &mut self,
        now_ms: u64,
        (lane, log, segment): (Lane, LogId, u64),
    ) -> Option<Suspicion> {
        if self.divergent.iter().any(|(of, at, _)| (*of, *at) == (log, segment)) {
            return None;
        }
        self.divergent.retain(|(_, _, at)| now_ms.saturating_sub(*at) < WATCH_MS);
        self.divergent.push((log, segment, now_ms));
        if self.divergent.len() < 3 || cfg!(mutant = "divergence_unsaid") {
            return None;
        }
        self.divergent.drain(..self.divergent.len() - 3);
        Some(Suspicion::Divergent(lane, log, segment))
    }
}

#[cfg(test)]
mod tests;
