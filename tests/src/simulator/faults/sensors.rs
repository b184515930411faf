//! What goes wrong with sensors: their processes, disks, clocks, and images of them.

use lapwing_protocol::hello::Memory as Kept;
use lapwing_protocol::id::Lane;

use super::Relief;
use crate::simulator::MS;
use crate::simulator::coverage::Reached;
use crate::simulator::network::Packet;
use crate::simulator::sensor::SensorMachine;
use crate::simulator::server::ServerMachine;
use crate::simulator::world::World;

/// Memory for this many lives is kept for the second phase.
const LIVES_RESERVE: usize = 16;

/// Times that branches are brought together in one world: a pair of clones could be all the time.
const BROUGHT_TOGETHER_MAX: u64 = 4;

impl World<'_> {
    pub(in crate::simulator) fn may_die(&self, place: usize) -> bool {
        self.places[place].sensor.is_alive() && self.pool.len() > LIVES_RESERVE
    }

    pub(in crate::simulator) fn end_sensor(&mut self, place: usize, how: Reached) {
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
    pub(in crate::simulator) fn stop_sensor(&mut self, place: usize) {
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
    pub(super) fn storm_of_kills(&mut self, place: usize) {
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

    pub(super) fn refuse_syncs(&mut self, place: usize) {
        self.coverage.count(Reached::SensorFsyncFailed);
        self.places[place].sensor.disk.refuses_syncs = true;
        let for_ms = self.chance.between(100, 8_000);
        self.later(for_ms, Relief::SensorSyncs(place));
    }

    pub(super) fn refuse_writes(&mut self, place: usize) {
        self.coverage.count(Reached::SensorDiskFull);
        self.places[place].sensor.disk.refuses_writes = true;
        let for_ms = self.chance.between(100, 5_000);
        self.later(for_ms, Relief::SensorWrites(place));
    }

    pub(super) fn damage(&mut self, place: usize) {
        if self.places[place].sensor.disk.damage_something(&mut self.chance) {
            self.coverage.count(Reached::SpoolDamaged);
        }
    }

    pub(super) fn jump_clock(&mut self, place: usize, server: usize) {
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
    pub(super) fn image(&mut self, place: usize) {
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
    pub(super) fn roll_back_soon(&mut self, place: usize) {
        self.image(place);
        let after_ms = self.chance.between(2_000, 6_000);
        self.later(after_ms, Relief::RollBack(place));
    }

    /// Puts a disk back to its newest image, or to its oldest.
    pub(super) fn roll_back(&mut self, place: usize) {
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
    pub(super) fn roll_back_to_newest(&mut self, place: usize) {
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
    pub(in crate::simulator) fn bring_branches_together(&mut self) {
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
    pub(super) fn clone_machine(&mut self, place: usize) {
        let has_clone = self.places.iter().any(|place| place.is_cloned);
        let image = self.images.iter().rev().find(|(of, _)| *of == place);
        let Some((_, disk)) = image.filter(|_| !has_clone && self.may_die(place)) else { return };
        self.coverage.count(Reached::ImageCloned);
        let number = self.places.len();
        let sensor = self.places[place].sensor.sensor;
        let twin = SensorMachine::new(number, sensor, Kept::Disk, disk.clone());
        self.settle(twin, true);
    }
}
