//! A sensor with its shell and a clock, to be driven against a server.

use lapwing_protocol::element::{Change, Fact, Field, Value, dns, service};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use lapwing_sensor_core::*;

use super::peer::Peer;
use super::shell::Shell;
use super::{at, config, logs};

/// A sensor with its shell, and the time.
pub(crate) struct Rig<'a> {
    pub(crate) sensor: Sensor<'a>,
    pub(crate) shell: Shell,
    pub(crate) ms: u64,
    pub(crate) names: u64,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(memory: Memory, storage: Storage<'a>) -> Self {
        let mut sensor = Sensor::new(config(memory), storage, logs()).unwrap();
        sensor.start(at(1_000));
        Self { sensor, shell: Shell::default(), ms: 1_000, names: 0 }
    }

    /// A sensor that starts over what an earlier one left: its logs, and a spool.
    pub(crate) fn over(
        memory: Memory,
        storage: Storage<'a>,
        logs: [LogPositions; 2],
        shell: Shell,
        ms: u64,
    ) -> Self {
        let mut sensor = Sensor::new(config(memory), storage, logs).unwrap();
        sensor.start(at(ms));
        Self { sensor, shell, ms, names: ms }
    }

    /// What is on its disk, as a clean stop leaves it: where both logs stand, and the chunks.
    pub(crate) fn image(&self) -> ([LogPositions; 2], Shell) {
        let logs = [Lane::Bulk, Lane::Urgent].map(|lane| self.sensor.positions(lane));
        let Shell { spool, before, .. } = &self.shell;
        let (spool, before) = (spool.clone(), before.clone());
        (logs, Shell { spool, before, ..Shell::default() })
    }

    /// The connection is lost, and nobody is there for a while.
    pub(crate) fn cut(&mut self) {
        self.sensor.handle_disconnected(at(self.ms));
    }

    /// Records a lookup, and lets time pass so that it becomes a chunk of its own.
    pub(crate) fn lookups(&mut self, count: u64) {
        for _ in 0..count {
            self.names += 1;
            let name = format!("host-{}.example", self.names);
            let fields = [Field::new(dns::question, Value::text(&name))];
            let fact =
                |time_ns| Fact { kind: dns::KIND, change: Change::Event, time_ns, fields: &fields };
            let now = at(self.ms);
            self.shell.fact(&mut self.sensor, now, Lane::Bulk, &fact(now.monotonic_ns));
            self.ms += 300;
            self.sensor.handle_timeout(at(self.ms));
            self.shell.spool(&mut self.sensor, at(self.ms));
        }
    }

    /// Records lookups within one moment: all but the first wait in the open chunk.
    pub(crate) fn quick_lookups(&mut self, count: u64) {
        for _ in 0..count {
            self.names += 1;
            let name = format!("host-{}.example", self.names);
            let fields = [Field::new(dns::question, Value::text(&name))];
            let now = at(self.ms);
            let (kind, time_ns) = (dns::KIND, now.monotonic_ns);
            let fact = Fact { kind, change: Change::Event, time_ns, fields: &fields };
            self.shell.fact(&mut self.sensor, now, Lane::Bulk, &fact);
        }
    }

    pub(crate) fn service(&mut self, name: &str, state: &str) {
        let fields = [
            Field::new(service::name, Value::text(name)),
            Field::new(service::state, Value::text(state)),
        ];
        let now = at(self.ms);
        let time_ns = now.monotonic_ns;
        let fact = Fact { kind: service::KIND, change: Change::Whole, time_ns, fields: &fields };
        self.shell.fact(&mut self.sensor, now, Lane::Bulk, &fact);
        self.ms += 300;
        self.sensor.handle_timeout(at(self.ms));
        self.shell.spool(&mut self.sensor, at(self.ms));
    }

    pub(crate) fn settle(&mut self, peer: &mut Peer) {
        self.shell.settle(&mut self.sensor, at(self.ms), peer);
    }

    /// A session with a server that greets and stores nothing.
    pub(crate) fn reconnect_to_nobody(&mut self) {
        let mut nobody = Peer::new(0xf);
        (nobody.chunks_ahead, nobody.is_silent) = (0, true);
        self.reconnect(&mut nobody);
        self.cut();
    }

    /// Lets time pass, timeouts included, until `peer` has a session again.
    pub(crate) fn reconnect(&mut self, peer: &mut Peer) {
        self.cut();
        self.ms += 10_000;
        self.sensor.handle_timeout(at(self.ms));
        self.settle(peer);
        assert!(self.sensor.server().is_some());
    }

    pub(crate) fn all_stored(&self, peer: &Peer, lane: Lane) {
        let made = self.sensor.positions(lane);
        let head = &peer.heads[&(lane, made.log)];
        assert_eq!((head.next_seq, head.chain), (made.made.seq + 1, made.made.chain));
    }

    pub(crate) fn last_close(&self) -> Option<&CloseReason> {
        self.shell.closed.last()
    }
}
