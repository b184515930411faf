//! Who may put how much on its way to the disk: the bulk lanes of all sensors share one budget.
//!
//! While little is on its way, nobody asks: chunks are taken and credit is raised as it is used.
//! Once half of the budget is on its way, sensors that need credit, and sensors whose chunk was
//! refused, stand in one line; what becomes free is dealt in turns of equal bytes, one to each,
//! round and round (deficit round robin: what is left of a turn is kept). A turn is room that is
//! held for one sensor. At first, and while it is told to stay away, it holds two at most, and more
//! as it uses them up; one that is not used lapses: what is held for sensors that say little must
//! not keep the disk waiting. While somebody stands in line, nobody without a turn is served before
//! them.
//!
//! Not here: the credit itself ([`super::Receiver`]), the urgent lane (it takes no turn: its own
//! small window bounds it), and the disk. Pure: `now` is an argument.
//!
//! Invariants: what is on its way, and the turns besides, never exceed the budget; whoever stands
//! in line gets its turn after at most one turn of everybody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lapwing_protocol::id::SensorId;
use lapwing_protocol::limits::CHUNK_BYTES_MAX;

use super::limits::{
    ABSENT_BYTES_MAX, CHUNK_COST_MIN, SHARE_BYTES_MIN, TURN_BYTES, TURN_DOUBT_MS, TURN_LAPSE_MS,
    TURN_RETRY_MS_MAX, TURN_RETRY_MS_MIN, WINDOW_BYTES_BULK, WINDOW_BYTES_FIRST, WINDOW_BYTES_HIGH,
};
use crate::pressure::Pressure;

/// Bytes that the disk takes in a second, before any was measured.
const RATE_FIRST: u64 = 8 << 20;
/// The least rate that is reckoned with, so that a disk that stands still asks for no eternity.
const RATE_MIN: u64 = 256 << 10;
/// How long one measure of the rate takes.
const RATE_PERIOD_MS: u64 = 1_000;

/// The budget, and who stands in line for it. One for a whole server.
///
/// After each call drain [`Self::poll_raise`].
#[derive(Debug)]
pub struct FairShare {
    bytes_max: u64,
    pressure: Pressure,
    in_flight: u64,
    /// Held for turns that are not used yet.
    held: u64,
    flows: BTreeMap<SensorId, Flow>,
    line: VecDeque<SensorId>,
    /// When the turns lapse.
    lapses: BTreeSet<(u64, SensorId)>,
    raises: VecDeque<Raise>,
    rate: Rate,
    lapsed: u64,
}

/// A sensor's credit is to reach so many bytes beyond what was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raise {
    /// Whose.
    pub sensor: SensorId,
    /// Of which session.
    pub epoch: u64,
    /// How far, in bytes.
    pub bytes: u64,
}

/// What is known of one sensor.
#[derive(Debug, Default)]
struct Flow {
    /// Its open session.
    epoch: Option<u64>,
    in_flight: u64,
    turn: u64,
    lapse_ms: u64,
    /// When a refused sensor comes back.
    back_ms: u64,
    /// It is in the line.
    waits: bool,
    /// It let a turn lapse since it last asked.
    is_idle: bool,
    /// Since when it uses nothing of its turns; none since it did.
    unused_ms: Option<u64>,
    /// How much its turns may be together: it grows with what it sends while they run low.
    reach: u64,
}

impl FairShare {
    /// A budget of `bytes_max` bytes on their way to the disk; at least [`SHARE_BYTES_MIN`].
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: bytes_max.max(SHARE_BYTES_MIN),
            pressure: Pressure::None,
            in_flight: 0,
            held: 0,
            flows: BTreeMap::new(),
            line: VecDeque::new(),
            lapses: BTreeSet::new(),
            raises: VecDeque::new(),
            rate: Rate::default(),
            lapsed: 0,
        }
    }

    /// Bytes that are on their way to the disk, each chunk with at least [`CHUNK_COST_MIN`].
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Sensors that stand in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Turns that nobody used since this was last asked.
    pub fn take_lapsed(&mut self) -> u64 {
        std::mem::take(&mut self.lapsed)
    }

    /// Bytes of credit for a sensor that says Hello now.
    #[must_use]
    pub fn first_window(&self) -> u64 {
        let most = match self.pressure {
            Pressure::None if self.is_calm() => WINDOW_BYTES_FIRST,
            Pressure::None | Pressure::High | Pressure::Full => CHUNK_BYTES_MAX as u64,
        };
        most.min(self.window()).max(CHUNK_BYTES_MAX as u64)
    }

    /// Credit below which a sensor should [`Self::ask`] for more, in bytes.
    #[must_use]
    pub fn low_water(&self) -> u64 {
        (self.window() / 2).max(CHUNK_BYTES_MAX as u64)
    }

    /// A session of `sensor` was greeted: its credit begins anew, and so does its place in line.
    pub fn join(&mut self, sensor: SensorId, epoch: u64) {
        self.give_back(sensor);
        let flow = self.flows.entry(sensor).or_default();
        (flow.epoch, flow.back_ms) = (Some(epoch), 0);
        (flow.is_idle, flow.reach) = (true, ABSENT_BYTES_MAX);
    }

    /// A session ended; what it put on its way stays there.
    pub fn leave(&mut self, now_ms: u64, sensor: SensorId, epoch: u64) {
        let Some(flow) = self.flows.get_mut(&sensor) else { return };
        if flow.epoch != Some(epoch) {
            return;
        }
        flow.epoch = None;
        self.give_back(sensor);
        self.forget(sensor);
        self.deal(now_ms);
    }

    /// Takes a chunk of the bulk lane; it counts until [`Self::stored`] says so.
    ///
    /// # Errors
    /// There is no room for it now: in how many milliseconds there should be. The sensor stands
    /// in line from here on.
    pub fn admit(&mut self, now_ms: u64, sensor: SensorId, bytes: usize) -> Result<(), u32> {
        let cost = cost(bytes);
        if self.free() < cost {
            self.reclaim(now_ms);
        }
        let is_full = self.pressure == Pressure::Full;
        let has_turn = self.flows.entry(sensor).or_default().turn >= cost;
        if !is_full && !has_turn && !self.line.is_empty() {
            // Perhaps there is room for all who stand before it.
            self.stand_in_line(sensor);
            self.deal(now_ms);
        }
        let (free, is_first, window) = (self.free(), self.line.is_empty(), self.window());
        let flow = self.flows.entry(sensor).or_default();
        // A turn that was dealt before the disk was full is no room on it.
        if is_full || flow.turn < cost && !(is_first && free + flow.turn >= cost) {
            return Err(self.refuse(now_ms, sensor));
        }
        let rest = flow.turn.saturating_sub(cost);
        self.held -= flow.turn - rest;
        flow.turn = rest;
        flow.unused_ms = None;
        if rest < TURN_BYTES {
            flow.reach = (flow.reach + cost).min(window);
        }
        flow.in_flight += cost;
        self.rate.begin(now_ms, self.in_flight);
        self.in_flight += cost;
        if !self.is_calm() {
            // It has more to send, most likely: whoever is served keeps a place in the line.
            self.stand_in_line(sensor);
        }
        Ok(())
    }

    /// A chunk that was admitted is durable, or will never be.
    pub fn stored(&mut self, now_ms: u64, sensor: SensorId, bytes: usize) {
        let cost = cost(bytes);
        if let Some(flow) = self.flows.get_mut(&sensor) {
            let cost = cost.min(flow.in_flight);
            flow.in_flight -= cost;
            self.in_flight -= cost;
            self.forget(sensor);
        }
        self.rate.add(now_ms, cost, self.in_flight);
        self.deal(now_ms);
    }

    /// A sensor has `left` bytes of credit. Where that is little, it gets more: at once while it
    /// is calm, else in its turn.
    pub fn ask(&mut self, now_ms: u64, sensor: SensorId, left: u64) {
        if left >= self.low_water() {
            return;
        }
        let is_calm = self.is_calm() && self.pressure != Pressure::Full;
        let window = self.window();
        let Some(flow) = self.flows.get_mut(&sensor) else { return };
        let Some(epoch) = flow.epoch else { return };
        if is_calm {
            let bytes = window.saturating_sub(flow.in_flight).max(CHUNK_BYTES_MAX as u64);
            if bytes > left {
                self.raises.push_back(Raise { sensor, epoch, bytes });
            }
        } else {
            self.stand_in_line(sensor);
            self.deal(now_ms);
        }
    }

    /// How full the disk is.
    pub fn set_pressure(&mut self, now_ms: u64, pressure: Pressure) {
        self.pressure = pressure;
        self.deal(now_ms);
    }

    /// Lets time pass: turns that nobody used go to others. Call it a few times a second.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.deal(now_ms);
    }

    /// Whose credit to raise.
    pub fn poll_raise(&mut self) -> Option<Raise> {
        self.raises.pop_front()
    }

    /// Whether credit costs nothing: nobody waits and half of the budget is free.
    fn is_calm(&self) -> bool {
        self.line.is_empty() && self.in_flight + self.held <= self.bytes_max / 2
    }

    fn free(&self) -> u64 {
        self.bytes_max - self.in_flight - self.held
    }

    /// Bytes that one sensor may have on their way and in turns.
    fn window(&self) -> u64 {
        let most = match self.pressure {
            Pressure::None => WINDOW_BYTES_BULK,
            Pressure::High => WINDOW_BYTES_HIGH,
            Pressure::Full => 0,
        };
        most.min(self.bytes_max / 4)
    }

    fn refuse(&mut self, now_ms: u64, sensor: SensorId) -> u32 {
        let retry_ms = match self.pressure {
            Pressure::Full => TURN_RETRY_MS_MAX,
            Pressure::None | Pressure::High => {
                let ahead = (self.line.len() as u64 + 1) * TURN_BYTES;
                (TURN_RETRY_MS_MIN + ahead * 1_000 / self.rate.per_s()).min(TURN_RETRY_MS_MAX)
            }
        };
        self.stand_in_line(sensor);
        if let Some(flow) = self.flows.get_mut(&sensor) {
            flow.back_ms = now_ms + retry_ms;
        }
        self.deal(now_ms);
        u32::try_from(retry_ms).unwrap_or(u32::MAX)
    }

    fn stand_in_line(&mut self, sensor: SensorId) {
        let Some(flow) = self.flows.get_mut(&sensor) else { return };
        (flow.is_idle, flow.unused_ms) = (false, None);
        if !std::mem::replace(&mut flow.waits, true) {
            self.line.push_back(sensor);
        }
    }

    /// Deals what is free, a turn to each in line, round and round.
    fn deal(&mut self, now_ms: u64) {
        let window = self.window();
        while self.pressure != Pressure::Full
            && let Some(sensor) = self.line.front().copied()
        {
            let Some(flow) = self.flows.get(&sensor) else {
                self.line.pop_front();
                continue;
            };
            let is_silent = flow.unused_ms.is_some_and(|at_ms| at_ms + TURN_DOUBT_MS <= now_ms);
            let reach = if now_ms < flow.back_ms { ABSENT_BYTES_MAX } else { flow.reach };
            let room = window.saturating_sub(flow.in_flight + flow.turn);
            let room = room.min(reach.saturating_sub(flow.turn));
            let Some(epoch) = flow.epoch.filter(|_| !flow.is_idle && !is_silent && room > 0) else {
                self.step_aside();
                continue;
            };
            let bytes = room.min(TURN_BYTES);
            if self.free() < bytes {
                self.reclaim(now_ms);
            }
            if self.free() < bytes {
                return;
            }
            self.line.rotate_left(1);
            self.take_turn(now_ms, (sensor, epoch), bytes);
        }
    }

    fn take_turn(&mut self, now_ms: u64, (sensor, epoch): (SensorId, u64), bytes: u64) {
        let Some(flow) = self.flows.get_mut(&sensor) else { return };
        self.held += bytes;
        flow.turn += bytes;
        self.lapses.remove(&(flow.lapse_ms, sensor));
        let from_ms = flow.back_ms.max(now_ms);
        flow.unused_ms.get_or_insert(from_ms);
        flow.lapse_ms = from_ms + TURN_LAPSE_MS;
        self.lapses.insert((flow.lapse_ms, sensor));
        self.raises.push_back(Raise { sensor, epoch, bytes: flow.turn });
    }

    /// The first in line leaves it.
    fn step_aside(&mut self) {
        if let Some(sensor) = self.line.pop_front()
            && let Some(flow) = self.flows.get_mut(&sensor)
        {
            flow.waits = false;
            self.forget(sensor);
        }
    }

    /// Takes back the turns whose time is over.
    fn reclaim(&mut self, now_ms: u64) {
        while let Some((lapse_ms, sensor)) = self.lapses.first().copied()
            && lapse_ms <= now_ms
        {
            self.lapses.pop_first();
            if let Some(flow) = self.flows.get_mut(&sensor) {
                // Whoever used some of it has a rest that was too little for its next chunk.
                let is_unused = flow.unused_ms.is_some();
                flow.is_idle |= is_unused;
                if is_unused {
                    flow.reach = ABSENT_BYTES_MAX;
                }
                self.lapsed += u64::from(is_unused);
                self.held -= std::mem::take(&mut flow.turn);
            }
        }
    }

    /// A sensor's turn is nobody's.
    fn give_back(&mut self, sensor: SensorId) {
        if let Some(flow) = self.flows.get_mut(&sensor) {
            self.held -= std::mem::take(&mut flow.turn);
            self.lapses.remove(&(flow.lapse_ms, sensor));
        }
    }

    /// Forgets a sensor of which nothing is left.
    fn forget(&mut self, sensor: SensorId) {
        let is_over = |flow: &Flow| flow.epoch.is_none() && flow.in_flight == 0 && !flow.waits;
        if self.flows.get(&sensor).is_some_and(is_over) {
            self.flows.remove(&sensor);
        }
    }
}

/// What a chunk counts.
fn cost(bytes: usize) -> u64 {
    (bytes as u64).max(CHUNK_COST_MIN)
}

/// How fast the disk is, while something is on its way there: sensors that say little do not make
/// it slow.
#[derive(Debug, Default)]
struct Rate {
    /// Since when something is on its way.
    busy_from_ms: u64,
    busy_ms: u64,
    bytes: u64,
    last: Option<u64>,
}

impl Rate {
    /// Something is on its way now; before it were `in_flight` bytes.
    fn begin(&mut self, now_ms: u64, in_flight: u64) {
        if in_flight == 0 {
            self.busy_from_ms = now_ms;
        }
    }

    /// `bytes` are durable, and `in_flight` on their way still.
    fn add(&mut self, now_ms: u64, bytes: u64, in_flight: u64) {
        self.bytes += bytes;
        let busy_ms = self.busy_ms + now_ms.saturating_sub(self.busy_from_ms);
        if in_flight == 0 {
            (self.busy_ms, self.busy_from_ms) = (busy_ms, now_ms);
        }
        if busy_ms >= RATE_PERIOD_MS {
            self.last = Some(self.bytes * 1_000 / busy_ms);
            (self.busy_from_ms, self.busy_ms, self.bytes) = (now_ms, 0, 0);
        }
    }

    fn per_s(&self) -> u64 {
        self.last.unwrap_or(RATE_FIRST).max(RATE_MIN)
    }
}
