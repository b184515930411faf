//! What goes wrong in a world, when it does, and how it is mended again.

mod sensors;
mod servers;

use lapwing_protocol::registration::ServerSetting;

use super::MS;
use super::coverage::Reached;
use super::network::Packet;
use super::server::AckFate;
use super::skew::{self, Skew};
use super::world::World;

/// The end of a fault that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relief {
    SensorWrites(usize),
    SensorSyncs(usize),
    Overload(usize),
    /// The storm's next turn; so many are left.
    Storm(usize, u32),
    Credit(usize),
    Capacity(usize),
    Undrain(usize),
    /// Acks were held: now the server is killed.
    KillWithAcks(usize),
    /// An image was taken: now the disk is put back to it, while the server is away.
    RollBack(usize),
}

impl World<'_> {
    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        self.faults += 1;
        let place = self.chance.below(self.places.len() as u64) as usize;
        let server = self.chance.below(self.servers.len() as u64) as usize;
        let fault = self.chance.below(100);
        let about = (fault, place, server);
        super::timeline::tell(self.now_ns, || format!("fault, machine, server: {about:?}"));
        match fault {
            0..=7 => self.cut(Reached::CutUp),
            8..=14 => self.cut(Reached::CutDown),
            15..=19 => self.hold_up(),
            20..=23 => self.silence(),
            24..=27 => self.servers[server].ack_fate = Some(AckFate::Lost),
            28..=30 => self.servers[server].ack_fate = Some(AckFate::Repeated),
            31..=36 => self.end_sensor(place, Reached::SensorKilled),
            37..=42 => self.end_sensor(place, Reached::SensorPowerCut),
            43..=46 => self.end_sensor(place, Reached::SensorStopped),
            47..=48 => self.storm_of_kills(place),
            49..=50 => self.refuse_syncs(place),
            51..=53 => self.refuse_writes(place),
            54..=55 => self.damage(place),
            56..=57 => self.jump_clock(place, server),
            58..=60 => self.image(place),
            61 => self.roll_back(place),
            62 => self.roll_back_soon(place),
            63 => self.clone_machine(place),
            64..=70 => self.kill_server(server, Reached::ServerKilled),
            71..=72 => self.fail_journal(server, Reached::ServerFsyncFailed),
            73..=74 => self.fail_journal(server, Reached::ServerDiskFull),
            75..=76 => self.servers[server].back_up(),
            77..=78 => self.restore(server),
            79..=80 => self.drain_server(server),
            81 => self.fill_server(server),
            82..=84 => self.hold_acks(server),
            85..=87 => self.throttle(server),
            88..=89 => self.storm_of_throttles(server),
            90..=91 => self.hold_credit(server),
            92..=93 => self.kill_registration(),
            94..=97 => self.skew(),
            _ => self.kill_server_for_long(server),
        }
    }

    /// Nothing goes wrong any more, and what did is mended.
    pub(super) fn calm(&mut self) {
        self.is_quiet = true;
        for (_, relief) in std::mem::take(&mut self.reliefs) {
            self.end_fault(relief);
        }
        for link in self.links.values_mut() {
            link.is_silent = false;
        }
        for server in &mut self.servers {
            server.ack_fate = None;
        }
        for place in &mut self.places {
            place.storm = 0;
        }
    }

    pub(super) fn relieve(&mut self) {
        let now_ns = self.now_ns;
        let (due, rest) =
            std::mem::take(&mut self.reliefs).into_iter().partition(|(at_ns, _)| *at_ns <= now_ns);
        self.reliefs = rest;
        let due: Vec<(u64, Relief)> = due;
        for (_, relief) in due {
            self.end_fault(relief);
        }
    }

    fn end_fault(&mut self, relief: Relief) {
        match relief {
            Relief::SensorWrites(place) => self.places[place].sensor.disk.refuses_writes = false,
            Relief::SensorSyncs(place) => self.places[place].sensor.disk.refuses_syncs = false,
            Relief::Overload(server) => self.servers[server].overload(None),
            Relief::Storm(server, left) => {
                let is_refused = left % 2 == 1 && !self.is_quiet;
                self.servers[server].overload(is_refused.then_some(5));
                if left > 0 && !self.is_quiet {
                    self.later(60, Relief::Storm(server, left - 1));
                }
            }
            Relief::Credit(server) => self.servers[server].hold_credit(false),
            Relief::Capacity(server) => self.servers[server].capacity = usize::MAX,
            Relief::Undrain(server) => {
                let name = format!("d{server}");
                self.registration.set(&name, ServerSetting::Undrain);
                self.servers[server].is_draining = false;
            }
            Relief::RollBack(place) if !self.is_quiet => self.roll_back_to_newest(place),
            Relief::RollBack(_) => {}
            Relief::KillWithAcks(server) => self.kill_server(server, Reached::AcksHeld),
        }
    }

    fn later(&mut self, after_ms: u64, relief: Relief) {
        self.reliefs.push((self.now_ns + after_ms * MS, relief));
    }

    // --- Connections.

    /// A connection of chance's choosing, of those with both ends.
    fn some_link(&mut self) -> Option<u64> {
        let whole = self.links.iter().filter(|(_, link)| link.has_sensor && link.has_server);
        let whole: Vec<u64> = whole.map(|(id, _)| *id).collect();
        let at = self.chance.below(whole.len() as u64) as usize;
        whole.get(at).copied()
    }

    /// Cuts a connection at any byte of what is on its way in one direction.
    fn cut(&mut self, how: Reached) {
        let Some(id) = self.some_link() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        let pipe = if how == Reached::CutUp { &mut link.up } else { &mut link.down };
        if pipe.in_flight() == 0 {
            return;
        }
        self.coverage.count(how);
        let at = self.chance.below(pipe.in_flight() as u64 + 1) as usize;
        let part = pipe.cut(at);
        let (machine, server) = (link.machine, link.server);
        if how == Reached::CutUp {
            self.hand_to_server(id, &part);
        } else {
            self.places[machine].sensor.handle_input(self.now_ns, &part, &mut self.chance);
            self.grant(machine);
        }
        self.servers[server].hang_up(id);
        self.end_sensor_side(id);
        self.links.remove(&id);
    }

    fn hold_up(&mut self) {
        let Some(id) = self.some_link() else { return };
        let delay_ns = self.chance.between(1_000, 15_000) * MS;
        if let Some(link) = self.links.get_mut(&id) {
            let pipe = if self.chance.once_in(2) { &mut link.up } else { &mut link.down };
            if pipe.in_flight() > 0 {
                pipe.delay(delay_ns);
                self.coverage.count(Reached::Delayed);
            }
        }
    }

    fn silence(&mut self) {
        let Some(id) = self.some_link() else { return };
        if let Some(link) = self.links.get_mut(&id) {
            link.is_silent = true;
            self.coverage.count(Reached::HalfOpen);
        }
    }

    /// A frame, or a whole sensor, of another version.
    fn skew(&mut self) {
        let Some(id) = self.some_link() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        let delay_ns = MS;
        match self.chance.below(6) {
            0..=1 => {
                self.coverage.count(Reached::SkewSkippable);
                let frame = skew::unknown_frame(true);
                link.up.send(self.now_ns, delay_ns, Packet::Bytes(frame.clone()));
                link.down.send(self.now_ns, delay_ns, Packet::Bytes(frame));
            }
            2 => {
                let frame = skew::unknown_frame(false);
                link.up.send(self.now_ns, delay_ns, Packet::Bytes(frame));
            }
            3 => link.skew = Some(Skew::TooNew),
            _ => {
                self.coverage.count(Reached::SkewVersions);
                link.skew = Some(Skew::Newer);
            }
        }
    }
}
