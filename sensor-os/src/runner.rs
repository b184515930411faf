//! The single loop: wait for one thing, tell the core, do what it wants, wait again.
//!
//! Everything that can wake the loop is a variant of [`Wake`]; each is handled by one call, after
//! which the core is drained in its order: chunks to the spool, events, frames to the connection.
//!
//! Not here: what to send and when (the core), and what is on the disk (the spool). Invariants: one
//! thread, one task; nothing waits while a lock is held, for there is none; a peer or a disk that
//! fails is told of and waited for, never fatal.

pub(crate) mod ask;
mod chunks;
mod commands;
mod events;
mod intake;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod memory;
mod prepare;
mod tell;

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::LANES;
use lapwing_sensor_core::{Now, Sensor};
use smol::Timer;
use smol::channel::Receiver;

use crate::agent::{AgentError, Ended, OwnRequest, Parts};
use crate::clock;
use crate::collect::{CollectedFact, Collectors};
use crate::config::Config;
use crate::dial::Stream;
use crate::identity::{StateFolder, StoredAssignment, StoredCommand};
use crate::spool::Spool;
use crate::status::Status;
use ask::{Answer, Credentials, Trouble};
use chunks::Losses;
use intake::Receipt;
use limits::{DISK_RETRY_MS, RECEIPTS_MAX, TEND_PERIOD_MS};
use link::{Link, Progress};

/// How often a fact is handed in: each attempt spools all that the core made, so the second one
/// finds room but for a fault of this program.
const INTAKE_ATTEMPTS: usize = 4;

/// Everything that can wake the loop.
enum Wake {
    /// The owner wants an end.
    Stop,
    /// The connection had something to tell.
    Link(Progress),
    /// An attempt to connect ended.
    Dialed(Result<(Box<Stream>, String), Trouble>),
    /// Registration answered, or nobody did.
    Asked(Answer<StoredAssignment>),
    /// A deadline passed.
    Timeout,
    /// A collector saw something.
    Collected(CollectedFact),
    /// The agent has a fact of its own.
    Own(OwnRequest),
}

/// What the disk refused and is tried again.
#[derive(Clone, Copy, Debug)]
enum Retry {
    OpenLog { lane: Lane, cause: LogCause, parent: LogParent },
    Accept(CommandNumber),
}

/// Something under way beside the loop.
type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

struct Runner<'m> {
    config: Config,
    state: StateFolder,
    credentials: Credentials,
    sensor: Sensor<'m>,
    spool: Spool,
    collectors: Option<Collectors>,
    facts: Receiver<CollectedFact>,
    own_facts: Receiver<OwnRequest>,
    stops: Receiver<()>,
    link: Option<Link>,
    dialing: Pending<Result<(Box<Stream>, String), Trouble>>,
    asking: Pending<Answer<StoredAssignment>>,
    assignment: Option<StoredAssignment>,
    /// The address that was dialed last.
    dialed: String,
    /// Why the last attempt to be online failed; empty when it did not.
    trouble: String,
    is_collecting: bool,
    ended: Option<Ended>,
    /// By lane: the last chunk that the core is not told of as spooled.
    unreported: [Option<u64>; LANES],
    losses: Losses,
    receipts: Vec<Receipt>,
    retries: Vec<Retry>,
    retry_due_ns: Option<u64>,
    /// When the collectors' threads are looked after next.
    tend_due_ns: u64,
    /// When the acknowledged places are to be written.
    progress_due_ns: Option<u64>,
    /// A command whose number is durable and whose end is not yet.
    command: Option<StoredCommand>,
    fetched: Vec<u8>,
    frames: Vec<u8>,
    /// Bytes of connections that are over: sent, received.
    traffic: (u64, u64),
    sessions: u64,
    questions: u64,
    status: Status,
    status_told_ns: u64,
    /// The status file is to be written at once.
    is_news: bool,
}

/// Runs a sensor from its enrolment to its end.
pub(crate) async fn run(parts: Parts) -> Result<Ended, AgentError> {
    let Some((credentials, parts)) = prepare::credentials(parts).await? else {
        return Ok(Ended::Stopped);
    };
    prepare::with_runner(parts, credentials, async |mut runner| {
        runner.start();
        loop {
            let now = clock::now();
            runner.handle_time(now);
            runner.drain(now);
            runner.tell_status(now);
            if let Some(ended) = runner.ended {
                return runner.stop(ended).await;
            }
            let wake = runner.wait().await;
            runner.handle(clock::now(), wake);
        }
    })
    .await
}

impl Runner<'_> {
    fn start(&mut self) {
        let now = clock::now();
        for lane in Lane::BY_URGENCY {
            self.next_tail(now, lane);
        }
        self.sensor.set_collecting(self.is_collecting);
        self.tell_interrupted(now);
        if self.is_collecting
            && let Some(collectors) = &mut self.collectors
        {
            collectors.start();
        }
        self.sensor.start(now);
    }

    /// Waits for one thing. What comes first in the code goes first when several are ready.
    async fn wait(&mut self) -> Wake {
        let stop = async {
            // Closed means that nobody is left who could ask; then signals and commands remain.
            match self.stops.recv().await {
                Ok(()) => Wake::Stop,
                Err(_) => pending().await,
            }
        };
        let deadline = self.deadline_ns();
        let timeout = async {
            match deadline {
                Some(after) => Timer::after(after).await,
                None => pending().await,
            };
            Wake::Timeout
        };
        let link = async {
            match &mut self.link {
                Some(link) => Wake::Link(link.progress().await),
                None => pending().await,
            }
        };
        let dialed = async { Wake::Dialed(wait_for(&mut self.dialing).await) };
        let asked = async { Wake::Asked(wait_for(&mut self.asking).await) };
        let has_room = self.receipts.len() < RECEIPTS_MAX;
        let own = async {
            if !has_room {
                // What is received here and not handed on would be lost.
                return pending().await;
            }
            match self.own_facts.recv().await {
                Ok(own) => Wake::Own(own),
                Err(_) => pending().await,
            }
        };
        let collected = async {
            match self.facts.recv().await {
                Ok(fact) => Wake::Collected(fact),
                Err(_) => pending().await,
            }
        };
        use smol::future::or;
        or(or(stop, or(link, timeout)), or(or(dialed, asked), or(own, collected))).await
    }

    /// How long to wait at the most; `None` for as long as it takes.
    fn deadline_ns(&self) -> Option<Duration> {
        let deadlines = [
            self.sensor.poll_timeout(),
            self.spool.poll_timeout(),
            Some(self.spool.age_due_ns()),
            self.retry_due_ns,
            self.progress_due_ns,
            self.status_due_ns(),
            self.collectors.as_ref().filter(|known| known.are_running()).map(|_| self.tend_due_ns),
        ];
        let first = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_nanos(first.saturating_sub(clock::now().monotonic_ns)))
    }

    fn handle(&mut self, now: Now, wake: Wake) {
        match wake {
            Wake::Stop => self.ended = Some(Ended::Stopped),
            Wake::Link(Progress::Received) => self.receive(now),
            Wake::Link(Progress::Written) => {}
            Wake::Link(Progress::Gone(error)) => {
                log::warn!("Detection server {}: {error}", self.dialed);
                self.trouble = format!("Detection server {}: {error}", self.dialed);
                self.drop_link(now);
            }
            Wake::Dialed(Ok((stream, address))) => {
                self.dialed = address;
                self.link = Some(Link::new(stream));
                self.sensor.handle_connected(now);
                self.is_news = true;
            }
            Wake::Dialed(Err(trouble)) => {
                log::warn!("{}", trouble.text);
                self.trouble = trouble.text;
                self.sensor.handle_dial_failed(now);
                self.is_news = true;
            }
            Wake::Asked(answer) => self.assigned(now, answer),
            Wake::Timeout => {}
            Wake::Collected(fact) => self.take_collected(now, fact),
            Wake::Own(request) => self.take_own(now, &request),
        }
    }

    /// Does what is due by the clock.
    fn handle_time(&mut self, now: Now) {
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= now.monotonic_ns);
        if is_due(self.sensor.poll_timeout()) {
            self.sensor.handle_timeout(now);
        }
        if is_due(Some(self.tend_due_ns)) {
            self.tend_due_ns = now.after_ms(TEND_PERIOD_MS);
            if let Some(collectors) = &mut self.collectors {
                collectors.tend();
            }
        }
        self.sync_if_due(now);
        if is_due(Some(self.spool.age_due_ns())) {
            self.drop_aged(now);
        }
        self.tell_losses(now);
        if is_due(self.progress_due_ns) {
            self.progress_due_ns = None;
            if let Err(error) = self.spool.note_progress() {
                log::error!("{error}");
            }
        }
        if is_due(self.retry_due_ns) {
            self.retry_due_ns = None;
            for retry in std::mem::take(&mut self.retries) {
                match retry {
                    Retry::OpenLog { lane, cause, parent } => {
                        self.open_log(now, lane, cause, parent);
                    }
                    Retry::Accept(number) => self.accept(now, number),
                }
            }
        }
    }

    fn retry_later(&mut self, now: Now, retry: Retry) {
        self.retries.push(retry);
        self.retry_due_ns = Some(now.after_ms(DISK_RETRY_MS));
    }

    /// Drains the core in its order.
    fn drain(&mut self, now: Now) {
        loop {
            self.spool_chunks(now);
            if !self.handle_event(now) {
                break;
            }
        }
        // Looking for events may have made an outcome or a finding.
        self.spool_chunks(now);
        self.end_command(now);
        while let Some(link) = self.link.as_mut().filter(|link| link.has_room()) {
            match self.sensor.poll_transmit(now, &mut self.frames) {
                Ok(0) => break,
                Ok(length) => link.send(self.frames.get(..length).unwrap_or_default()),
                Err(_) => {
                    // Sized by the core itself when the runner was made.
                    log::error!("a frame does not fit its buffer; the connection is closed");
                    return self.drop_link(now);
                }
            }
            // Sending wants chunks that left the memory: they are fetched before more is sent.
            while self.handle_event(now) {
                self.spool_chunks(now);
            }
        }
    }

    fn receive(&mut self, now: Now) {
        let Some(link) = &mut self.link else { return };
        let bytes = link.received().to_vec();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let taken = self.sensor.handle_input(now, rest);
            rest = rest.get(taken..).unwrap_or_default();
            self.drain(now);
            if self.link.is_none() {
                return;
            }
        }
    }

    fn drop_link(&mut self, now: Now) {
        if let Some(link) = self.link.take() {
            self.count_traffic(link.traffic());
            self.sensor.handle_disconnected(now);
            if let Err(error) = self.spool.save_progress() {
                log::error!("{error}");
            }
        }
        self.is_news = true;
    }

    fn count_traffic(&mut self, (up, down): (u64, u64)) {
        self.traffic.0 += up;
        self.traffic.1 += down;
    }

    fn assigned(&mut self, now: Now, answer: Answer<StoredAssignment>) {
        self.is_news = true;
        match answer {
            Ok((assignment, traffic)) => {
                self.count_traffic(traffic);
                log::info!("assigned to {} at {}", assignment.name, assignment.address);
                if let Err(error) = self.state.save_assignment(&assignment) {
                    log::error!("{error}; Registration is asked again at the next start");
                }
                let server = assignment.server;
                self.assignment = Some(assignment);
                self.sensor.handle_assigned(now, server);
            }
            Err(trouble) => {
                log::warn!("{}", trouble.text);
                self.trouble = trouble.text;
                self.sensor.handle_ask_failed(now, trouble.retry_after_ms);
            }
        }
    }

    /// Ends in good order: everything that was seen is in the spool, and the spool is marked clean.
    async fn stop(mut self, ended: Ended) -> Result<Ended, AgentError> {
        let now = clock::now();
        if let Some(collectors) = &mut self.collectors {
            collectors.stop();
        }
        while let Ok(fact) = self.facts.try_recv() {
            self.take_collected(now, fact);
        }
        while let Ok(request) = self.own_facts.try_recv() {
            self.take_own(now, &request);
        }
        self.drain(now);
        // The core closes its chunk and then wants the connection closed; what it sends before is
        // taken along.
        self.sensor.close_chunk(now);
        self.drain(now);
        if let Some(link) = self.link.take() {
            let traffic = link.finish().await;
            self.count_traffic(traffic);
        }
        let now = clock::now();
        self.sensor.stop(now);
        self.sensor.handle_disconnected(now);
        self.spool_chunks(now);
        self.lose_receipts(Lane::Bulk);
        self.is_news = true;
        self.trouble = "the sensor was stopped".into();
        self.tell_status(now);
        for lane in Lane::BY_URGENCY {
            self.spool.note_sent(lane, self.sensor.sent_seq(lane));
        }
        self.spool.close()?;
        Ok(ended)
    }
}

/// The result of a future that is under way; waits for ever when there is none.
async fn wait_for<T>(pending_future: &mut Pending<T>) -> T {
    match pending_future {
        Some(future) => {
            let result = future.await;
            *pending_future = None;
            result
        }
        None => pending().await,
    }
}
