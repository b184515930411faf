//! What the console and the analyst need of the rest of the server.
//!
//! Not here: the questions themselves (console.rs) and the judging (analyst.rs).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::host::Myself;
use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::console::{CommandPut, HeadView, SensorView};
use lapwing_protocol::delivery::{Jump, JumpCause, LossReason, ResyncReason};
use lapwing_protocol::element::command_outcome;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{Incarnation, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{LedgerRequest, LedgerVerify};
use lapwing_protocol::limits::FEED_WAIT_MS_MAX;
use lapwing_server_core::change::Change;
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::evidence::delivery::Suspicion;
use lapwing_server_core::view::push_item;
use lapwing_store::StoreError;
use lapwing_store::journal::Journal;
use smol::Timer;

use crate::analyst::Watcher;
use crate::console::{Answering, Facts, Sources};
use crate::damage::{Damaged, Damages, Owner};
use crate::events::Exporter;
use crate::follow::{Content, Followed};
use crate::ledger::{self, Book, Scanner};
use crate::roster::{self, Member};
use crate::sessions::Sessions;

/// The server, as its console and analyst see it.
pub(crate) struct Inside {
    pub(crate) myself: Arc<Myself>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) book: Arc<Book>,
    pub(crate) scanner: Arc<Scanner>,
    pub(crate) damages: Damages,
}

/// How old a sensor's report may be when the ledger is asked for, in milliseconds.
const REPORT_AGE_MS: u64 = 5_000;
/// How long the ledger waits for reports.
const REPORT_TIME: Duration = Duration::from_secs(1);
/// Sensors that are asked for a report at once: beyond them the ledger shows what was said last.
const REPORTS_MAX: usize = 1_024;

impl Inside {
    /// Has the sensors that are here say where they stand, and waits a little for it.
    async fn ask_for_reports(&self, sensor: Option<SensorId>) {
        let is_old = |member: &Member| {
            let about = member.about();
            let now_ms = clock::monotonic_ms();
            let age_ms = about.reported_ms.map(|at| now_ms.saturating_sub(at));
            about.session.is_some() && age_ms.is_none_or(|age_ms| age_ms > REPORT_AGE_MS)
        };
        let mut waiting: Vec<Arc<Member>> = match sensor {
            Some(sensor) => self.sessions.roster.find(sensor).into_iter().collect(),
            None => self.sessions.roster.all(),
        };
        waiting.retain(|member| is_old(member));
        waiting.truncate(REPORTS_MAX);
        for member in &waiting {
            member.about().report_due = true;
            member.wake.notify(usize::MAX);
        }
        let reports = async {
            loop {
                let reported = self.sessions.reported.listen();
                waiting.retain(|member| is_old(member));
                if waiting.is_empty() {
                    return;
                }
                reported.await;
            }
        };
        let late = async {
            Timer::after(REPORT_TIME).await;
        };
        smol::future::or(reports, late).await;
    }

    /// Notes the commands whose outcome came, for their sensor's connection to delete.
    fn handle_outcomes(&self, followed: &Followed) {
        let Content::Changes(decoded) = &followed.content else { return };
        let is_outcome = |change: &&Change| change.model.kind == command_outcome::KIND;
        for change in decoded.changes.iter().filter(is_outcome) {
            let number = |feature| change.value(feature)?.number();
            let (Some(issuer), Some(seq)) =
                (number(command_outcome::issuer), number(command_outcome::command_seq))
            else {
                continue;
            };
            let number = CommandNumber { issuer, seq };
            let Some(member) = self.sessions.roster.find(followed.sensor) else { return };
            let mut about = member.about();
            // Only those that wait, each once: so the list is bounded as their queue is.
            if self.sessions.commands.is_waiting(followed.sensor, number)
                && !about.outcomes.contains(&number)
            {
                about.outcomes.push(number);
                member.wake.notify(usize::MAX);
            }
        }
    }

    /// Takes what a sensor's facts say of itself; where they say that it collects or does so no
    /// more, that is kept. Nobody waits for it: the Hello of the next session says it again.
    fn handle_facts(&self, followed: &Followed) {
        let Some(member) = self.sessions.roster.find(followed.sensor) else { return };
        let before = member.about().collects();
        self.handle_rebuilt(followed);
        let collects = member.about().collects();
        if collects != before {
            let row = roster::collecting_row(followed.sensor, collects);
            if let Err(error) = self.sessions.state.submit(vec![row]) {
                log::error!("cannot store that sensor {} collects: {error}", followed.sensor);
            }
        }
    }

    fn push_sensor(&self, items: &mut Vec<u8>, member: &Member) {
        let standings = member.standings();
        let about = member.about();
        let health = about.health.items();
        let mut heads = Vec::new();
        for standing in standings {
            push_item(
                &mut heads,
                &HeadView {
                    lane: standing.lane,
                    log: standing.log,
                    next_seq: standing.next_seq,
                    next_index: standing.next_index,
                    chain: standing.chain,
                },
            );
        }
        let peer_address = about.session.map(|(_, source)| source.to_string()).unwrap_or_default();
        push_item(
            items,
            &SensorView {
                sensor: member.sensor,
                name: &about.record.name,
                os: &about.record.os,
                agent: &about.record.agent,
                connected: about.session.is_some(),
                session_epoch: about.session.map_or(0, |(epoch, _)| epoch),
                peer_address: &peer_address,
                last_seen_ms: about.last_seen_ms,
                first_seen_ms: about.record.first_seen_ms,
                collecting: about.collects(),
                memory: about.memory,
                rows: about.rows,
                divergent: about.divergent,
                health: Items::from_bytes(&health),
                heads: Items::from_bytes(&heads),
                last_command: self.sessions.commands.last(member.sensor),
            },
        );
    }
}

impl Sources for Inside {
    fn sensors(&self) -> Answering<'_, Vec<u8>> {
        Box::pin(async move {
            let mut items = Vec::new();
            for member in self.sessions.roster.all() {
                self.push_sensor(&mut items, &member);
            }
            Ok(items)
        })
    }

    fn ledger(&self, request: LedgerRequest) -> Answering<'_, Vec<u8>> {
        Box::pin(async move {
            if request.after.is_none() {
                self.ask_for_reports(request.sensor).await;
            }
            let of = (&*self.book, &*self.sessions.roster, &*self.journal);
            Ok(ledger::page(self.myself.server(), of, request))
        })
    }

    fn ledger_verify(&self, request: LedgerVerify) -> Answering<'_, Vec<u8>> {
        Box::pin(async move {
            if request.scan == 0 {
                self.ask_for_reports(None).await;
            }
            let Some(scan) = self.scanner.scan(request.scan) else {
                let text = "that scan is over and another one began; begin again with 0";
                return Err(Failure::new(Code::NOT_FOUND, text));
            };
            let wait_ms = u64::from(request.wait_ms.min(FEED_WAIT_MS_MAX));
            scan.wait(Duration::from_millis(wait_ms)).await;
            Ok(ledger::verified(self.myself.server(), &self.sessions.roster, &scan, request))
        })
    }

    fn status(&self) -> Answering<'_, Vec<u8>> {
        Box::pin(async move {
            let failure = self.journal.failure().map(|error| error.to_string());
            self.myself.status(failure.as_deref().unwrap_or_default())
        })
    }

    fn facts_incarnation(&self) -> Incarnation {
        Incarnation(self.journal.incarnation())
    }

    fn facts(&self, cursor: u64, limit: u32) -> Answering<'_, Facts> {
        Box::pin(async move {
            let exporter = Arc::clone(&self.exporter);
            let cursor = cursor + u64::from(cfg!(mutant = "page_skips_one") && cursor > 0);
            let page = smol::unblock(move || exporter.page(cursor, limit as usize)).await;
            page.map_err(|error| Failure::new(Code::STORE_FAILED, error.to_string()))
        })
    }

    fn facts_behind(&self, cursor: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // The cursor is the next commit id.
        Box::pin(self.journal.changed_past(cursor.saturating_sub(1)))
    }

    fn command(&self, put: CommandPut) -> Answering<'_, ()> {
        Box::pin(async move {
            let Some(member) = self.sessions.roster.find(put.sensor) else {
                let text = format!("sensor {} has never been here", put.sensor);
                return Err(Failure::new(Code::UNKNOWN_PEER, text));
            };
            self.sessions.commands.put(clock::unix_ms(), put).await?;
            member.wake.notify(usize::MAX);
            Ok(())
        })
    }
}

impl Watcher for Inside {
    fn follow_from(&self) -> u64 {
        self.book.counted_to() + 1
    }

    fn begin_anew(&self, first: u64) -> Result<(), StoreError> {
        self.book.begin_anew(first)
    }

    fn machine(&self, sensor: SensorId) -> String {
        let member = self.sessions.roster.find(sensor);
        member.map(|member| member.about().record.name.clone()).unwrap_or_default()
    }

    fn findings(&self, followed: &Followed) -> Vec<Evidence> {
        let Some(member) = self.sessions.roster.find(followed.sensor) else { return Vec::new() };
        let mut about = member.about();
        let (lane, log, segment) = (followed.lane, followed.log, followed.segment);
        let now_ms = followed.received_ms;
        let suspicion = match &followed.content {
            Content::Undecoded(..) if cfg!(mutant = "undecodable_no_finding") => None,
            // What waits for an opening is the error before it, told already.
            Content::Undecoded(error, _) if *error != DecodeError::NotOpened => {
                Some(Suspicion::Undecodable(lane, log, segment, followed.seq))
            }
            Content::Changes(decoded) if decoded.divergent => {
                about.watch.handle_divergent(now_ms, (lane, log, segment))
            }
            Content::Jump(Jump { cause: JumpCause::Lost(reason), to_index, .. })
                if *reason != LossReason::MemoryLost =>
            {
                let count =
                    to_index.map(|to| to.saturating_add(1).saturating_sub(followed.first_index));
                Some(Suspicion::FactsLost(lane, log, followed.seq, *reason, count))
            }
            _ => None,
        };
        let of = (followed.sensor, about.record.name.as_str());
        self.sessions.findings.evidence(now_ms, of, suspicion.as_slice())
    }

    fn handle_damaged(&self, damaged: &Damaged) -> Vec<Evidence> {
        self.damages.handle(damaged);
        let Some(Owner { sensor, lane, log, seq }) = damaged.owner else { return Vec::new() };
        let Some(member) = self.sessions.roster.find(sensor) else { return Vec::new() };
        // As after a chunk that does not decode: what follows builds on what is not there.
        let (now_ms, reason) = (clock::monotonic_ms(), ResyncReason::Undecodable);
        member.receiver().handle_divergent(now_ms, lane, seq, reason);
        member.wake.notify(usize::MAX);
        let about = member.about();
        let of = (sensor, about.record.name.as_str());
        let suspicion = [Suspicion::JournalDamaged(lane, log, seq)];
        self.sessions.findings.evidence(clock::unix_ms(), of, &suspicion)
    }

    fn handle_page(&self, next: u64) {
        self.book.reach(next.saturating_sub(1));
    }

    fn handle_followed(&self, followed: &Followed) {
        self.book.take(followed);
        self.handle_facts(followed);
        self.handle_outcomes(followed);
        let reason = match &followed.content {
            Content::Changes(decoded) if decoded.divergent => ResyncReason::DigestDiffers,
            Content::Undecoded(error, _) => {
                log::warn!(
                    "sensor {} {:?} log {} seq {} does not decode: {error}; stored as it came",
                    followed.sensor,
                    followed.lane,
                    followed.log,
                    followed.seq
                );
                if cfg!(mutant = "undecodable_unsaid") {
                    return;
                }
                ResyncReason::Undecodable
            }
            Content::Unreadable(error) => {
                log::error!(
                    "sensor {} log {} seq {} is not readable: {error}",
                    followed.sensor,
                    followed.log,
                    followed.seq
                );
                return;
            }
            Content::Changes(_) | Content::Jump(_) => return,
        };
        if let Some(member) = self.sessions.roster.find(followed.sensor) {
            let now_ms = clock::monotonic_ms();
            member.receiver().handle_divergent(now_ms, followed.lane, followed.seq, reason);
            member.wake.notify(usize::MAX);
        }
    }

    fn handle_rebuilt(&self, followed: &Followed) {
        let Content::Changes(decoded) = &followed.content else { return };
        if let Some(member) = self.sessions.roster.find(followed.sensor) {
            let mut about = member.about();
            for change in &decoded.changes {
                about.health.handle_change(change);
                about.collected.handle_change(followed.received_ms, change);
            }
        }
    }

    fn handle_graph(&self, is_over: bool) {
        self.sessions.places.set_crowded(is_over);
    }

    fn handle_standing(&self, sensor: SensorId, rows: usize, divergent: bool) {
        if let Some(member) = self.sessions.roster.find(sensor) {
            let mut about = member.about();
            about.rows = u32::try_from(rows).unwrap_or(u32::MAX);
            about.divergent = divergent;
        }
    }
}
