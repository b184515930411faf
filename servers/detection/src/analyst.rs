//! The analyst: follows the journal, keeps the graph, asks intel, and writes evidence.
//!
//! Not here: what is evidence (`lapwing_server_core::evidence`), and who may read it (console.rs).
//! One task runs [`Analyst::run`]; others look through [`Knowledge`].
//!
//! After a restart the graph is rebuilt from the segments in which the live heads stand, and
//! judging goes on at the cursor, which stays behind every change with an indicator that nobody has
//! answered for. What is judged again has the same id and is written once.
//!
//! A cursor counts in the journal that it was written for alone: of another one, or of one that
//! ends before it, everything is judged.
//!
//! Invariants: evidence is durable, in one batch with the cursor, before a reader sees it; changes
//! are taken in commit order; the graph is locked for one entry or one slice of a query at a time.

mod feed;
mod intel;
mod limits;
mod metrics;
mod record;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_net::clock;
use lapwing_net::metrics::Metrics;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_protocol::id::{Incarnation, SensorId};
use lapwing_server_core::evidence::{Evidence, Judge};
use lapwing_server_core::graph::Graph;
use lapwing_server_core::graph::limits::GraphLimits;
use lapwing_server_core::intel_cache::IntelCache;
use lapwing_store::journal::Journal;
use lapwing_store::{RowStore, StoreError};
use smol::Timer;
use smol::channel::Receiver;
use smol::future::or;
use smol::lock::Mutex;

use crate::damage::Damaged;
use crate::follow::{Content, Decoders, Followed, Follower};
pub(crate) use feed::Feed;
pub(crate) use intel::Ask;
pub(crate) use intel::Heard;
use intel::Intel;
use limits::{ANSWERS_QUEUE_MAX, CURSOR_TIME, LOOK_TIME, REBUILD_QUEUE_MAX};
use metrics::AnalystMetrics;
use record::Record;
pub(crate) use record::{CURSOR_KEY, INCARNATION_KEY};
#[cfg(test)]
pub(crate) use tests::knowledge_for_tests;

/// What the analyst knows, for those who ask.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// The graph and what intel said.
    pub(crate) judge: Mutex<Judge>,
    /// Evidence, in the order in which it was raised.
    pub(crate) evidence: Arc<Feed>,
    /// Outcomes of commands.
    pub(crate) outcomes: Arc<Feed>,
}

/// Who is told what the analyst meets in the journal.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Where to follow from at the latest: what lies behind it was not taken by this watcher.
    fn follow_from(&self) -> u64 {
        u64::MAX
    }

    /// The journal is not the one that was followed before: it is followed from its beginning,
    /// which is entry `first`.
    ///
    /// # Errors
    /// That cannot be written.
    fn begin_anew(&self, _first: u64) -> Result<(), StoreError> {
        Ok(())
    }

    /// An entry was taken for the first time since the start, in commit order.
    fn handle_followed(&self, followed: &Followed);

    /// What an entry gives cause for, besides what its changes are judged to be.
    fn findings(&self, _followed: &Followed) -> Vec<Evidence> {
        Vec::new()
    }

    /// Entries that cannot be read were passed over; gives what that is evidence of.
    fn handle_damaged(&self, _damaged: &Damaged) -> Vec<Evidence> {
        Vec::new()
    }

    /// The name of a sensor's machine, where the graph does not know it yet.
    fn machine(&self, _sensor: SensorId) -> String {
        String::new()
    }

    /// Every entry before `next` was taken.
    fn handle_page(&self, _next: u64) {}

    /// An entry from before the cursor was decoded again, to rebuild.
    fn handle_rebuilt(&self, followed: &Followed);

    /// The table of `sensor` here has so many rows, and is or is not known to differ from the
    /// sensor's own.
    fn handle_standing(&self, sensor: SensorId, rows: usize, divergent: bool);

    /// Living rows alone fill the graph, or do no longer.
    fn handle_graph(&self, is_over: bool);
}

/// The task that turns facts into evidence.
pub(crate) struct Analyst {
    knowledge: Arc<Knowledge>,
    record: Record,
    intel: Intel,
    heard: Receiver<Heard>,
    watcher: Arc<dyn Watcher>,
    metrics: AnalystMetrics,
    /// The last commit id taken.
    taken: u64,
    saved: Instant,
}

/// Why the analyst ended before it was told to.
#[derive(Debug)]
pub(crate) enum AnalystError {
    /// The journal cannot be read.
    Journal(StoreError),
    /// The state store takes nothing more.
    State(StoreError),
}

impl std::fmt::Display for AnalystError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Journal(error) => write!(f, "the journal cannot be followed: {error}"),
            Self::State(error) => write!(f, "evidence cannot be stored: {error}"),
        }
    }
}

impl std::error::Error for AnalystError {}

/// What the loop waits for.
enum Wake {
    Entries,
    Heard(Heard),
    Time,
    Shutdown,
}

impl Analyst {
    /// An analyst over what `state` holds; `hash_key` is chance. Blocks.
    ///
    /// # Errors
    /// The state store cannot be read or written.
    pub(crate) fn open(
        executor: Executor,
        state: RowStore,
        server: Option<Arc<dyn Ask>>,
        watcher: Arc<dyn Watcher>,
        hash_key: u64,
    ) -> Result<Self, AnalystError> {
        let record = Record::open(state)?;
        let graph = Graph::new(GraphLimits::default(), hash_key);
        let (evidence, outcomes) = record.feeds();
        let judge = Mutex::new(Judge::new(graph, IntelCache::default()));
        let (heard_by, heard) = smol::channel::bounded(ANSWERS_QUEUE_MAX);
        let intel = Intel::new(executor, server, heard_by);
        Ok(Self {
            knowledge: Arc::new(Knowledge { judge, evidence, outcomes }),
            taken: record.cursor().saturating_sub(1),
            record,
            intel,
            heard,
            watcher,
            metrics: AnalystMetrics::default(),
            saved: Instant::now(),
        })
    }

    /// Compares what is known of the journal with the journal, before anything is added to it.
    /// Where it is another one, or ends before what was taken of it, it is followed from its
    /// beginning. Gives what a person should know: that acknowledged facts are gone. Blocks.
    ///
    /// # Errors
    /// The state store cannot be read or written.
    pub(crate) fn compare(&mut self, journal: &Journal) -> Result<Option<String>, AnalystError> {
        let (incarnation, end) = (Incarnation(journal.incarnation()), journal.durable());
        let counted = match self.watcher.follow_from() {
            u64::MAX => 0,
            next => next.saturating_sub(1),
        };
        let known = counted.max(self.record.cursor().saturating_sub(1));
        let anew = self.record.is_of_another(incarnation, end)? || counted > end;
        if anew {
            let partitions = journal.partitions().map_err(AnalystError::Journal)?;
            let first = partitions.first().map_or(1, |partition| partition.first);
            self.watcher.begin_anew(first).map_err(AnalystError::State)?;
        }
        self.record.begin(incarnation, anew)?;
        self.taken = self.record.cursor().saturating_sub(1);
        Ok((known > end).then(|| {
            format!(
                "the journal ends with entry {end}, and entries up to {known} were stored: facts \
                 that were acknowledged are gone; stop the server and restore its backup"
            )
        }))
    }

    /// The same analyst, its counts registered.
    pub(crate) fn registered(self, metrics: &Metrics) -> Self {
        self.metrics.register(metrics);
        self
    }

    /// Where sensors' sessions tell what they give cause for.
    pub(crate) fn teller(&self) -> smol::channel::Sender<Heard> {
        self.intel.heard.clone()
    }

    /// What it knows.
    pub(crate) fn knowledge(&self) -> Arc<Knowledge> {
        Arc::clone(&self.knowledge)
    }

    /// Rebuilds, then follows `journal` until the shutdown.
    ///
    /// # Errors
    /// The journal cannot be read, or the state store takes nothing more.
    pub(crate) async fn run(
        mut self,
        journal: Arc<Journal>,
        decoders: Decoders,
        shutdown: Shutdown,
    ) -> Result<(), AnalystError> {
        let mut follower = self.rebuild(journal, decoders).await?;
        self.intel.follow_changes(self.record.reading());
        loop {
            self.ask().await;
            match self.wait(&follower, &shutdown).await {
                Wake::Shutdown => {
                    // The store may be closed already; what is not saved is judged again.
                    if let Err(error) = self.save().await {
                        log::info!("the analyst's last position is not saved: {error}");
                    }
                    return Ok(());
                }
                Wake::Heard(heard) => self.hear(heard).await?,
                Wake::Entries => follower = self.take_page(follower).await?,
                Wake::Time => {}
            }
            if self.saved.elapsed() >= CURSOR_TIME {
                self.save().await?;
            }
        }
    }

    async fn rebuild(
        &mut self,
        journal: Arc<Journal>,
        decoders: Decoders,
    ) -> Result<Follower, AnalystError> {
        let (give, given) = smol::channel::bounded::<Followed>(REBUILD_QUEUE_MAX);
        let next = self.record.cursor().min(self.watcher.follow_from());
        let rebuilding = smol::unblock(move || {
            Follower::rebuild(journal, decoders, next, |followed| {
                // Where the analyst failed, the rest is read for nothing, once.
                let _ = give.send_blocking(followed);
            })
        });
        let taking = async {
            // Owned here, so that an error ends the rebuilding thread too.
            let given = given;
            let mut sensors = BTreeSet::new();
            while let Ok(followed) = given.recv().await {
                sensors.insert(followed.sensor);
                self.watcher.handle_rebuilt(&followed);
                self.judge(followed).await?;
                self.ask().await;
                while let Ok(heard) = self.heard.try_recv() {
                    self.hear(heard).await?;
                }
            }
            Ok::<_, AnalystError>(sensors)
        };
        let (follower, sensors) = smol::future::zip(rebuilding, taking).await;
        let mut follower = follower.map_err(AnalystError::Journal)?;
        self.pass_over(&mut follower);
        for sensor in sensors? {
            let (rows, divergent) = follower.standing(sensor);
            self.watcher.handle_standing(sensor, rows, divergent);
        }
        Ok(follower)
    }

    /// Tells of what could not be read.
    fn pass_over(&mut self, follower: &mut Follower) {
        for damaged in follower.take_damaged() {
            for found in self.watcher.handle_damaged(&damaged) {
                self.record.add_evidence(&found);
            }
        }
    }

    async fn wait(&self, follower: &Follower, shutdown: &Shutdown) -> Wake {
        let judge = self.knowledge.judge.lock().await;
        let deadline_ms = judge.deadline_ms();
        self.metrics.set(&judge);
        self.watcher.handle_graph(judge.graph().is_over());
        drop(judge);
        let now_ms = clock::unix_ms();
        let pause = deadline_ms.map_or(LOOK_TIME, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms)).min(LOOK_TIME)
        });
        let ended = async {
            shutdown.begun().await;
            Wake::Shutdown
        };
        let heard = async {
            match self.heard.recv().await {
                Ok(heard) => Wake::Heard(heard),
                // This analyst holds a sender, so the channel stays open.
                Err(_) => std::future::pending().await,
            }
        };
        let entries = async {
            follower.journal().changed_past(follower.next().saturating_sub(1)).await;
            Wake::Entries
        };
        let late = async {
            Timer::after(pause).await;
            Wake::Time
        };
        or(ended, or(heard, or(entries, late))).await
    }

    async fn take_page(&mut self, mut follower: Follower) -> Result<Follower, AnalystError> {
        let read = smol::unblock(move || {
            let page = follower.page();
            (follower, page)
        });
        let (mut follower, page) = read.await;
        self.pass_over(&mut follower);
        for followed in page.map_err(AnalystError::Journal)? {
            let (sensor, commit_id) = (followed.sensor, followed.commit_id);
            self.watcher.handle_followed(&followed);
            for found in self.watcher.findings(&followed) {
                self.record.add_evidence(&found);
            }
            self.judge(followed).await?;
            self.taken = self.taken.max(commit_id);
            let (rows, divergent) = follower.standing(sensor);
            self.watcher.handle_standing(sensor, rows, divergent);
        }
        self.watcher.handle_page(follower.next());
        self.taken = self.taken.max(follower.next().saturating_sub(1));
        self.write().await?;
        Ok(follower)
    }

    /// Takes one entry. Evidence is only gathered while it fits one batch.
    async fn judge(&mut self, followed: Followed) -> Result<(), AnalystError> {
        let Followed { commit_id, sensor, received_ms, content, .. } = followed;
        let Content::Changes(decoded) = content else { return Ok(()) };
        for change in &decoded.changes {
            self.record.handle_change(sensor, received_ms, change);
        }
        let mut judge = self.knowledge.judge.lock().await;
        judge.handle_changes(received_ms, (sensor, commit_id), decoded.changes);
        drop(judge);
        self.gather().await
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), AnalystError> {
        let now_ms = clock::unix_ms();
        let mut judge = self.knowledge.judge.lock().await;
        match heard {
            Heard::Verdicts(question, verdicts) => {
                judge.handle_verdicts(now_ms, question, verdicts);
            }
            Heard::Unreachable(question) => judge.handle_unreachable(now_ms, question),
            Heard::Changes(verdicts, reading) => {
                for verdict in verdicts {
                    judge.handle_reputation_change(now_ms, verdict);
                }
                self.record.set_reading(reading);
            }
            Heard::Found(found) => {
                found.iter().for_each(|evidence| self.record.add_found(evidence));
            }
        }
        drop(judge);
        self.gather().await?;
        self.write().await
    }

    /// Sends every question that may be asked now.
    async fn ask(&self) {
        let now_ms = clock::unix_ms();
        let mut judge = self.knowledge.judge.lock().await;
        while let Some(question) = judge.poll_questions(now_ms) {
            self.intel.ask(now_ms, question);
        }
    }

    /// Drains what the judge found; writes whenever a batch is full.
    async fn gather(&mut self) -> Result<(), AnalystError> {
        loop {
            let now_ms = clock::unix_ms();
            let mut judge = self.knowledge.judge.lock().await;
            let mut is_drained = false;
            while !self.record.is_full() && !is_drained {
                match judge.poll_evidence(now_ms) {
                    Some(mut evidence) => {
                        if evidence.machine.is_empty() {
                            evidence.machine = self.watcher.machine(evidence.sensor);
                        }
                        self.record.add_evidence(&evidence);
                    }
                    None => is_drained = true,
                }
            }
            drop(judge);
            if is_drained {
                return Ok(());
            }
            // The cursor does not move before everything that was found is written.
            self.write_record(None).await?;
        }
    }

    /// Writes what was gathered, with the cursor.
    async fn write(&mut self) -> Result<(), AnalystError> {
        if self.record.is_empty() { Ok(()) } else { self.save().await }
    }

    async fn save(&mut self) -> Result<(), AnalystError> {
        let cursor = self.knowledge.judge.lock().await.judged_before(self.taken);
        self.saved = Instant::now();
        self.write_record(Some(cursor)).await
    }

    async fn write_record(&mut self, cursor: Option<u64>) -> Result<(), AnalystError> {
        let before = self.knowledge.evidence.durable();
        self.record.write(cursor).await?;
        self.metrics.evidence.inc_by(self.knowledge.evidence.durable() - before);
        Ok(())
    }
}
