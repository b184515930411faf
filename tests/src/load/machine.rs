//! One sensor: the core, its spool and its connection, in one task.
//!
//! It does what the product's runner does, in the same order: chunks to the spool, events, frames
//! to the connection. In place of collectors it has the events of its corpus.
//!
//! Not here: when a phase begins (`fleet`). Invariant: an event is taken from the corpus only when
//! the core took its fact; what was taken is counted once.

mod core;
mod events;

use std::future::{Future, pending};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_protocol::id::{Lane, ServerId};
use lapwing_sensor_core::{Installation, Now, Sizes};
use lapwing_sensor_os::parts::{self, Assigned, Connection, LentMemory, Member, Told, Unanswered};
use smol::channel::{Receiver, Sender};

use self::core::Core;
use super::corpus::{Event, Texts};
use super::facts::{Timeline, World};
use super::fleet::{Counted, Gate, Notice, Signal};
use super::spool::Spool;
use super::wait;
use super::watch::{NackWatch, chunks_sent};

/// Facts handed in before the connection is looked at again: a chunk holds at most 1,024.
const FACTS_AT_ONCE: usize = 256;
/// Bytes of chunks that are made and not acknowledged, beyond which a sensor that is online waits
/// with the next event: twice the credit a lane can have.
const UNACKED_BYTES_MAX: u64 = 2 << 20;
/// How often a sensor whose next event may not happen yet looks whether it may.
const GATE_MS: u64 = 20;
/// How often what was acknowledged is written beside a spool on disk.
const PROGRESS_MS: u64 = 1_000;

/// What a sensor is made of.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) member: Member,
    pub(super) registration: Vec<String>,
    pub(super) detection: Vec<String>,
    pub(super) events: Vec<Event>,
    pub(super) texts: Arc<Texts>,
    pub(super) timeline: Timeline,
    pub(super) sizes: &'static Sizes,
    /// Folder and bound of a spool on disk.
    pub(super) spool: Option<(PathBuf, u64)>,
    /// Events of the whole corpus that happen before anybody connects.
    pub(super) offline_events: u64,
    /// Events a second over all sensors.
    pub(super) rate: Option<f64>,
    /// A chunk is closed after so many events.
    pub(super) chunk_events: Option<u64>,
    pub(super) gate: Gate,
    /// Added to the machine's monotonic clock, so that a short uptime has room for the corpus.
    pub(super) clock_ahead_ns: u64,
}

/// What one sensor counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Events of the corpus that the core took.
    pub(super) events: u64,
    /// Facts with an index, those of events included.
    pub(super) produced: u64,
    /// Facts up to the last place that a server acknowledged.
    pub(super) acked: u64,
    /// Facts that were announced as dropped.
    pub(super) dropped: u64,
    /// Facts that said nothing new.
    pub(super) unchanged: u64,
    pub(super) chunks: u64,
    pub(super) resent: u64,
    pub(super) throttled: u64,
    pub(super) sessions: u64,
    /// Bytes on the network, TLS included: sent, received.
    pub(super) traffic: (u64, u64),
    /// From the first sending of each chunk to the acknowledgement that covered it.
    pub(super) ack_us: Vec<u32>,
    pub(super) first_sent: Option<Instant>,
    pub(super) last_acked: Option<Instant>,
    /// When events were handed in: the wall time they claim, in milliseconds, and the moment.
    pub(super) handed: Vec<(u64, Instant)>,
}

/// Everything that can wake a sensor.
enum Wake {
    Signal(Signal),
    /// Whoever gives signals is gone.
    Abandoned,
    Link(Told),
    Dialed(Result<Connection, Unanswered>),
    Asked(Result<Assigned, Unanswered>),
    /// A deadline passed, or an event may happen.
    Time,
}

/// Something under way beside the loop.
type Pending<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// What the run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Events happen, and nobody connects.
    Offline,
    /// It connects; no event happens.
    Connecting,
    /// Events happen since that moment.
    Running(u64),
    Ending,
}

struct Machine<'m> {
    setup: Setup,
    core: Core<'m>,
    world: World,
    next_event: usize,
    phase: Phase,
    link: Option<Connection>,
    nacks: NackWatch,
    dialing: Pending<Result<Connection, Unanswered>>,
    asking: Pending<Result<Assigned, Unanswered>>,
    assigned: Option<(ServerId, String)>,
    signals: Receiver<Signal>,
    notices: Sender<Notice>,
    counted: Arc<Counted>,
    frames: Vec<u8>,
    progress_due_ns: Option<u64>,
    has_filled: bool,
    has_connected: bool,
    is_done: bool,
}

/// Runs a sensor until it is told to end; gives what it counted.
pub(super) async fn run(
    setup: Setup,
    signals: Receiver<Signal>,
    (notices, counted): (Sender<Notice>, Arc<Counted>),
) -> Result<Tally, String> {
    let mut memory = LentMemory::new(setup.sizes);
    let owner = setup.member.ids();
    let spool = match &setup.spool {
        None => Spool::in_memory(owner),
        Some((folder, bytes_max)) => Spool::on_disk(folder, owner, *bytes_max)
            .map_err(|error| format!("{}: {error}", setup.name))?,
    };
    let installation = Installation {
        has_registration: !setup.registration.is_empty(),
        has_detection: true,
        assigned: None,
    };
    let name = setup.name.clone();
    let core = Core::new(&name, owner, installation, spool, memory.lend())
        .map_err(|problem| format!("{}: {problem}", setup.name))?;
    let frames = vec![0; core.sensor.transmit_bytes_min()];
    let mut machine = Machine {
        // A quarter of the table is left for keys that are looked for at the same time.
        world: World::new(setup.timeline, setup.sizes.rows * 3 / 4),
        setup,
        core,
        next_event: 0,
        phase: Phase::Offline,
        link: None,
        nacks: NackWatch::default(),
        dialing: None,
        asking: None,
        assigned: None,
        signals,
        notices,
        counted,
        frames,
        progress_due_ns: None,
        has_filled: false,
        has_connected: false,
        is_done: false,
    };
    machine.run().await
}

impl Machine<'_> {
    fn now(&self) -> Now {
        let now = parts::now();
        Now { monotonic_ns: now.monotonic_ns + self.setup.clock_ahead_ns, ..now }
    }

    async fn run(&mut self) -> Result<Tally, String> {
        loop {
            let now = self.now();
            self.handle_time(now);
            self.take_events(now);
            self.drain(now)?;
            self.tell(now);
            if self.phase == Phase::Ending {
                return Ok(self.end().await);
            }
            let wake = self.wait(now).await;
            let now = self.now();
            self.handle(now, wake)?;
        }
    }

    async fn wait(&mut self, now: Now) -> Wake {
        let signal = async {
            match self.signals.recv().await {
                Ok(signal) => Wake::Signal(signal),
                Err(_) => Wake::Abandoned,
            }
        };
        let due_ns = self.event_due_ns(now);
        let deadline = self.deadline_ns(due_ns);
        let timeout = async {
            match deadline {
                // Whoever waits for this sensor's thread comes first.
                Some(0) => smol::future::yield_now().await,
                Some(wait_ns) => {
                    wait::pause(Duration::from_nanos(wait_ns)).await;
                }
                None => pending().await,
            }
            Wake::Time
        };
        let link = async {
            match &mut self.link {
                Some(link) => Wake::Link(link.progress().await),
                None => pending().await,
            }
        };
        let dialed = async { Wake::Dialed(wait_for(&mut self.dialing).await) };
        let asked = async { Wake::Asked(wait_for(&mut self.asking).await) };
        use smol::future::or;
        or(or(signal, link), or(or(dialed, asked), timeout)).await
    }

    /// How long to wait at the most, in nanoseconds.
    fn deadline_ns(&self, event_due_ns: Option<u64>) -> Option<u64> {
        let core = self.core.sensor.poll_timeout();
        let deadlines = [core, self.core.spool.poll_timeout(), self.progress_due_ns, event_due_ns];
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_sub(self.now().monotonic_ns))
    }

    fn handle(&mut self, now: Now, wake: Wake) -> Result<(), String> {
        match wake {
            Wake::Signal(Signal::Connect) => {
                self.phase = Phase::Connecting;
                self.core.sensor.start(now);
            }
            Wake::Signal(Signal::Go) => self.phase = Phase::Running(now.monotonic_ns),
            Wake::Signal(Signal::End) | Wake::Abandoned => self.phase = Phase::Ending,
            Wake::Link(Told::Received) => self.receive(now)?,
            Wake::Link(Told::Written) | Wake::Time => {}
            Wake::Link(Told::Gone(why)) => {
                self.trouble(&why);
                self.drop_link(now);
            }
            Wake::Dialed(Ok(link)) => {
                self.link = Some(link);
                self.nacks.clear();
                self.core.sensor.handle_connected(now);
            }
            Wake::Dialed(Err(error)) => {
                self.trouble(&error.text);
                self.core.sensor.handle_dial_failed(now);
            }
            Wake::Asked(Ok(assigned)) => {
                self.core.tally.traffic.0 += assigned.traffic.0;
                self.core.tally.traffic.1 += assigned.traffic.1;
                let server = assigned.server;
                self.assigned = Some((server, assigned.address));
                self.core.sensor.handle_assigned(now, server);
            }
            Wake::Asked(Err(error)) => {
                self.trouble(&error.text);
                self.core.sensor.handle_ask_failed(now, error.retry_after_ms);
            }
        }
        Ok(())
    }

    fn handle_time(&mut self, now: Now) {
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= now.monotonic_ns);
        if is_due(self.core.sensor.poll_timeout()) {
            self.core.sensor.handle_timeout(now);
        }
        self.core.sync_if_due(now);
        if is_due(self.progress_due_ns) {
            self.progress_due_ns = None;
            self.core.spool.note_progress();
        }
    }

    // --- Events of the corpus.

    /// When the next event happens; `None` while none may, 0 for at once.
    fn event_due_ns(&self, now: Now) -> Option<u64> {
        let event = self.setup.events.get(self.next_event)?;
        if !self.setup.gate.lets(event.place) {
            return Some(now.after_ms(GATE_MS));
        }
        match self.phase {
            Phase::Offline => (event.place < self.setup.offline_events).then_some(0),
            Phase::Connecting | Phase::Ending => None,
            Phase::Running(since_ns) => {
                let place = event.place.saturating_sub(self.setup.offline_events);
                let due_ns = match self.setup.rate {
                    None => 0,
                    Some(rate) => since_ns + (place as f64 / rate * 1e9) as u64,
                };
                let may = due_ns > now.monotonic_ns || self.core.has_room(UNACKED_BYTES_MAX);
                may.then_some(due_ns)
            }
        }
    }

    fn take_events(&mut self, now: Now) {
        let first = self.next_event;
        for _ in 0..FACTS_AT_ONCE {
            if self.event_due_ns(now).is_none_or(|due_ns| due_ns > now.monotonic_ns) {
                break;
            }
            let Some(event) = self.setup.events.get(self.next_event).copied() else { break };
            if self.next_event == first {
                let behind_ns =
                    now.monotonic_ns.saturating_sub(self.setup.timeline.time_ns(&event));
                let claimed_ms = now.wall_ms.saturating_sub(behind_ns / 1_000_000);
                self.core.tally.handed.push((claimed_ms, Instant::now()));
            }
            let Self { world, core, setup, .. } = self;
            world.tell(&event, &setup.texts, |fact| core.take(now, Lane::Bulk, fact));
            self.next_event += 1;
            let in_chunk = self.setup.chunk_events.unwrap_or(u64::MAX);
            if (self.next_event as u64).is_multiple_of(in_chunk) {
                self.core.sensor.close_chunk(now);
                self.core.spool_chunks(now);
            }
        }
        let taken = (self.next_event - first) as u64;
        self.core.tally.events += taken;
        self.counted.handed(taken);
        let is_last = self.next_event == self.setup.events.len();
        if taken > 0 && (is_last || self.event_due_ns(now).is_none()) && self.is_phase_over() {
            self.core.sensor.close_chunk(now);
        }
    }

    /// Whether no event is left for this phase.
    fn is_phase_over(&self) -> bool {
        let next = self.setup.events.get(self.next_event);
        match self.phase {
            Phase::Offline => next.is_none_or(|event| event.place >= self.setup.offline_events),
            Phase::Connecting | Phase::Running(_) | Phase::Ending => next.is_none(),
        }
    }

    // --- The connection.

    /// Drains the core in its order.
    fn drain(&mut self, now: Now) -> Result<(), String> {
        loop {
            self.core.spool_chunks(now);
            if !self.handle_event(now)? {
                break;
            }
        }
        self.core.spool_chunks(now);
        while let Some(link) = self.link.as_mut().filter(|link| link.has_room()) {
            match self.core.sensor.poll_transmit(now, &mut self.frames) {
                Ok(0) => break,
                Ok(length) => {
                    let frames = self.frames.get(..length).unwrap_or_default();
                    chunks_sent(frames, |lane, seq| self.core.flights.sent(lane, seq));
                    link.send(frames);
                }
                Err(_) => return Err("a frame does not fit its buffer".into()),
            }
            while self.handle_event(now)? {
                self.core.spool_chunks(now);
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Now) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let bytes = link.received().to_vec();
        let throttled = &mut self.core.tally.throttled;
        self.nacks.feed(&bytes, |nack| {
            let is_throttled = nack.reason == lapwing_protocol::delivery::NackReason::Throttled;
            *throttled += u64::from(is_throttled);
        });
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let taken = self.core.sensor.handle_input(now, rest);
            rest = rest.get(taken..).unwrap_or_default();
            self.drain(now)?;
            if self.link.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn drop_link(&mut self, now: Now) {
        if let Some(link) = self.link.take() {
            self.core.count_traffic(link.traffic());
            self.core.sensor.handle_disconnected(now);
        }
    }

    fn trouble(&self, why: &str) {
        self.counted.trouble(&self.setup.name, why);
    }

    // --- What others hear.

    fn tell(&mut self, _: Now) {
        if !self.has_filled && self.phase == Phase::Offline && self.is_phase_over() {
            self.has_filled = true;
            self.notify(Notice::Filled);
        }
        let is_running = matches!(self.phase, Phase::Running(_));
        if !self.is_done && is_running && self.is_phase_over() && self.core.is_all_acked() {
            self.is_done = true;
            self.notify(Notice::Done);
        }
    }

    fn notify(&self, notice: Notice) {
        // Whoever counts is gone only when the run is.
        let _ = self.notices.try_send(notice);
    }

    async fn end(&mut self) -> Tally {
        if let Some(link) = self.link.take() {
            let traffic = link.finish().await;
            self.core.count_traffic(traffic);
        }
        self.core.tally()
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
