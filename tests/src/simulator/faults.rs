//! What goes wrong in a world, when it does, and how it is mended again.

use lapwing_protocol::hello::Memory as Kept;
use lapwing_protocol::id::Lane;
use lapwing_protocol::registration::ServerSetting;

use lapwing_server_core::delivery::EntryKind;

use super::MS;
use super::coverage::Reached;
use super::network::Packet;
use super::sensor::{Excuse, SensorMachine};
use super::server::{AckFate, ServerMachine};
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

/// Memory for this many lives is kept for the second phase.
const LIVES_RESERVE: usize = 16;

/// Times that branches are brought together in one world: a pair of clones could be all the time.
const BROUGHT_TOGETHER_MAX: u64 = 4;

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

    // --- Sensors.

    pub(super) fn may_die(&self, place: usize) -> bool {
        self.places[place].sensor.is_alive() && self.pool.len() > LIVES_RESERVE
    }

    pub(super) fn end_sensor(&mut self, place: usize, how: Reached) {
        if !self.may_die(place) {
            return;
        }
        self.coverage.count(how);
        match how {
            Reached::SensorKilled => self.places[place].sensor.kill(),
            Reached::SensorPowerCut => {
                let crash = self.places[place].sensor.cut_power(self.now_ns, &mut self.chance);
                if crash.has_lost {
                    self.coverage.count(Reached::SensorUnsyncedLost);
                }
                if crash.is_torn {
                    self.coverage.count(Reached::SensorTorn);
                }
            }
            _ => return self.stop_sensor(place),
        }
        self.bury(place);
    }

    /// Stops a sensor in good order; it comes back.
    pub(super) fn stop_sensor(&mut self, place: usize) {
        self.places[place].sensor.stop(self.now_ns, &mut self.chance);
        self.grant(place);
        self.hang_up_sensor(place);
        self.places[place].sensor.link = None;
        self.come_back(place);
    }

    /// What is left of the connections of a process that is gone: some servers hear of it, some
    /// do not.
    fn bury(&mut self, place: usize) {
        self.places[place].sensor.link = None;
        let is_told = !self.chance.once_in(3);
        let mut vanished = 0;
        for link in self.links.values_mut().filter(|it| it.machine == place && it.has_sensor) {
            link.has_sensor = false;
            match is_told {
                true => link.up.send(self.now_ns, MS, Packet::Close),
                false => vanished += 1,
            }
        }
        (0..vanished).for_each(|_| self.coverage.count(Reached::PeerVanished));
        self.come_back(place);
    }

    fn come_back(&mut self, place: usize) {
        let pause_ms = match self.places[place].storm {
            0 => self.chance.between(1, 3_000),
            _ => self.chance.between(1, 50),
        };
        self.places[place].start_ns = Some(self.now_ns + pause_ms * MS);
    }

    /// Ten short lives, one behind the other; the next fault ends each.
    fn storm_of_kills(&mut self, place: usize) {
        if !self.may_die(place) || self.pool.len() < LIVES_RESERVE + 12 {
            return;
        }
        self.coverage.count(Reached::KillStorm);
        for _ in 0..10 {
            self.places[place].sensor.kill();
            self.places[place].storm = 1;
            self.bury(place);
            let Some(lent) = self.pool.pop() else { return };
            self.places[place].start_ns = None;
            self.places[place].sensor.start(self.now_ns, lent, &mut self.chance);
            let fact = self.places[place].source.stir(&mut self.chance);
            self.places[place].sensor.observe(self.now_ns, &fact, &mut self.chance);
            self.grant(place);
        }
        self.places[place].storm = 0;
    }

    fn refuse_syncs(&mut self, place: usize) {
        self.coverage.count(Reached::SensorFsyncFailed);
        self.places[place].sensor.disk.refuses_syncs = true;
        let for_ms = self.chance.between(100, 8_000);
        self.later(for_ms, Relief::SensorSyncs(place));
    }

    fn refuse_writes(&mut self, place: usize) {
        self.coverage.count(Reached::SensorDiskFull);
        self.places[place].sensor.disk.refuses_writes = true;
        let for_ms = self.chance.between(100, 5_000);
        self.later(for_ms, Relief::SensorWrites(place));
    }

    fn damage(&mut self, place: usize) {
        if self.places[place].sensor.disk.damage_something(&mut self.chance) {
            self.coverage.count(Reached::SpoolDamaged);
        }
    }

    fn jump_clock(&mut self, place: usize, server: usize) {
        let jump_ms = self.chance.between(0, 400_000_000_000) as i64 - 200_000_000_000;
        if self.chance.once_in(2) {
            self.coverage.count(Reached::SensorClockJumped);
            self.places[place].sensor.skew_ms = jump_ms;
        } else {
            self.coverage.count(Reached::ServerClockJumped);
            self.servers[server].skew_ms = jump_ms;
        }
        self.coverage.count(Reached::Hel035);
    }

    /// Takes an image of a disk: of one that runs, or of one that was stopped for it.
    fn image(&mut self, place: usize) {
        if self.places[place].sensor.kept == Kept::RamOnly || !self.may_die(place) {
            return;
        }
        if !self.chance.once_in(3) {
            self.stop_sensor(place);
        }
        let mut disk = self.places[place].sensor.disk.clone();
        (disk.refuses_writes, disk.refuses_syncs) = (false, false);
        self.images.push((place, disk));
    }

    /// Puts a disk back to an image of a moment ago.
    fn roll_back_soon(&mut self, place: usize) {
        self.image(place);
        let after_ms = self.chance.between(2_000, 6_000);
        self.later(after_ms, Relief::RollBack(place));
    }

    /// Puts a disk back to its newest image, or to its oldest.
    fn roll_back(&mut self, place: usize) {
        let is_newest = self.chance.once_in(2);
        let mut images = self.images.iter().filter(|(of, _)| *of == place);
        let image = if is_newest { images.next_back() } else { images.next() };
        let Some((_, disk)) = image.filter(|_| self.may_die(place)) else { return };
        self.coverage.count(Reached::DiskRolledBack);
        let disk = disk.clone();
        self.places[place].sensor.roll_back(disk);
        self.bury(place);
    }

    /// Puts a disk back to an image of a moment ago, while its server is away: the branch goes on
    /// at another server.
    fn roll_back_to_newest(&mut self, place: usize) {
        let server = self.places[place].sensor.life().and_then(|life| life.server());
        let at = self.servers.iter().position(|known| Some(known.server) == server);
        let Some(at) = at.filter(|_| self.may_die(place)) else { return };
        let image = self.images.iter().rev().find(|(of, _)| *of == place);
        let Some((_, disk)) = image else { return };
        self.coverage.count(Reached::DiskRolledBack);
        let disk = disk.clone();
        self.places[place].sensor.roll_back(disk);
        self.bury(place);
        self.kill_server_for_long(at);
    }

    /// A sensor of two branches that stands, with its server, as far as another server does with
    /// the other branch: now its server goes away, and the sensor may come to that one (HEL-024).
    pub(super) fn bring_branches_together(&mut self) {
        if self.brought_together >= BROUGHT_TOGETHER_MAX {
            return;
        }
        for number in 0..self.places.len() {
            let place = &self.places[number];
            let is_branch = place.is_cloned || place.sensor.truth.rollbacks > 0;
            let Some(life) = place.sensor.life().filter(|_| is_branch) else { continue };
            let (Some(server), at) = (life.server(), life.positions(Lane::Bulk)) else { continue };
            let key = (place.sensor.sensor, Lane::Bulk, at.log);
            let is_other = |other: &ServerMachine| {
                let chain = other.chain_at_end(key, at.acked.seq);
                other.server != server && chain.is_some_and(|chain| chain != at.acked.chain)
            };
            let Some(other) = self.servers.iter().position(is_other) else { continue };
            let at = self.servers.iter().position(|known| known.server == server);
            if let (Some(at), Some(link)) = (at, self.places[number].sensor.link) {
                self.faults += 1;
                self.brought_together += 1;
                // Nothing more of it arrives: the sensor stays where it is.
                self.servers[at].hang_up(link);
                self.end_sensor_side(link);
                self.links.remove(&link);
                self.kill_server_for_long(at);
                if !self.servers[other].is_up {
                    self.server_up_ns[other] = Some(self.now_ns + MS);
                }
                return;
            }
        }
    }

    /// Starts a second machine from an image of the first: one identity, two sensors.
    fn clone_machine(&mut self, place: usize) {
        let has_clone = self.places.iter().any(|place| place.is_cloned);
        let image = self.images.iter().rev().find(|(of, _)| *of == place);
        let Some((_, disk)) = image.filter(|_| !has_clone && self.may_die(place)) else { return };
        self.coverage.count(Reached::ImageCloned);
        let number = self.places.len();
        let sensor = self.places[place].sensor.sensor;
        let twin = SensorMachine::new(number, sensor, Kept::Disk, disk.clone());
        self.settle(twin, true);
    }

    // --- Servers.

    /// Kills a server; its sensors see their connections end, if they see anything.
    fn kill_server(&mut self, server: usize, how: Reached) {
        if !self.servers[server].is_up {
            return;
        }
        self.coverage.count(how);
        self.servers[server].kill(&mut self.chance, &mut self.coverage);
        let is_told = !self.chance.once_in(4);
        let delay_ns = self.chance.between(1, 40) * MS;
        for link in self.links.values_mut().filter(|it| it.server == server && it.has_server) {
            link.has_server = false;
            match is_told {
                true => link.down.send(self.now_ns, delay_ns, Packet::Close),
                false => link.is_silent = true,
            }
        }
        self.server_up_ns[server] = Some(self.now_ns + self.chance.between(1, 4_000) * MS);
    }

    /// A server that is away for long enough that its sensors move.
    fn kill_server_for_long(&mut self, server: usize) {
        self.kill_server(server, Reached::ServerKilled);
        let away_ms = self.chance.between(15_000, 40_000);
        if let Some(up_ns) = &mut self.server_up_ns[server] {
            *up_ns += away_ms * MS;
        }
    }

    /// The journal's flush fails: nothing more is acknowledged, the process ends and comes back.
    fn fail_journal(&mut self, server: usize, how: Reached) {
        if self.servers[server].is_up && !self.servers[server].is_quiet() {
            self.coverage.count(how);
            self.servers[server].has_failed = true;
            let replies = self.servers[server].handle_time(self.now_ns + MS, &mut self.coverage);
            self.reply(server, replies);
            let for_ms = self.chance.between(50, 1_500);
            self.later(for_ms, Relief::KillWithAcks(server));
        }
    }

    /// Puts a server back to its last backup, or to nothing.
    fn restore(&mut self, server: usize) {
        if !self.servers[server].is_up {
            return;
        }
        let backup = self.servers[server].backup.clone();
        if backup.is_none() && !self.chance.once_in(4) {
            return;
        }
        self.coverage.count(match backup {
            Some(_) => Reached::ServerRestored,
            None => Reached::ServerLost,
        });
        self.kill_server(server, Reached::ServerKilled);
        let gone = self.servers[server].restore(backup.unwrap_or_default());
        for stored in &gone {
            self.excuse_restored(stored);
        }
        // A backup brings old commands back, and who has no memory cannot tell them (CMD-004).
        for place in self.places.iter_mut().filter(|it| it.sensor.kept == Kept::RamOnly) {
            place.sensor.truth.incarnation += 1;
        }
        self.gone.extend(gone);
    }

    /// What a sensor was or will be told to be stored, and a restore took away, is nobody's to
    /// keep: an Ack may still be on its way.
    fn excuse_restored(&mut self, stored: &super::server::Stored) {
        let entry = &stored.entry;
        let indices = match entry.kind {
            EntryKind::Chunk { first_index, count, .. } => first_index..first_index + count,
            EntryKind::Jump { first_index, to_index, .. } => {
                first_index..to_index.map_or(u64::MAX, |index| index + 1)
            }
        };
        for place in &mut self.places {
            let sensor = &mut place.sensor;
            if sensor.sensor != stored.sensor {
                continue;
            }
            for placed in sensor.truth.placed.values_mut() {
                let is_it = placed.log == entry.log && indices.contains(&placed.index);
                // The Jump that told of a power cut may have gone, and nobody has to say it again.
                let is_due = matches!(placed.excuse, None | Some(Excuse::PowerCut));
                if is_it && is_due {
                    placed.excuse = Some(Excuse::ServerRestored);
                }
            }
        }
    }

    fn drain_server(&mut self, server: usize) {
        if !self.servers[server].is_up || self.servers[server].is_draining {
            return;
        }
        self.coverage.count(Reached::ServerDrained);
        self.registration.set(&format!("d{server}"), ServerSetting::Drain);
        let replies = self.servers[server].drain_sensors();
        self.reply(server, replies);
        let for_ms = self.chance.between(2_000, 20_000);
        self.later(for_ms, Relief::Undrain(server));
    }

    fn fill_server(&mut self, server: usize) {
        self.servers[server].capacity = 1;
        let for_ms = self.chance.between(3_000, 20_000);
        self.later(for_ms, Relief::Capacity(server));
    }

    fn hold_acks(&mut self, server: usize) {
        if self.servers[server].is_up && !self.servers[server].holds_acks {
            self.servers[server].holds_acks = true;
            let for_ms = self.chance.between(200, 4_000);
            self.later(for_ms, Relief::KillWithAcks(server));
        }
    }

    fn throttle(&mut self, server: usize) {
        self.coverage.count(Reached::Throttled);
        let retry_after_ms = self.chance.between(10, 900) as u32;
        self.servers[server].overload(Some(retry_after_ms));
        let for_ms = self.chance.between(20, 1_500);
        self.later(for_ms, Relief::Overload(server));
    }

    fn storm_of_throttles(&mut self, server: usize) {
        self.coverage.count(Reached::ThrottleStorm);
        self.later(1, Relief::Storm(server, 20));
    }

    fn hold_credit(&mut self, server: usize) {
        self.coverage.count(Reached::CreditHeld);
        self.servers[server].hold_credit(true);
        let for_ms = self.chance.between(100, 3_000);
        self.later(for_ms, Relief::Credit(server));
    }

    fn kill_registration(&mut self) {
        if !self.registration.is_up {
            return;
        }
        let is_long = self.chance.once_in(3);
        self.coverage.count(Reached::RegistrationKilled);
        if is_long {
            self.coverage.count(Reached::RegistrationSilent);
        }
        self.registration.kill();
        let away_ms = self.chance.between(10, if is_long { 30_000 } else { 3_000 });
        self.registration_up_ns = Some(self.now_ns + away_ms * MS);
    }
}
