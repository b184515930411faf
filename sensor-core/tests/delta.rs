//! The contract of the encoder: whatever facts come, decoding the chunks gives the table.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod world;

use std::collections::BTreeMap;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::element::{
    Change, Definition, Fact, Feature, FeatureSpec, Field, Kind, KindSpec, Nature, Reference, Role,
    Scope, Type, Value, dns, process, service, write_key,
};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use lapwing_protocol::items::Items;
use lapwing_protocol::op::{DropReason, Op, OpReader};
use lapwing_sensor_core::*;
use proptest::prelude::*;
use world::peer::Peer;
use world::reader::{Reader, Row, row_bytes, row_of};
use world::shell::Shell;
use world::{BULK_LOG, Owned, SMALL, at, config, logs};

/// One thing that happens to the sensor.
#[derive(Clone, Debug)]
enum Step {
    Service { change: Change, name: u8, state: u8, user: Option<u8> },
    Process { change: Change, pid: u64, parent: u64, image: u8 },
    Lookup { name: u8, by: u64 },
    Wait { ms: u64 },
    Scan { seen: Vec<u8> },
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![Just(Change::Whole), Just(Change::Update), Just(Change::Ended)];
    let state = (change.clone(), 0..9u8, 0..3u8, prop::option::of(0..3u8));
    let running = (change, 0..6u64, 0..6u64, 0..4u8);
    prop_oneof![
        6 => state.prop_map(|(change, name, state, user)| {
            Step::Service { change, name, state, user }
        }),
        6 => running.prop_map(|(change, pid, parent, image)| {
            Step::Process { change, pid, parent, image }
        }),
        3 => (0..20u8, 0..6u64).prop_map(|(name, by)| Step::Lookup { name, by }),
        3 => (0..400u64).prop_map(|ms| Step::Wait { ms }),
        1 => prop::collection::vec(0..9u8, 0..6).prop_map(|seen| Step::Scan { seen }),
        1 => Just(Step::Cut),
    ]
}

/// A sensor, its shell, and what the table ought to be.
struct Rig<'a> {
    sensor: Sensor<'a>,
    shell: Shell,
    ms: u64,
    model: BTreeMap<(u16, Vec<u8>), Row>,
    events: usize,
    unchanged: u64,
    recorded: u64,
}

impl<'a> Rig<'a> {
    fn new(memory: Memory, storage: Storage<'a>) -> Self {
        let sensor = Sensor::new(config(memory), storage, logs()).unwrap();
        Self {
            sensor,
            shell: Shell::default(),
            ms: 1_000,
            model: BTreeMap::new(),
            events: 0,
            unchanged: 0,
            recorded: 0,
        }
    }

    fn fact(&mut self, kind: Kind, change: Change, fields: &[Field<'_>]) -> Intake {
        let now = at(self.ms);
        let fact = Fact { kind, change, time_ns: now.monotonic_ns - 5, fields };
        let intake = self.shell.fact(&mut self.sensor, now, Lane::Bulk, &fact);
        match intake {
            Intake::Recorded => self.recorded += 1,
            Intake::Unchanged => self.unchanged += 1,
            Intake::Dropped(_) => {}
        }
        intake
    }

    fn state(&mut self, kind: Kind, change: Change, key: Vec<u8>, fields: &[Field<'_>]) {
        let before = self.model.clone();
        let row = row_of(fields);
        match change {
            Change::Whole => drop(self.model.insert((kind.0, key), row)),
            Change::Update => self.model.entry((kind.0, key)).or_default().extend(row),
            Change::Ended => drop(self.model.remove(&(kind.0, key))),
            Change::Event => unreachable!("state"),
        }
        let expected = if before == self.model { Intake::Unchanged } else { Intake::Recorded };
        assert_eq!(self.fact(kind, change, fields), expected);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Service { change, name, state, user } => {
                let (key, fields) = service_fields(*name, *state, *user);
                let fields: Vec<_> =
                    fields.iter().map(|(f, text)| Field::new(*f, Value::text(text))).collect();
                self.state(service::KIND, *change, key, &fields);
            }
            Step::Process { change, pid, parent, image } => {
                self.process(*change, *pid, *parent, *image);
            }
            Step::Lookup { name, by } => {
                let (question, key) = (format!("host-{name}.example"), process_key(*by));
                let by = Reference { kind: process::KIND, key: &key };
                let fields = [
                    Field::new(Feature::SOURCE_SEQ, Value::U64(self.events as u64)),
                    Field::new(dns::question, Value::text(&question)),
                    Field::new(dns::process, Value::Ref(by)),
                ];
                self.events += 1;
                self.fact(dns::KIND, Change::Event, &fields);
            }
            Step::Wait { ms } => self.wait(*ms),
            Step::Scan { seen } => self.scan(seen),
            Step::Cut => self.wait(86_400_000),
        }
    }

    fn process(&mut self, change: Change, pid: u64, parent: u64, image: u8) {
        let (key, parent) = (process_key(pid), process_key(parent));
        let path = format!("/usr/bin/image-{image}");
        let fields = [
            Field::new(process::pid, Value::U64(pid)),
            Field::new(process::start_ticks, Value::U64(pid * 100)),
            Field::new(
                process::parent,
                Value::Ref(Reference { kind: process::KIND, key: &parent }),
            ),
            Field::new(process::image_path, Value::text(&path)),
            Field::new(process::started, Value::Time(7_000 + u64::from(image))),
        ];
        self.state(process::KIND, change, key, &fields);
    }

    fn wait(&mut self, ms: u64) {
        self.ms += ms;
        let now = at(self.ms);
        self.sensor.handle_timeout(now);
        self.shell.spool(&mut self.sensor, now);
    }

    fn scan(&mut self, seen: &[u8]) {
        self.sensor.begin_scan(service::KIND);
        for name in seen {
            let step = Step::Service { change: Change::Update, name: *name, state: 1, user: None };
            self.step(&step);
        }
        let now = at(self.ms);
        while self.sensor.end_scan(now, service::KIND).is_err() {
            assert!(self.shell.spool(&mut self.sensor, now) > 0);
        }
        self.shell.spool(&mut self.sensor, now);
        let seen: Vec<_> = seen.iter().map(|name| service_fields(*name, 0, None).0).collect();
        let keys = self.model.keys().filter(|(kind, _)| *kind == service::KIND.0);
        let gone: Vec<_> = keys.filter(|(_, key)| !seen.contains(key)).cloned().collect();
        for key in gone {
            self.model.remove(&key);
            self.recorded += 1;
        }
    }

    fn finish(&mut self) -> Reader {
        self.sensor.close_chunk(at(self.ms));
        self.shell.spool(&mut self.sensor, at(self.ms));
        self.shell.read(Lane::Bulk, BULK_LOG, 1)
    }

    fn check(&mut self) {
        let reader = self.finish();
        let decoded: BTreeMap<_, _> = reader
            .rows
            .values()
            .map(|(kind, row)| {
                let spec = lapwing_protocol::element::kind(*kind).unwrap();
                ((kind.0, world::reader::key_of(spec, row)), row.clone())
            })
            .collect();
        assert_eq!(decoded, self.model);
        assert_eq!(reader.events.len(), self.events);
        let stats = self.sensor.stats();
        assert_eq!(stats.unchanged, self.unchanged);
        assert_eq!(stats.lanes[0].facts_produced, reader.next_index - 1);
        assert_eq!(self.recorded, reader.next_index - 1);
        for (slot, (kind, row)) in &reader.rows {
            assert_eq!(self.sensor.row(*slot), Some((*kind, &row_bytes(row)[..])));
        }
    }
}

fn process_key(pid: u64) -> Vec<u8> {
    let mut buffer = [0; 32];
    write_key(&[Value::U64(pid), Value::U64(pid * 100)], &mut buffer).unwrap().to_vec()
}

fn service_fields(name: u8, state: u8, user: Option<u8>) -> (Vec<u8>, Vec<(Feature, String)>) {
    let name = format!("service-{name}");
    let mut buffer = [0; 64];
    let key = write_key(&[Value::text(&name)], &mut buffer).unwrap().to_vec();
    let mut fields = vec![(service::name, name), (service::state, format!("state-{state}"))];
    fields.extend(user.map(|user| (service::user, format!("user-{user}"))));
    (key, fields)
}

/// So many cases, and no file of failures beside the sources.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn decoding_all_chunks_gives_the_table(
        steps in prop::collection::vec(step(), 1..120),
        open in 400usize..2_000,
        strings in prop::sample::select(vec![0usize, 4, 16, 64]),
    ) {
        let mut sizes = SMALL;
        sizes.bulk.open = open;
        sizes.bulk.window = 3 * (open + 42);
        sizes.fetch = open.max(512);
        sizes.strings = strings;
        let mut owned = Owned::new(&sizes);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        for step in &steps {
            rig.step(step);
        }
        rig.check();
    }

    #[test]
    fn each_segment_decodes_by_itself(steps in prop::collection::vec(step(), 1..120)) {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        for step in &steps {
            rig.step(step);
        }
        let whole = rig.finish();
        let openers: Vec<u64> = rig.shell.spool.get(&(Lane::Bulk, BULK_LOG)).map_or(vec![], |log| {
            log.iter().filter(|(_, chunk)| chunk.opens).map(|(seq, _)| *seq).collect()
        });
        for start in openers {
            prop_assert_eq!(&rig.shell.read(Lane::Bulk, BULK_LOG, start).rows, &whole.rows);
        }
    }

    #[test]
    fn a_full_table_announces_what_it_drops(steps in prop::collection::vec(step(), 1..120)) {
        let mut sizes = SMALL;
        sizes.rows = 4;
        sizes.index = 8;
        let mut owned = Owned::new(&sizes);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut produced = 0;
        for step in &steps {
            match step {
                Step::Service { change, name, state, user } => {
                    let (_, fields) = service_fields(*name, *state, *user);
                    let fields: Vec<_> =
                        fields.iter().map(|(f, text)| Field::new(*f, Value::text(text))).collect();
                    let intake = rig.fact(service::KIND, *change, &fields);
                    produced += u64::from(intake != Intake::Unchanged);
                }
                Step::Wait { ms } => rig.wait(*ms),
                Step::Process { .. } | Step::Lookup { .. } | Step::Scan { .. } | Step::Cut => {}
            }
        }
        let reader = rig.finish();
        prop_assert_eq!(reader.next_index - 1, produced);
        let announced: u64 = reader.dropped.iter().map(|(_, count)| count).sum();
        prop_assert_eq!(announced, rig.sensor.stats().dropped_table_full);
        prop_assert!(reader.dropped.iter().all(|(reason, _)| *reason == DropReason::TableFull));
        prop_assert!(reader.rows.len() <= 4);
    }
}

#[test]
fn ten_scans_of_an_unchanged_machine_say_nothing() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    for round in 0..11 {
        rig.sensor.begin_scan(service::KIND);
        for name in 0..9 {
            rig.step(&Step::Service { change: Change::Whole, name, state: 1, user: Some(1) });
        }
        rig.sensor.end_scan(at(rig.ms), service::KIND).unwrap();
        rig.wait(5_000);
        assert_eq!(rig.sensor.stats().lanes[0].facts_produced, 9, "round {round}");
    }
    assert_eq!(rig.sensor.stats().unchanged, 90);
}

#[test]
fn one_changed_feature_is_one_op_with_one_field() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.step(&Step::Service { change: Change::Whole, name: 1, state: 1, user: Some(1) });
    rig.wait(1_000);
    let before = rig.sensor.stats().lanes[0].bytes_made;
    rig.step(&Step::Service { change: Change::Whole, name: 1, state: 2, user: Some(1) });
    rig.check();
    let bytes = rig.sensor.stats().lanes[0].bytes_made - before;
    assert!(bytes < 45, "{bytes} bytes for one field");
}

#[test]
fn a_fact_that_fits_no_chunk_or_no_kind_is_announced() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let long = "x".repeat(600);
    let fields = [
        Field::new(service::name, Value::text("a")),
        Field::new(service::description, Value::text(&long)),
    ];
    let large = rig.fact(service::KIND, Change::Whole, &fields);
    assert_eq!(large, Intake::Dropped(DropReason::TooLarge));
    let keyless = [Field::new(service::state, Value::text("a"))];
    let odd = rig.fact(service::KIND, Change::Whole, &keyless);
    assert_eq!(odd, Intake::Dropped(DropReason::Malformed));
    let reader = rig.finish();
    assert_eq!(reader.dropped, [(DropReason::TooLarge, 1), (DropReason::Malformed, 1)]);
    assert_eq!(reader.next_index, 3);
}

#[test]
fn a_kind_whose_description_fits_no_chunk_is_not_taken() {
    let mut definitions = vec![0; 1_024];
    let mut owned = Owned::new(&SMALL);
    let mut storage = owned.storage();
    storage.definitions = &mut definitions;
    let mut sensor = Sensor::new(config(Memory::Disk), storage, logs()).unwrap();
    let mut buffer = [0; 1_024];
    let names: Vec<String> = (3..12).map(|number| format!("{number:_>60}")).collect();
    let features = names.iter().zip(3..).map(|(name, number)| FeatureSpec {
        feature: Feature(number),
        name,
        value_type: Type::U64,
        role: Role::Property,
    });
    let large = Definition {
        kind: Kind(0x8001),
        name: "large",
        nature: Nature::Event,
        scope: Scope::Machine,
        features: Items::encode(features, &mut buffer).unwrap(),
    };
    assert_eq!(sensor.define(&large), Err(DefineError::Full));
    let small = Definition { features: Items::EMPTY, ..large };
    assert_eq!(sensor.define(&small), Ok(()));
}

#[test]
fn an_agents_own_kind_is_described_in_each_segment_and_in_each_chunk_that_stands_alone() {
    for (memory, descriptions) in [(Memory::Disk, 2), (Memory::RamOnly, 3)] {
        let mut owned = Owned::new(&SMALL);
        let mut sensor = Sensor::new(config(memory), owned.storage(), logs()).unwrap();
        let mut buffer = [0; 64];
        let features = [FeatureSpec {
            feature: Feature(3),
            name: "number",
            value_type: Type::U64,
            role: Role::Property,
        }];
        let definition = Definition {
            kind: Kind(0x8001),
            name: "door_opened",
            nature: Nature::Event,
            scope: Scope::Machine,
            features: Items::encode(features, &mut buffer).unwrap(),
        };
        sensor.define(&definition).unwrap();
        let mut peer = Peer::new(1);
        let mut shell = Shell::default();
        sensor.start(at(1));
        for hours in [0, 0, 25] {
            let now =
                at(1_000 + sensor.stats().lanes[0].facts_produced * 1_000 + hours * 3_600_000);
            let fields = [Field::new(Feature(3), Value::U64(7))];
            let fact =
                Fact { kind: Kind(0x8001), change: Change::Event, time_ns: 1, fields: &fields };
            sensor.handle_timeout(now);
            shell.fact(&mut sensor, now, Lane::Bulk, &fact);
            sensor.close_chunk(now);
            shell.settle(&mut sensor, now, &mut peer);
        }
        shell.settle(&mut sensor, at(26 * 3_600_000), &mut peer);
        let found = peer.heads[&(Lane::Bulk, BULK_LOG)].chunks.values().map(|bytes| {
            let chunk = Chunk::decode(bytes).unwrap();
            let mut ops = OpReader::new(chunk.body, chunk.header.time_base_ns);
            let mut found = 0;
            while let Some(op) = ops.op().unwrap() {
                if let Op::Define(known) = op {
                    assert_eq!(known, definition);
                    found += 1;
                } else if let Op::Event { .. } = op {
                    let spec = KindSpec {
                        kind: Kind(0x8001),
                        name: "door_opened",
                        nature: Nature::Event,
                        scope: Scope::Machine,
                        features: &features,
                    };
                    while ops.field(&spec).unwrap().is_some() {}
                }
            }
            found
        });
        assert_eq!(found.sum::<usize>(), descriptions, "{memory:?}");
    }
}
