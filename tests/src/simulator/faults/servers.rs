//! What goes wrong with Detection servers and with Registration.

use lapwing_protocol::hello::Memory as Kept;
use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::ServerSetting;
use lapwing_server_core::delivery::EntryKind;

use super::Relief;
use crate::simulator::MS;
use crate::simulator::coverage::Reached;
use crate::simulator::network::Packet;
use crate::simulator::sensor::Excuse;
use crate::simulator::server::Stored;
use crate::simulator::world::World;

impl World<'_> {
    /// Kills a server; its sensors see their connections end, if they see anything.
    pub(super) fn kill_server(&mut self, server: usize, how: Reached) {
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
    pub(super) fn kill_server_for_long(&mut self, server: usize) {
        self.kill_server(server, Reached::ServerKilled);
        let away_ms = self.chance.between(15_000, 40_000);
        if let Some(up_ns) = &mut self.server_up_ns[server] {
            *up_ns += away_ms * MS;
        }
    }

    /// The journal's flush fails: nothing more is acknowledged, the process ends and comes back.
    pub(super) fn fail_journal(&mut self, server: usize, how: Reached) {
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
    pub(super) fn restore(&mut self, server: usize) {
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
            self.excuse_restored(self.servers[server].server, stored);
        }
        // A backup brings old commands back, and who has no memory cannot tell them (CMD-004).
        for place in self.places.iter_mut().filter(|it| it.sensor.kept == Kept::RamOnly) {
            place.sensor.truth.incarnation += 1;
        }
        self.gone.extend(gone);
    }

    /// What a sensor was or will be told to be stored, and a restore took away, is known to be gone
    /// by its next Hello to this server with the same log (HEL-027 to HEL-029), and never where
    /// none comes.
    fn excuse_restored(&mut self, server: ServerId, stored: &Stored) {
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
                placed.excuse = match placed.excuse {
                    excuse if !is_it => excuse,
                    None | Some(Excuse::PowerCut) => Some(Excuse::ServerRestored(Some(server))),
                    Some(Excuse::ServerRestored(of)) => {
                        Some(Excuse::ServerRestored(of.filter(|of| *of == server)))
                    }
                    excuse => excuse,
                };
            }
        }
    }

    pub(super) fn drain_server(&mut self, server: usize) {
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

    pub(super) fn fill_server(&mut self, server: usize) {
        self.servers[server].capacity = 1;
        let for_ms = self.chance.between(3_000, 20_000);
        self.later(for_ms, Relief::Capacity(server));
    }

    pub(super) fn hold_acks(&mut self, server: usize) {
        if self.servers[server].is_up && !self.servers[server].holds_acks {
            self.servers[server].holds_acks = true;
            let for_ms = self.chance.between(200, 4_000);
            self.later(for_ms, Relief::KillWithAcks(server));
        }
    }

    pub(super) fn throttle(&mut self, server: usize) {
        self.coverage.count(Reached::Throttled);
        let retry_after_ms = self.chance.between(10, 900) as u32;
        self.servers[server].overload(Some(retry_after_ms));
        let for_ms = self.chance.between(20, 1_500);
        self.later(for_ms, Relief::Overload(server));
    }

    pub(super) fn storm_of_throttles(&mut self, server: usize) {
        self.coverage.count(Reached::ThrottleStorm);
        self.later(1, Relief::Storm(server, 20));
    }

    pub(super) fn hold_credit(&mut self, server: usize) {
        self.coverage.count(Reached::CreditHeld);
        self.servers[server].hold_credit(true);
        let for_ms = self.chance.between(100, 3_000);
        self.later(for_ms, Relief::Credit(server));
    }

    pub(super) fn kill_registration(&mut self) {
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
