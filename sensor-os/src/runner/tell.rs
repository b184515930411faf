//! What the runner tells on its own machine: the status file.

use lapwing_sensor_core::{Now, Place};

use super::Runner;
use super::limits::STATUS_PERIOD_MS;
use crate::collect::Source;
use crate::config::Mode;
use crate::status::{CollectorStatus, State, Status};

impl Runner<'_> {
    /// When the status file is due for its numbers alone.
    pub(super) fn status_due_ns(&self) -> Option<u64> {
        let is_same = self.counted() == self.status_counted();
        (!is_same).then(|| self.status_told_ns.saturating_add(STATUS_PERIOD_MS * 1_000_000))
    }

    /// Numbers that move while a sensor works.
    fn counted(&self) -> (u64, u64, u64) {
        let (up, down) = self.link.as_ref().map_or((0, 0), |link| link.traffic());
        (self.traffic.0 + up, self.traffic.1 + down, self.spool.bytes())
    }

    fn status_counted(&self) -> (u64, u64, u64) {
        (self.status.bytes_up, self.status.bytes_down, self.status.spool_bytes)
    }

    /// Rewrites the status file when something changed, and not too often.
    pub(super) fn tell_status(&mut self, now: Now) {
        let is_due = self.status_due_ns().is_some_and(|due| due <= now.monotonic_ns);
        if !self.is_news && !is_due && self.state_now() == self.status.state {
            return;
        }
        self.is_news = false;
        self.status_told_ns = now.monotonic_ns;
        self.status = self.status_now(now);
        if let Err(error) = self.status.save(self.state.path()) {
            log::error!("{}: the status: {error}", self.state.path().display());
        }
    }

    fn state_now(&self) -> State {
        if self.ended.is_some() {
            return State::Stopped;
        }
        let is_fresh = self.sensor.assigned().is_none();
        match self.sensor.place() {
            Place::Stopped => State::Stopped,
            Place::Unassigned => State::Unassigned,
            Place::Asking if is_fresh => State::Unassigned,
            Place::Asking => State::Asking,
            Place::Waiting => State::Waiting,
            Place::Dialing => State::Connecting,
            Place::Connected if self.sensor.server().is_some() => State::Online,
            Place::Connected => State::Connecting,
        }
    }

    fn status_now(&self, now: Now) -> Status {
        let (bytes_up, bytes_down, spool_bytes) = self.counted();
        let identity = &self.credentials.identity;
        let stats = self.sensor.stats();
        let state = self.state_now();
        let assigned = self.assignment.as_ref().map(|assignment| assignment.address.clone());
        let dialed = (!self.dialed.is_empty()).then(|| self.dialed.clone());
        let collection = if self.is_collecting { "enabled" } else { "disabled" };
        Status {
            id: Some(identity.sensor.to_string()),
            name: crate::machine::name(self.config.name.as_deref()),
            state,
            reason: if state == State::Online { String::new() } else { self.trouble.clone() },
            registration: self.config.servers.registration.first().cloned(),
            detection: dialed.or(assigned),
            server: self.sensor.server().map(|server| server.to_string()),
            bytes_up,
            bytes_down,
            collection: collection.into(),
            spool_mode: match self.config.spool.mode {
                Mode::Disk => "disk".into(),
                Mode::Memory => "memory".into(),
            },
            spool_bytes,
            spool_trouble: self.losses.trouble.clone(),
            facts_produced: stats.lanes.iter().map(|lane| lane.facts_produced).sum(),
            facts_unchanged: stats.unchanged,
            facts_lost: self.losses.total
                + stats.dropped_table_full
                + stats.dropped_too_large
                + stats.dropped_malformed
                + stats.dropped_memory_full,
            rows: stats.rows,
            sessions: self.sessions,
            questions: self.questions,
            certificate_ends_ms: identity.not_after_ms,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            updated_ms: now.wall_ms,
            collectors: self.collector_statuses(),
        }
    }

    pub(super) fn collector_statuses(&self) -> Vec<CollectorStatus> {
        let Some(collectors) = &self.collectors else { return Vec::new() };
        let counts = collectors.counts();
        let reports = collectors.reports();
        let wanted = |source: &Source| self.config.collect.has(*source);
        let told = reports.into_iter().filter(|(source, _)| wanted(source));
        told.map(|(source, report)| {
            let count = counts.get(&source).copied().unwrap_or_default();
            CollectorStatus {
                name: source.name().into(),
                status: report.status.name().into(),
                mechanism: report.mechanism,
                reason: report.reason,
                remedy: report.remedy,
                seen: count.seen,
                refused: count.refused,
                overflowed: count.overflowed,
            }
        })
        .collect()
    }
}
