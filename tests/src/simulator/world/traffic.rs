//! What crosses a world's network, and what its sensors want of the world.

use lapwing_protocol::registration::AssignRequest;
use sha2::Digest as _;

use super::{World, take_due};
use crate::simulator::MS;
use crate::simulator::coverage::Reached;
use crate::simulator::network::{Link, Packet};
use crate::simulator::sensor::Wish;
use crate::simulator::server::{Question, Reply};
use crate::simulator::timeline::{tell, tell_frames};

impl World<'_> {
    pub(super) fn dial(&mut self) {
        for (_, machine, life, server) in take_due(&mut self.dials, self.now_ns, |it| it.0) {
            let sensor = &mut self.places[machine].sensor;
            if sensor.lives != life || !sensor.is_alive() {
                continue;
            }
            let known = self.servers.iter().position(|known| known.server == server);
            let Some(at) = known.filter(|at| self.servers[*at].is_up) else {
                self.coverage.count(Reached::DialFailed);
                sensor.handle_dial_failed(self.now_ns, &mut self.chance);
                self.grant(machine);
                continue;
            };
            let link = self.next_link;
            self.next_link += 1;
            self.links.insert(link, Link::new(machine, at));
            sensor.link = Some(link);
            sensor.handle_connected(self.now_ns, &mut self.chance);
            let id = sensor.sensor;
            if let Err(farewell) = self.servers[at].accept(self.now_ns, (link, machine), id) {
                self.coverage.count(Reached::ServerFull);
                self.coverage.count(Reached::Hel036);
                self.reply(at, vec![farewell]);
            }
            self.grant(machine);
        }
    }

    /// Bytes arrive.
    pub(super) fn network(&mut self) {
        let due: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.next_ns().is_some_and(|at_ns| at_ns <= self.now_ns))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.arrive_up(id);
            self.arrive_down(id);
            if self.links.get(&id).is_some_and(|link| !link.has_sensor && !link.has_server) {
                self.links.remove(&id);
            }
        }
    }

    fn arrive_up(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.has_server) else { return };
        let Some(packet) = link.up.arrive(self.now_ns) else { return };
        let server = link.server;
        match packet {
            Packet::Close => {
                link.has_server = false;
                self.servers[server].hang_up(id);
            }
            Packet::Bytes(bytes) => self.hand_to_server(id, &bytes),
        }
    }

    /// Hands bytes to a server, now and then in two pieces.
    pub(in crate::simulator) fn hand_to_server(&mut self, id: u64, bytes: &[u8]) {
        let Some(server) = self.links.get(&id).map(|link| link.server) else { return };
        if let Some(machine) = self.links.get(&id).map(|link| link.machine) {
            tell_frames(self.now_ns, || format!("machine {machine} -> server {server}"), bytes);
        }
        self.trace.update([0, server as u8]);
        self.trace.update(bytes);
        let at = if self.chance.once_in(6) { self.chance.below(bytes.len() as u64) } else { 0 };
        let (front, rest) = bytes.split_at(at as usize);
        for piece in [front, rest] {
            let machine = &mut self.servers[server];
            let input = (id, piece);
            let farewell =
                machine.handle_input(self.now_ns, input, &mut self.chance, &mut self.coverage);
            self.reply(server, farewell.into_iter().collect());
        }
    }

    fn arrive_down(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.has_sensor) else { return };
        let Some(packet) = link.down.arrive(self.now_ns) else { return };
        let machine = link.machine;
        match packet {
            Packet::Close => self.end_sensor_side(id),
            Packet::Bytes(bytes) => {
                let server = link.server;
                tell_frames(
                    self.now_ns,
                    || format!("machine {machine} <- server {server}"),
                    &bytes,
                );
                self.trace.update([1, machine as u8]);
                self.trace.update(&bytes);
                let sensor = &mut self.places[machine].sensor;
                sensor.handle_input(self.now_ns, &bytes, &mut self.chance);
                self.grant(machine);
            }
        }
    }

    /// The sensor's end of a connection is closed from outside.
    pub(in crate::simulator) fn end_sensor_side(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.has_sensor = false;
        let machine = link.machine;
        tell(self.now_ns, || format!("machine {machine} is cut off"));
        let sensor = &mut self.places[machine].sensor;
        if sensor.link == Some(id) {
            sensor.handle_disconnected(self.now_ns, &mut self.chance);
            self.grant(machine);
        }
    }

    /// Does what a sensor wants of the world.
    pub(in crate::simulator) fn grant(&mut self, number: usize) {
        for note in std::mem::take(&mut self.places[number].sensor.notes) {
            self.coverage.count(note);
        }
        let life = self.places[number].sensor.lives;
        self.places[number].sensor.may_die = self.may_die(number);
        for wish in std::mem::take(&mut self.places[number].sensor.wishes) {
            match wish {
                Wish::Ask { reason, trouble_with } => {
                    let request = AssignRequest { reason, trouble_with };
                    let at_ns = self.now_ns + self.chance.between(1, 60) * MS;
                    self.questions.push((at_ns, Question { machine: number, life, request }));
                }
                Wish::Dial(server) => {
                    let at_ns = self.now_ns + self.chance.between(1, 60) * MS;
                    self.dials.push((at_ns, number, life, server));
                }
                Wish::Die => return self.end_sensor(number, Reached::SensorKilled),
                Wish::HangUp => {
                    tell(self.now_ns, || format!("machine {number} hangs up"));
                    self.hang_up_sensor(number);
                }
                Wish::Send(bytes) => {
                    let delay_ns = self.delay_ns();
                    let open = self.links.values_mut().rev();
                    let mut open = open.filter(|it| it.machine == number && it.has_sensor);
                    if let Some(link) = open.next() {
                        let bytes = crate::simulator::skew::rewrite(link.skew, bytes);
                        link.up.send(self.now_ns, delay_ns, Packet::Bytes(bytes));
                    }
                }
            }
        }
    }

    /// The sensor closes its end; what it sent still arrives.
    pub(in crate::simulator) fn hang_up_sensor(&mut self, number: usize) {
        let delay_ns = self.delay_ns();
        for link in self.links.values_mut().filter(|it| it.machine == number && it.has_sensor) {
            link.has_sensor = false;
            link.up.send(self.now_ns, delay_ns, Packet::Close);
        }
    }

    /// Sends what a server has to say.
    pub(in crate::simulator) fn reply(&mut self, server: usize, replies: Vec<Reply>) {
        self.servers[server].forget(&replies);
        for reply in replies {
            let delay_ns = self.delay_ns();
            let Some(link) = self.links.get_mut(&reply.link) else { continue };
            link.down.send(self.now_ns, delay_ns, Packet::Bytes(reply.bytes));
            if reply.is_last {
                link.has_server = false;
                link.down.send(self.now_ns, delay_ns, Packet::Close);
            }
        }
    }

    fn delay_ns(&mut self) -> u64 {
        self.chance.between(MS / 10, 40 * MS)
    }
}
