//! The sensors' connections: one loop each, around the pure session.
//!
//! Not here: what is taken and acknowledged (`lapwing_server_core::delivery`). The loop has one
//! shape: send what is due, then wait for the first of: bytes, a durable entry, a wake-up, time.
//!
//! Invariants: entries go to the journal in the order the session gave them; a connection that
//! ends leaves no entry unaccounted for; a fenced session ends at once.

mod greeting;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use event_listener::{Event, EventListener};
use lapwing_net::clock;
use lapwing_net::listener::{Connection, Fault};
use lapwing_protocol::code::Code;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX};
use lapwing_server_core::delivery::{Offerings, PeerFault, Rest, Session, SessionEvent};
use lapwing_store::journal::Journal;
use lapwing_store::{RowStore, StoreError};
use smol::Timer;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::commands::Commands;
use crate::fault::{AckHold, is_ack};
use crate::ingest::{self, Storing};
use crate::limits::{READS_MAX, RECEIVE_BYTES, RETRY_AFTER_MS, STORING_MAX, SessionLimits};
use crate::metrics::SessionMetrics;
use crate::parting::{SensorFault, refuse, send};
use crate::places::{NoPlace, Places};
use crate::roster::{Member, Roster};
use crate::sharing::Sharing;
use crate::watch::Findings;

/// Why a connection ends when the journal fails.
const STORE_FAILED: &str = "the journal takes nothing more";

/// What the connections of one server share.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) roster: Arc<Roster>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) state: RowStore,
    pub(crate) commands: Arc<Commands>,
    pub(crate) offerings: Offerings,
    pub(crate) capacity: Arc<AtomicU32>,
    pub(crate) epochs: AtomicU64,
    pub(crate) metrics: SessionMetrics,
    pub(crate) ack_hold: AckHold,
    pub(crate) sharing: Arc<Sharing>,
    pub(crate) places: Places,
    pub(crate) limits: SessionLimits,
    /// Notified when a sensor comes or goes.
    pub(crate) changed: Event,
    /// Notified when a sensor reported.
    pub(crate) reported: Event,
    pub(crate) findings: Arc<Findings>,
}

/// What ends a connection.
enum End {
    /// The peer closed it.
    Closed,
    /// The peer did wrong.
    Fault(PeerFault),
    /// This server stops.
    Draining,
    /// The journal takes nothing more.
    StoreFailed,
}

/// What the loop waits for.
enum Wake {
    Received(std::io::Result<usize>),
    Stored,
    Woken,
    Time,
    Shutdown,
}

/// What a store that fails means for the session: it ends.
fn store_failed(sensor: SensorId, error: &StoreError) -> End {
    log::error!("what is known of sensor {sensor} cannot be stored: {error}");
    End::StoreFailed
}

impl Sessions {
    /// Speaks with one sensor until the connection ends.
    ///
    /// # Errors
    /// What the sensor did wrong, for the log.
    pub(crate) async fn serve(&self, connection: Connection) -> Result<(), Fault> {
        let Connection { peer, source, mut stream, shutdown, key_digest, .. } = connection;
        let Some(sensor) = peer.and_then(|peer| peer.sensor()) else {
            return Err("the peer's certificate names no sensor".into());
        };
        let member = match self.enter(sensor) {
            Ok(member) => member,
            Err(no_place) => return self.turn_away(&mut stream, no_place).await,
        };
        let time = self.limits.send_time;
        if let Err(detail) = self.admit(&member, key_digest).await {
            self.metrics.refuse(Code::REVOKED.name());
            return refuse(&mut stream, time, (Code::REVOKED, detail)).await;
        }
        let epoch = match self.begin(&member, source) {
            Ok(epoch) => epoch,
            Err(no_place) => return self.turn_away(&mut stream, no_place).await,
        };
        let session = Session::new(clock::monotonic_ms(), epoch, self.offerings.clone())
            .with_burst(self.limits.frames_burst);
        let mut link = Link {
            shared: self,
            session: session.with_patience(self.limits.patience),
            member: Arc::clone(&member),
            storing: VecDeque::new(),
            sent: None,
            greeted: false,
            held_ms: None,
            reporting: None,
            holds_acks: self.ack_hold.holds(sensor),
        };
        let end = link.run(&mut stream, &shutdown).await;
        // Before the farewell, which a peer that does not read can draw out: a newer connection of
        // this sensor waits for the word on these.
        for storing in &mut link.storing {
            storing.finish(&member).await;
        }
        member.wake.notify(usize::MAX);
        let late = async {
            Timer::after(self.limits.send_time).await;
        };
        smol::future::or(link.farewell(&mut stream, &end), late).await;
        self.end(&member, epoch);
        match end {
            End::Closed | End::Draining => Ok(()),
            End::StoreFailed => Err(STORE_FAILED.into()),
            End::Fault(fault) => Err(SensorFault { sensor, fault }.into()),
        }
    }

    /// The sensor's member; one that was never here is not remembered before there is room for it.
    fn enter(&self, sensor: SensorId) -> Result<Arc<Member>, NoPlace> {
        if let Some(member) = self.roster.find(sensor) {
            return Ok(member);
        }
        self.places.check_newcomer(self.capacity.load(Ordering::Relaxed) as usize)?;
        Ok(self.roster.member(clock::unix_ms(), sensor))
    }

    async fn turn_away(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        no_place: NoPlace,
    ) -> Result<(), Fault> {
        self.metrics.refuse(no_place.cause());
        refuse(stream, self.limits.send_time, (Code::BUSY, no_place.text())).await
    }

    /// Gives the sensor a place and a session, which fences those before it.
    fn begin(&self, member: &Member, source: SocketAddr) -> Result<u64, NoPlace> {
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        // Place, epoch and session change together, so that of two connections that come at once
        // the one with the higher epoch is the one that goes on.
        let mut about = member.about();
        match about.session {
            Some(_) => about.watch.handle_fence(clock::unix_ms()),
            None => self.places.take(capacity)?,
        }
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        member.receiver().begin_session(epoch);
        about.session = Some((epoch, source));
        about.last_seen_ms = clock::unix_ms();
        drop(about);
        self.sharing.prepare(member);
        member.wake.notify(usize::MAX);
        self.count();
        Ok(epoch)
    }

    fn count(&self) {
        self.metrics.connected.set(i64::try_from(self.places.taken()).unwrap_or(i64::MAX));
    }

    fn end(&self, member: &Member, epoch: u64) {
        let mut about = member.about();
        if about.session.is_some_and(|(current, _)| current == epoch) {
            about.session = None;
            self.places.give_back();
        }
        drop(about);
        self.sharing.leave(member, epoch);
        self.count();
        self.changed.notify(usize::MAX);
    }
}

/// One connection at work.
struct Link<'s> {
    shared: &'s Sessions,
    session: Session,
    member: Arc<Member>,
    storing: VecDeque<Storing>,
    sent: Option<CommandNumber>,
    greeted: bool,
    /// Until when what it said waits in the buffer, since it says too much.
    held_ms: Option<u64>,
    /// The call for a report that is under way, and what came of the answer.
    reporting: Option<(u32, Vec<u8>)>,
    /// A fault of a debug build: no Ack is sent.
    holds_acks: bool,
}

impl Link<'_> {
    async fn run(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        shutdown: &lapwing_net::shutdown::Shutdown,
    ) -> End {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.limit_frames(FRAME_BYTES_UNAUTHENTICATED_MAX);
        let mut reads = 0;
        loop {
            // Listening begins before sending, so that nothing that comes between is missed.
            let member = Arc::clone(&self.member);
            let woken = member.wake.listen();
            let sent = match self.settle().await {
                Ok(()) => self.send_due(stream).await,
                Err(end) => Err(end),
            };
            if let Err(end) = sent {
                return end;
            }
            if reads >= READS_MAX {
                reads = 0;
                smol::future::yield_now().await;
            }
            let wake = self.wait(stream, (&mut deframer, woken), shutdown).await;
            reads += u32::from(matches!(wake, Wake::Received(_)));
            if let Err(end) = self.handle(wake, &mut deframer).await {
                return end;
            }
            if self.held_ms.is_some_and(|until_ms| until_ms <= clock::monotonic_ms()) {
                // What waited in the buffer meanwhile.
                self.session.excuse(clock::monotonic_ms());
                if let Err(end) = self.handle_frames(&mut deframer).await {
                    return end;
                }
            }
        }
    }

    /// The first of what the loop waits for.
    async fn wait(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        (deframer, woken): (&mut Deframer<'_>, EventListener),
        shutdown: &lapwing_net::shutdown::Shutdown,
    ) -> Wake {
        let room = self.storing.len() < STORING_MAX && self.held_ms.is_none();
        let receive = async {
            if !room {
                std::future::pending::<()>().await;
            }
            Wake::Received(stream.read(deframer.space()).await)
        };
        let due_ms = self.session.poll_timeout().min(self.held_ms.unwrap_or(u64::MAX));
        let due_ms = due_ms.saturating_sub(clock::monotonic_ms());
        let stored = async {
            match self.storing.front_mut() {
                Some(storing) => storing.finish(&self.member).await,
                None => std::future::pending().await,
            }
            Wake::Stored
        };
        let time = async {
            Timer::after(Duration::from_millis(due_ms)).await;
            Wake::Time
        };
        let stop = async {
            shutdown.begun().await;
            Wake::Shutdown
        };
        let wait = async {
            woken.await;
            Wake::Woken
        };
        use smol::future::or;
        or(stop, or(stored, or(receive, or(wait, time)))).await
    }

    async fn handle(&mut self, wake: Wake, deframer: &mut Deframer<'_>) -> Result<(), End> {
        match wake {
            Wake::Received(Ok(0) | Err(_)) => Err(End::Closed),
            Wake::Received(Ok(length)) => {
                deframer.filled(length);
                self.shared.metrics.bytes_up.inc_by(length as u64);
                self.member.about().last_seen_ms = clock::unix_ms();
                self.handle_frames(deframer).await?;
                // What came again may have used up the credit, and nothing more will be stored.
                self.shared.sharing.ask(&self.member, CHUNK_BYTES_MAX as u64);
                Ok(())
            }
            Wake::Stored => {
                if self.storing.len() >= STORING_MAX {
                    self.session.excuse(clock::monotonic_ms());
                }
                self.storing.pop_front();
                self.shared.sharing.ask(&self.member, u64::MAX);
                Ok(())
            }
            Wake::Time => self.session.handle_timeout(clock::monotonic_ms()).map_err(End::Fault),
            Wake::Woken => Ok(()),
            Wake::Shutdown => Err(End::Draining),
        }
    }

    /// Deletes the commands whose outcome came.
    async fn settle(&self) -> Result<(), End> {
        let outcomes = std::mem::take(&mut self.member.about().outcomes);
        if outcomes.is_empty() {
            return Ok(());
        }
        let is_over = |number| outcomes.contains(&number);
        let sensor = self.member.sensor;
        let settled = self.shared.commands.settle(clock::unix_ms(), sensor, is_over).await;
        settled.map_err(|error| store_failed(sensor, &error))
    }

    async fn handle_frames(&mut self, deframer: &mut Deframer<'_>) -> Result<(), End> {
        let member = Arc::clone(&self.member);
        self.held_ms = None;
        loop {
            let held_ms = self.session.poll_resume();
            if let Some(until_ms) = held_ms.filter(|at_ms| clock::monotonic_ms() < *at_ms) {
                self.shared.metrics.paced.inc();
                self.held_ms = Some(until_ms);
                break;
            }
            let now = (clock::monotonic_ms(), clock::unix_ms());
            let _intake = member.intake.lock().await;
            let event = match deframer.next_frame() {
                Err(DecodeError::Limit) => return Err(End::Fault(PeerFault::TooLarge)),
                Err(_) => return Err(End::Fault(PeerFault::Malformed)),
                Ok(None) => break,
                Ok(Some(frame)) => {
                    self.recall(&frame).await;
                    let mut receiver = member.receiver();
                    let mut admit = |bytes| self.shared.sharing.admit(member.sensor, bytes);
                    let session = &mut self.session;
                    session
                        .handle_frame_if(now, &frame, &mut receiver, &mut admit)
                        .map_err(End::Fault)?
                }
            };
            match event {
                None => {}
                Some(SessionEvent::Greeted(greeting)) => {
                    let greeted = self.shared.greet(&self.member, &greeting).await;
                    // Not answered: what the answer rests on is not durable.
                    greeted.map_err(|error| store_failed(member.sensor, &error))?;
                    self.shared.sharing.join(&member, self.session.epoch());
                    deframer.limit_frames(RECEIVE_BYTES);
                    self.sent = greeting.last_command;
                    self.greeted = true;
                }
                Some(SessionEvent::Entry(entry)) => {
                    self.shared.metrics.chunks.inc();
                    let journal = &self.shared.journal;
                    let (lane, bytes) = (entry.lane, entry.bytes.len());
                    let charge = self.shared.sharing.charge(member.sensor, lane, bytes);
                    match ingest::submit(journal, member.sensor, now.1, entry).await {
                        Ok(storing) => self.storing.push_back(storing.charged(charge)),
                        Err(refusal) => {
                            log::error!("an entry of sensor {}: {refusal}", member.sensor);
                            // It was given out and is nowhere: nothing behind it counts as stored.
                            member.receiver().handle_store_failed();
                            return Err(End::StoreFailed);
                        }
                    }
                }
                Some(SessionEvent::Called { call, .. }) => {
                    let text = "this server answers no such call of a sensor";
                    self.session.reply(call, Code::UNSUPPORTED, text.as_bytes());
                }
                Some(SessionEvent::Replied { call, more, code, body }) => {
                    self.handle_reply(call, (more, code), &body).await;
                }
            }
        }
        let begun = deframer.is_midway() && self.held_ms.is_none();
        let rest = if begun { Rest::PartOfFrame } else { Rest::None };
        self.session.handle_bytes(clock::monotonic_ms(), rest);
        Ok(())
    }

    /// Hands the commands that are due to the session. A sensor without memory cannot tell a
    /// command that comes again, so for it the queue forgets them first: at most once, whatever
    /// happens.
    async fn send_commands(&mut self) -> Result<(), End> {
        let (sensor, now_ms) = (self.member.sensor, clock::unix_ms());
        let due = self.shared.commands.due(now_ms, sensor, self.sent);
        let Some(last) = due.last().map(|command| command.number) else { return Ok(()) };
        if self.member.about().memory == Memory::RamOnly {
            let forgotten = self.shared.commands.settle(now_ms, sensor, |number| number <= last);
            forgotten.await.map_err(|error| store_failed(sensor, &error))?;
        }
        for command in due {
            self.session.send_command(command);
        }
        self.sent = Some(last);
        Ok(())
    }

    /// Sends everything that is due in one write.
    async fn send_due(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), End> {
        if self.greeted && self.session.has_room() {
            self.send_commands().await?;
            self.ask_for_report();
        }
        let mut bytes = Vec::new();
        {
            let mut receiver = self.member.receiver();
            let late = cfg!(mutant = "old_epoch_accepted") && self.storing.is_empty();
            let is_older = receiver.epoch() != self.session.epoch();
            if is_older && !late && !cfg!(mutant = "no_fence") {
                return Err(End::Fault(PeerFault::Fenced));
            }
            if receiver.is_store_failed() {
                return Err(End::StoreFailed);
            }
            while let Some(frame) = self.session.poll_transmit(&mut receiver) {
                if !(self.holds_acks && is_ack(&frame)) {
                    bytes.extend_from_slice(&frame);
                }
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.shared.metrics.bytes_down.inc_by(bytes.len() as u64);
        let time = self.shared.limits.send_time;
        let sent = async { send(stream, time, &bytes).await.map_err(|_| End::Closed) };
        smol::future::or(sent, self.fenced()).await
    }

    /// Ends when a newer session took over: a peer that does not read must not keep it waiting.
    async fn fenced(&self) -> Result<(), End> {
        loop {
            let woken = self.member.wake.listen();
            let is_older = self.member.receiver().epoch() != self.session.epoch();
            if is_older && !cfg!(mutant = "no_fence") {
                return Err(End::Fault(PeerFault::Fenced));
            }
            woken.await;
        }
    }

    /// Says why the connection ends, where the sensor should know. Whether it arrives does not
    /// matter: the connection ends either way.
    async fn farewell(&mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), end: &End) {
        let time = self.shared.limits.send_time;
        match end {
            End::Closed => return,
            End::Draining => {
                self.session.send_draining(RETRY_AFTER_MS);
                let _ = self.send_due(stream).await;
            }
            End::StoreFailed => {
                let _ = refuse(stream, time, (Code::STORE_FAILED, STORE_FAILED)).await;
            }
            End::Fault(fault) => {
                self.shared.metrics.faults.inc();
                self.shared.metrics.refuse(fault.code().name());
                let _ = send(stream, time, &Session::refusal(*fault, 0)).await;
            }
        }
        let _ = stream.close().await;
    }
}
