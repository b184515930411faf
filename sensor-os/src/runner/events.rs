//! What the core wants done outside, one arm for each event.

use lapwing_protocol::call::{Method, Reply};
use lapwing_protocol::code::Code;
use lapwing_protocol::console::{HealthView, SensorReport};
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{CollectorCount, LogStatement};
use lapwing_sensor_core::{CloseReason, DialTarget, Event, Find, LogPositions, Now, Position};

use super::chunks::core_hole;
use super::limits::PROGRESS_PERIOD_MS;
use super::{Retry, Runner};
use crate::random;
use crate::spool::SpoolError;

/// Bodies of replies: a page of health.
const REPLY_BYTES_MAX: usize = 32 << 10;

impl Runner<'_> {
    /// Does the next thing the core wants, and says whether there was one.
    pub(super) fn handle_event(&mut self, now: Now) -> bool {
        let Some(event) = self.sensor.poll_event(now) else { return false };
        match event {
            // The bodies of calls served here are empty, and no call is made on this connection.
            Event::Call { call, method, .. } => self.answer(now, call, method),
            Event::Reply { .. } => {}
            Event::AskRegistration { reason, trouble_with } => {
                self.questions += 1;
                let credentials = self.credentials.clone();
                let addresses = self.config.servers.registration.clone();
                self.asking = Some(Box::pin(credentials.assign(addresses, reason, trouble_with)));
            }
            Event::DialDetection(target) => self.dial(target),
            Event::Close(reason) => self.close_link(now, reason),
            Event::Greeted { server, .. } => {
                log::info!("online: Detection server {server} at {}", self.dialed);
                self.sessions += 1;
                self.trouble.clear();
                self.is_news = true;
            }
            Event::Acked { lane, log, server, acked, safe_seq } => {
                self.spool.handle_stored((lane, log), server, acked.into(), safe_seq);
                self.resolve_receipts(lane, log, acked.next_index);
                self.trim(now);
                self.progress_due_ns.get_or_insert(now.after_ms(PROGRESS_PERIOD_MS));
            }
            Event::Fetch { lane, log, seq } => self.fetch(now, (lane, log), seq),
            Event::Locate { lane, log, find } => {
                let found = match find {
                    Find::Behind(seq) => self.spool.behind((lane, log), seq),
                    Find::SegmentOf(seq) => self.spool.before_segment_of((lane, log), seq),
                };
                let found = match found {
                    Ok(found) => found,
                    Err(error) => {
                        log::error!("{error}");
                        if error.is_passing() {
                            // It may lie there all the same: the next session asks again.
                            self.drop_link(now);
                            return true;
                        }
                        None
                    }
                };
                self.sensor.handle_located(now, lane, found.map(Position::from));
            }
            Event::OpenLog { lane, cause, parent } => self.open_log(now, lane, cause, parent),
            Event::LogDrained { lane, log } => {
                self.handle_drained(lane, log);
                self.sensor.handle_tail(lane, None);
                self.next_tail(now, lane);
            }
            Event::AcceptCommand(number) => self.accept(now, number),
            Event::ExecuteCommand(command) => self.execute(now, &command),
        }
        true
    }

    fn dial(&mut self, target: DialTarget) {
        let assignment = self.assignment.as_ref();
        let (addresses, server) = match (target, assignment) {
            (DialTarget::Assigned(server), Some(known)) if known.server == server => {
                (vec![known.address.clone()], Some(server))
            }
            (DialTarget::Assigned(_) | DialTarget::Package, _) => {
                (self.config.servers.detection.clone(), None)
            }
        };
        self.dialed = addresses.first().cloned().unwrap_or_default();
        self.dialing = Some(Box::pin(self.credentials.clone().connect(addresses, server)));
        self.is_news = true;
    }

    fn close_link(&mut self, now: Now, reason: CloseReason) {
        if reason != CloseReason::Stopped {
            log::warn!("the session with {} ends: {reason}", self.dialed);
            self.trouble = format!("Detection server {}: {reason}", self.dialed);
        }
        self.drop_link(now);
    }

    fn fetch(&mut self, now: Now, (lane, log): (Lane, LogId), seq: u64) {
        let mut chunk = std::mem::take(&mut self.fetched);
        let found = self.spool.fetch((lane, log), seq, &mut chunk);
        let is_it = match found {
            Ok(Some(_)) => self.sensor.handle_fetched(lane, seq, &chunk).is_ok(),
            Ok(None) => false,
            Err(error) => {
                log::error!("{error}");
                if error.is_passing() {
                    self.fetched = chunk;
                    return self.drop_link(now);
                }
                false
            }
        };
        self.fetched = chunk;
        if is_it {
            return;
        }
        log::error!("chunk {seq} of log {log} cannot be read from the spool; it is a loss");
        match self.spool.handle_damage((lane, log), seq) {
            Ok(hole) => self.sensor.handle_hole(now, lane, core_hole(log, &hole)),
            Err(error) => {
                log::error!("{error}");
                self.drop_link(now);
            }
        }
    }

    fn trim(&mut self, now: Now) {
        match self.spool.trim() {
            Ok(trimmed) => {
                for trimmed in trimmed {
                    self.tell_trimmed(now, &trimmed, super::chunks::BOUND);
                }
            }
            Err(error) => log::error!("{error}"),
        }
        for lane in Lane::BY_URGENCY {
            let tail = self.spool.tail(lane).map(|tail| tail.log);
            if let Err(error) = self.spool.retire(lane, tail) {
                log::error!("{error}");
            }
        }
    }

    /// Hands the core the oldest log of an earlier start that still has something to send.
    pub(super) fn next_tail(&mut self, now: Now, lane: Lane) {
        let tail = self.spool.tail(lane).filter(|_| !cfg!(mutant = "tail_forgotten"));
        if let Some(tail) = tail {
            self.sensor.handle_tail(lane, Some(tail.into()));
            super::chunks::remind(&mut self.sensor, now, &self.spool, (lane, tail.log));
        }
    }

    pub(super) fn open_log(&mut self, now: Now, lane: Lane, cause: LogCause, parent: LogParent) {
        log::warn!("a new log is opened on the {lane:?} lane: {cause:?}");
        // The core may ask anew, in a new session, while an earlier wish still waits for the disk.
        let is_of_lane =
            |retry: &Retry| matches!(retry, Retry::OpenLog { lane: known, .. } if *known == lane);
        self.retries.retain(|retry| !is_of_lane(retry));
        let opened = match random::bytes() {
            Ok(log) => self.spool.open_log(lane, LogId(log), cause, Some(parent)),
            Err(error) => Err(SpoolError::from(error)),
        };
        match opened {
            Ok(log) => {
                self.lose_receipts(lane);
                self.handle_drained(lane, parent.log);
                self.sensor.handle_open_log(lane, log.into());
            }
            Err(error) => {
                log::error!("{error}");
                self.retry_later(now, Retry::OpenLog { lane, cause, parent });
            }
        }
    }

    fn handle_drained(&mut self, lane: Lane, log: LogId) {
        if let Err(error) = self.spool.handle_drained(lane, log) {
            log::error!("{error}");
        }
    }

    fn answer(&mut self, now: Now, call: u32, method: Method) {
        let mut body = vec![0; REPLY_BYTES_MAX];
        let (code, body) = match method {
            Method::REPORT => match self.report(&mut body) {
                Some(body) => (Code::OK, body),
                None => (Code::TOO_LARGE, &[] as &[u8]),
            },
            _ => (Code::UNSUPPORTED, &[] as &[u8]),
        };
        let mut frame = vec![0; body.len() + 64];
        let reply = Reply { call, more: false, code, body };
        if let (Ok(length), Some(link)) =
            (self.sensor.encode_reply(&reply, &mut frame), self.link.as_mut())
        {
            link.send(&frame[..length]);
            if link.is_overrun() {
                log::warn!("{} asks and does not read; the connection is closed", self.dialed);
                self.drop_link(now);
            }
        }
    }

    /// Where every log stands of which something is held: what is written, and tails of older ones.
    fn statements(&self) -> impl Iterator<Item = LogStatement> + '_ {
        let stats = self.sensor.stats();
        Lane::BY_URGENCY.into_iter().flat_map(move |lane| {
            let current = self.sensor.positions(lane);
            let next_index = stats.lanes[lane.index()].facts_produced + 1;
            let held = next_index.saturating_sub(current.acked.next_index);
            let current = LogStatement { lane, log: current.log, next_index, held };
            let tail = self.spool.tail(lane).map(LogPositions::from).map(|tail| {
                let next_index = tail.made.next_index;
                let held = next_index.saturating_sub(tail.acked.next_index);
                LogStatement { lane, log: tail.log, next_index, held }
            });
            [Some(current), tail].into_iter().flatten()
        })
    }

    fn report<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let status = self.collector_statuses();
        let views = status.iter().map(|collector| HealthView {
            component: &collector.name,
            status: &collector.status,
            reason: &collector.reason,
            remedy: &collector.remedy,
            mechanism: &collector.mechanism,
        });
        let spool = (!self.losses.trouble.is_empty()).then(|| HealthView {
            component: "spool",
            status: "degraded",
            reason: &self.losses.trouble,
            remedy: "",
            mechanism: "disk",
        });
        let views = views.chain(spool);
        let mut health = vec![0; REPLY_BYTES_MAX / 2];
        let health = Items::encode(views, &mut health).ok()?;
        let counts = status.iter().map(|collector| CollectorCount {
            component: &collector.name,
            seen: collector.seen,
            refused: collector.refused,
            overflowed: collector.overflowed,
        });
        let mut collected = vec![0; REPLY_BYTES_MAX / 8];
        let collected = Items::encode(counts, &mut collected).ok()?;
        let mut logs = vec![0; REPLY_BYTES_MAX / 8];
        let logs = Items::encode(self.statements(), &mut logs).ok()?;
        let stats = self.sensor.stats();
        let report = SensorReport {
            collecting: self.is_collecting,
            produced: stats.lanes.map(|lane| lane.facts_produced),
            spool_bytes: self.spool.bytes(),
            health,
            wall_ms: crate::clock::unix_ms(),
            logs,
            unchanged: stats.unchanged,
            collected,
        };
        lapwing_protocol::error::to_slice(&report, buffer).ok().map(|bytes| &*bytes)
    }
}
