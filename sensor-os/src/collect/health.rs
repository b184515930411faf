//! How each collector fares, as facts: active, degraded, missing or stopped, why, and what mends
//! it.
//!
//! A report is a fact only when it differs from the last one of the same collector.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_protocol::element::{Change, health};

use super::fact::{CollectedFact, FactBuilder, Room};
use super::queue::{FactSender, Source};
use crate::sys::{clock, host};

/// How a collector fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It sees all it is meant to.
    Active,
    /// It sees less, and says why.
    Degraded,
    /// It sees nothing, and says why.
    Missing,
    /// Collection was stopped on command, or is not configured.
    Stopped,
}

impl Status {
    /// Its name in health facts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Stopped => "stopped",
        }
    }
}

/// How one collector fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In one word.
    pub status: Status,
    /// What it uses, parts separated by ` + `.
    pub mechanism: String,
    /// Why it is not active; empty where it is.
    pub reason: String,
    /// The one command that mends it; empty where none is needed or none would.
    pub remedy: String,
}

impl Report {
    pub(crate) fn active(mechanism: impl Into<String>) -> Self {
        let (status, mechanism) = (Status::Active, mechanism.into());
        Self { status, mechanism, reason: String::new(), remedy: String::new() }
    }

    pub(crate) fn stopped() -> Self {
        Self::stopped_since("collection is stopped")
    }

    pub(crate) fn not_configured() -> Self {
        Self::stopped_since("the configuration leaves it out")
    }

    fn stopped_since(reason: &str) -> Self {
        let reason = reason.to_owned();
        Self { status: Status::Stopped, mechanism: String::new(), reason, remedy: String::new() }
    }
}

/// Puts together a report from the parts that a collector tried to open.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    working: Vec<&'static str>,
    reasons: Vec<String>,
    not_permitted: bool,
    remedy: String,
}

impl Parts {
    /// Notes a part that works.
    pub(crate) fn works(&mut self, part: &'static str) {
        self.working.push(part);
    }

    /// Notes a part that does not, and what is therefore not seen.
    pub(crate) fn fails(&mut self, part: &'static str, unseen: &str, error: &io::Error) {
        self.not_permitted |= error.kind() == io::ErrorKind::PermissionDenied;
        self.lacks(format!("{part}: {error}; not seen: {unseen}"));
    }

    /// Notes something that is less than it should be.
    pub(crate) fn lacks(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// Notes something that is less than it should be for want of a privilege.
    pub(crate) fn lacks_privilege(&mut self, reason: impl Into<String>) {
        self.not_permitted = true;
        self.lacks(reason);
    }

    /// Notes what mends it, where that is no privilege.
    pub(crate) fn mended_by(&mut self, remedy: impl Into<String>) {
        self.remedy = remedy.into();
    }

    /// Keeps what an attempt gave, and notes how it went.
    pub(crate) fn keep<T>(
        &mut self,
        part: &'static str,
        unseen: &str,
        attempt: io::Result<T>,
    ) -> Option<T> {
        match attempt {
            Ok(opened) => {
                self.works(part);
                Some(opened)
            }
            Err(error) => {
                self.fails(part, unseen, &error);
                None
            }
        }
    }

    pub(crate) fn report(self) -> Report {
        let status = match (self.working.is_empty(), self.reasons.is_empty()) {
            (false, true) => Status::Active,
            (false, false) => Status::Degraded,
            (true, _) => Status::Missing,
        };
        let remedy = if self.not_permitted { privilege_remedy() } else { self.remedy };
        Report {
            status,
            mechanism: self.working.join(" + "),
            reason: self.reasons.join("; "),
            remedy,
        }
    }
}

/// The command that gives the sensor the rights its collectors ask for.
pub(crate) fn privilege_remedy() -> String {
    if host::is_root() {
        return "run the sensor outside its container, with all of root's capabilities".into();
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "lapwing-sensor".into());
    format!(
        "sudo setcap cap_bpf,cap_dac_read_search,cap_net_admin,cap_net_raw,cap_perfmon,\
         cap_sys_admin,cap_sys_ptrace+ep '{}' (and start the sensor again)",
        program.display()
    )
}

/// Trouble that a collector does not report itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Its thread hangs.
    Hanging,
    /// Programs on some filesystem cannot be read.
    Unreadable,
}

/// The last report of each collector.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    sender: FactSender,
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    /// What each says of itself.
    own: BTreeMap<Source, Report>,
    troubles: BTreeMap<(Source, Trouble), String>,
    /// What was told.
    told: BTreeMap<Source, Report>,
}

impl Board {
    /// What is to be told of `source`: its own word and the troubles it has.
    fn report(&self, source: Source) -> Option<Report> {
        let mut report = self.own.get(&source)?.clone();
        for (_, trouble) in self.troubles.iter().filter(|((of, _), _)| *of == source) {
            if report.status == Status::Active {
                report.status = Status::Degraded;
            }
            if !report.reason.is_empty() {
                report.reason.push_str("; ");
            }
            report.reason.push_str(trouble);
        }
        Some(report)
    }
}

impl HealthBoard {
    pub(crate) fn new(sender: FactSender) -> Self {
        Self { sender, board: Mutex::default() }
    }

    /// Reports; gives a fact when something changed.
    pub(crate) fn report(&self, source: Source, report: Report) {
        let mut board = self.lock();
        board.own.insert(source, report);
        self.tell(&mut board, source);
    }

    /// Notes a trouble of a collector, or with `None` that it is over.
    pub(crate) fn trouble(&self, source: Source, trouble: Trouble, reason: Option<String>) {
        let mut board = self.lock();
        match reason {
            Some(reason) => board.troubles.insert((source, trouble), reason),
            None => board.troubles.remove(&(source, trouble)),
        };
        self.tell(&mut board, source);
    }

    fn tell(&self, board: &mut Board, source: Source) {
        let Some(report) = board.report(source) else { return };
        if board.told.get(&source) == Some(&report) {
            return;
        }
        if !report.reason.is_empty() {
            log::info!("collector {source} is {}: {}", report.status.name(), report.reason);
        }
        self.sender.give(fact(source, &report));
        board.told.insert(source, report);
    }

    /// The last reports.
    pub(crate) fn reports(&self) -> BTreeMap<Source, Report> {
        self.lock().told.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fact(source: Source, report: &Report) -> CollectedFact {
    let full = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    FactBuilder::new(source, health::KIND, Change::Whole, clock::boottime_ns())
        .text(health::component, source.name(), Room::Key)
        .text(health::status, report.status.name(), Room::Path)
        .text_if(health::reason, full(&report.reason), Room::Path)
        .text_if(health::remedy, full(&report.remedy), Room::Path)
        .text_if(health::mechanism, full(&report.mechanism), Room::Path)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::queue::fact_queue_of;

    #[test]
    fn only_a_changed_report_is_a_fact() {
        let (sender, facts) = fact_queue_of(8);
        let board = HealthBoard::new(sender);
        board.report(Source::Files, Report::active("fanotify"));
        board.report(Source::Files, Report::active("fanotify"));
        board.report(Source::Files, Report::stopped());
        let told: Vec<_> = std::iter::from_fn(|| facts.try_recv().ok()).collect();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].text(health::status), Some("active"));
        assert_eq!(told[0].text(health::component), Some("files"));
        assert_eq!(told[1].text(health::status), Some("stopped"));
    }

    #[test]
    fn trouble_comes_on_top_of_a_report_and_goes_again() {
        let (sender, facts) = fact_queue_of(8);
        let board = HealthBoard::new(sender);
        board.report(Source::Files, Report::active("fanotify"));
        for _ in 0..2 {
            board.trouble(Source::Files, Trouble::Hanging, Some("it hangs".into()));
        }
        board.trouble(Source::Files, Trouble::Hanging, None);
        let told: Vec<_> = std::iter::from_fn(|| facts.try_recv().ok()).collect();
        let statuses: Vec<_> = told.iter().map(|fact| fact.text(health::status)).collect();
        assert_eq!(statuses, [Some("active"), Some("degraded"), Some("active")]);
        assert_eq!(told[1].text(health::reason), Some("it hangs"));
        assert_eq!(told[2].text(health::reason), None);
    }

    #[test]
    fn a_part_that_is_not_permitted_comes_with_the_command_that_mends_it() {
        let mut parts = Parts::default();
        parts.works("/proc");
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(parts.keep::<()>("fanotify", "short-lived programs", Err(denied)), None);
        let report = parts.report();
        assert_eq!(report.status, Status::Degraded);
        assert_eq!(report.mechanism, "/proc");
        assert!(report.reason.contains("not seen: short-lived programs"), "{}", report.reason);
        assert!(!report.remedy.is_empty());
    }
}
