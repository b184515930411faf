//! Numbers, order, at most once, expiry, moves, and what is shown of sensors.

use std::collections::BTreeSet;

use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, CommandNumber, Outcome};
use lapwing_protocol::console::{OutcomeView, SensorView};
use lapwing_protocol::fleet::{ActionState, CollectionState, SensorStatus};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{Incarnation, SensorId, ServerId};
use lapwing_protocol::items::Items;

use super::limits::{
    EXPIRES_AFTER_MS_DEFAULT, OUTCOME_GRACE_MS, PUT_RETRY_MS, SNAPSHOT_AGE_MS_MAX, STALE_AFTER_MS,
};
use super::record::{CursorRecord, key};
use super::{ActRefused, Fleet, Order, Put, PutAnswer, Stored, status};
use crate::rows::{self, Row};

const ISSUER: u64 = 77;
const D1: ServerId = ServerId([1; 16]);
const D2: ServerId = ServerId([2; 16]);

fn sensor(number: u8) -> SensorId {
    SensorId([number; 16])
}

fn view(number: u8) -> SensorView<'static> {
    SensorView {
        sensor: sensor(number),
        name: "machine",
        os: "Linux",
        agent: "lapwing-sensor 0.1.0",
        connected: true,
        session_epoch: 1,
        peer_address: "127.0.0.1:5",
        last_seen_ms: 1_000,
        first_seen_ms: 500,
        collecting: true,
        memory: Memory::Disk,
        rows: 0,
        divergent: false,
        health: Items::EMPTY,
        heads: Items::EMPTY,
        last_command: None,
    }
}

/// A store of rows, and a fleet that can be built from it again.
#[derive(Default)]
struct Disk(std::collections::BTreeMap<Vec<u8>, Vec<u8>>);

impl Disk {
    fn store(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            match row.value {
                Some(value) => self.0.insert(row.key, value),
                None => self.0.remove(&row.key),
            };
        }
    }

    fn fleet(&self) -> Fleet {
        let mut stored = Stored::default();
        for (at, value) in &self.0 {
            if let Some(id) = key::id_of(key::SENSORS[0], at) {
                stored.sensors.push((SensorId(id), rows::read(value).unwrap()));
            } else if let Some(id) = key::id_of(key::CURSORS[0], at) {
                stored.cursors.push((ServerId(id), rows::read(value).unwrap()));
            } else if let Some(batch) = key::batch_of(at) {
                stored.batches.push((batch, rows::read(value).unwrap()));
            } else if let Some(action) = key::action_of(at) {
                stored.actions.push((action, rows::read(value).unwrap()));
            }
        }
        Fleet::restore(ISSUER, stored)
    }
}

/// Two sensors at D1, seen at time 0.
fn two(disk: &mut Disk) -> Fleet {
    let mut fleet = disk.fleet();
    disk.store(fleet.handle_sensors(0, D1, "d1", [view(1), view(2)].into_iter()).0);
    fleet
}

fn order(numbers: &[u8], action: Action) -> Order<'static> {
    let sensors: BTreeSet<SensorId> = numbers.iter().map(|number| sensor(*number)).collect();
    Order { sensors, action, expires_after_ms: 0, author: "admin" }
}

fn act(fleet: &mut Fleet, disk: &mut Disk, numbers: &[u8], action: Action) -> u64 {
    let acted = fleet.act(0, &order(numbers, action)).unwrap();
    disk.store(acted.rows);
    fleet.handle_durable(acted.batch);
    acted.batch
}

fn queue_all(fleet: &mut Fleet, disk: &mut Disk, now_ms: u64) -> Vec<Put> {
    let mut puts = Vec::new();
    while let Some(put) = fleet.poll_put(now_ms, 0) {
        disk.store(fleet.handle_put(now_ms, 0, &put, &PutAnswer::Queued));
        puts.push(put);
    }
    puts
}

fn outcome(number: u8, seq: u64, outcome: Outcome) -> OutcomeView<'static> {
    let number_of = CommandNumber { issuer: ISSUER, seq };
    OutcomeView {
        sensor: sensor(number),
        number: number_of,
        outcome,
        detail: "as told",
        received_ms: 9,
    }
}

fn told(fleet: &mut Fleet, disk: &mut Disk, cursor: u64, outcomes: &[OutcomeView<'_>]) -> usize {
    let next = CursorRecord { incarnation: Some(Incarnation([3; 16])), cursor };
    let judged = fleet.handle_outcomes(D1, next, outcomes.iter().copied());
    disk.store(judged.rows);
    judged.closed
}

fn state(fleet: &Fleet, batch: u64, number: u8) -> ActionState {
    let mut results = fleet.results(batch).unwrap();
    results.find(|result| result.sensor == sensor(number)).unwrap().state
}

fn collection(fleet: &Fleet, number: u8) -> CollectionState {
    fleet.views(0, 0).find(|view| view.sensor == sensor(number)).unwrap().collection
}

#[test]
fn numbers_are_dense_for_each_sensor_and_survive_a_restart() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    act(&mut fleet, &mut disk, &[1, 2], Action::StopCollection);
    act(&mut fleet, &mut disk, &[1], Action::StartCollection);
    let mut fleet = disk.fleet();
    act(&mut fleet, &mut disk, &[1, 2], Action::Restart);
    let mut numbers: Vec<(u8, u64)> = queue_all(&mut fleet, &mut disk, 0)
        .iter()
        .map(|put| (put.command.sensor.0[0], put.command.number.seq))
        .collect();
    assert!(numbers.is_sorted_by(|left, right| left.0 != right.0 || left.1 < right.1));
    numbers.sort_unstable();
    assert_eq!(numbers, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]);
    assert_eq!(fleet.issuer(), ISSUER);
}

#[test]
fn nothing_is_put_before_its_rows_are_durable() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let acted = fleet.act(0, &order(&[1], Action::Restart)).unwrap();
    assert_eq!(fleet.poll_put(0, 0), None);
    fleet.handle_durable(acted.batch);
    assert!(fleet.poll_put(0, 0).is_some_and(|put| put.server == D1));
    assert_eq!(fleet.poll_put(0, 0), None, "one at a time");
}

#[test]
fn a_put_is_tried_again_until_it_is_queued() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let batch = act(&mut fleet, &mut disk, &[1], Action::Restart);
    let put = fleet.poll_put(0, 0).unwrap();
    let failed = PutAnswer::Failed { text: String::from("d1 cannot be reached") };
    assert!(fleet.handle_put(0, 0, &put, &failed).is_some());
    assert_eq!(fleet.poll_put(PUT_RETRY_MS - 1, 0), None);
    let again = fleet.poll_put(PUT_RETRY_MS, 0).unwrap();
    assert_eq!(again, put);
    let stale = PutAnswer::Refused { code: Code::STALE_COMMAND, text: String::new() };
    fleet.handle_put(PUT_RETRY_MS, 0, &again, &stale);
    assert_eq!(state(&fleet, batch, 1), ActionState::Queued);
    assert_eq!(fleet.poll_put(10 * PUT_RETRY_MS, 0), None);
}

#[test]
fn an_outcome_closes_its_action_once_and_another_issuers_closes_nothing() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let batch = act(&mut fleet, &mut disk, &[1], Action::Restart);
    queue_all(&mut fleet, &mut disk, 0);
    let foreign = OutcomeView {
        number: CommandNumber { issuer: ISSUER - 1, seq: 1 },
        ..outcome(1, 1, Outcome::Failed)
    };
    assert_eq!(told(&mut fleet, &mut disk, 1, &[foreign]), 0);
    assert_eq!(told(&mut fleet, &mut disk, 2, &[outcome(1, 1, Outcome::Done)]), 1);
    assert_eq!(told(&mut fleet, &mut disk, 3, &[outcome(1, 1, Outcome::Failed)]), 0);
    assert_eq!(state(&fleet, batch, 1), ActionState::Finished(Outcome::Done));
    assert_eq!(fleet.open_actions(), 0);
    let restored = disk.fleet();
    assert_eq!(state(&restored, batch, 1), ActionState::Finished(Outcome::Done));
    assert_eq!(restored.cursor(D1).cursor, 3);
}

#[test]
fn a_sensor_that_moved_gets_its_command_at_the_other_server_and_the_true_outcome_wins() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let batch = act(&mut fleet, &mut disk, &[1], Action::Restart);
    queue_all(&mut fleet, &mut disk, 0);
    let gone = SensorView { connected: false, ..view(1) };
    let came = SensorView { session_epoch: 2, last_seen_ms: 2_000, ..view(1) };
    disk.store(fleet.handle_sensors(1, D1, "d1", [gone, view(2)].into_iter()).0);
    disk.store(fleet.handle_sensors(1, D2, "d2", [came].into_iter()).0);
    let puts = queue_all(&mut fleet, &mut disk, 1);
    assert_eq!(puts.len(), 1);
    assert!(puts[0].server == D2 && puts[0].command.number.seq == 1);
    told(&mut fleet, &mut disk, 1, &[outcome(1, 1, Outcome::Refused)]);
    assert_eq!(state(&fleet, batch, 1), ActionState::Finished(Outcome::Refused));
    told(&mut fleet, &mut disk, 2, &[outcome(1, 1, Outcome::Done)]);
    assert_eq!(state(&fleet, batch, 1), ActionState::Finished(Outcome::Done));
}

#[test]
fn what_was_never_put_expires_at_its_end_and_what_was_put_after_a_grace() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let batch = act(&mut fleet, &mut disk, &[1, 2], Action::Restart);
    let put = fleet.poll_put(0, 0).unwrap();
    assert_eq!(put.command.sensor, sensor(1));
    fleet.handle_put(0, 0, &put, &PutAnswer::Queued);
    let end_ms = EXPIRES_AFTER_MS_DEFAULT;
    assert!(fleet.handle_time(end_ms - 1).is_empty());
    fleet.handle_time(end_ms);
    assert_eq!(state(&fleet, batch, 1), ActionState::Queued);
    assert_eq!(state(&fleet, batch, 2), ActionState::Expired);
    assert_eq!(fleet.poll_put(1, end_ms), None);
    fleet.handle_time(end_ms + OUTCOME_GRACE_MS);
    assert_eq!(state(&fleet, batch, 1), ActionState::Expired);
    told(&mut fleet, &mut disk, 1, &[outcome(1, 1, Outcome::Done)]);
    assert_eq!(state(&fleet, batch, 1), ActionState::Finished(Outcome::Done));
}

#[test]
fn unknown_sensors_are_told_and_bad_orders_refused() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let batch = act(&mut fleet, &mut disk, &[1, 9], Action::Restart);
    assert_eq!(state(&fleet, batch, 9), ActionState::UnknownSensor);
    assert_eq!(fleet.open_actions(), 1);
    let refused = |order: Order<'_>| disk.fleet().act(0, &order).unwrap_err();
    assert_eq!(refused(order(&[], Action::Restart)), ActRefused::NoSensors);
    let named = Order { author: "a\nb", ..order(&[1], Action::Restart) };
    assert_eq!(refused(named), ActRefused::BadAuthor);
    let long = Order { expires_after_ms: u64::MAX, ..order(&[1], Action::Restart) };
    assert_eq!(refused(long), ActRefused::BadExpiry);
    assert!(fleet.results(batch + 1).is_none());
}

#[test]
fn collection_follows_outcomes_and_the_sensors_own_word_by_what_came_last() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    assert_eq!(collection(&fleet, 1), CollectionState::Enabled);
    act(&mut fleet, &mut disk, &[1], Action::StopCollection);
    act(&mut fleet, &mut disk, &[1], Action::StartCollection);
    queue_all(&mut fleet, &mut disk, 0);
    told(&mut fleet, &mut disk, 1, &[outcome(1, 1, Outcome::Done)]);
    assert_eq!(collection(&fleet, 1), CollectionState::Disabled);
    fleet.handle_sensors(1, D1, "d1", [view(1)].into_iter());
    assert_eq!(collection(&fleet, 1), CollectionState::Disabled, "an old word told again");
    told(&mut fleet, &mut disk, 2, &[outcome(1, 2, Outcome::Done)]);
    assert_eq!(collection(&fleet, 1), CollectionState::Enabled);
    let quiet = SensorView { session_epoch: 2, collecting: false, ..view(1) };
    fleet.handle_sensors(2, D1, "d1", [quiet].into_iter());
    assert_eq!(collection(&fleet, 1), CollectionState::Suspended);
    assert_eq!(collection(&disk.fleet(), 1), CollectionState::Enabled);
}

#[test]
fn status_has_its_thresholds() {
    let at = |unix_ms, connected| status(unix_ms, connected, 1_000, false);
    assert_eq!(at(1_000, true), SensorStatus::Online);
    assert_eq!(at(1_001, false), SensorStatus::Offline);
    assert_eq!(at(1_000 + STALE_AFTER_MS, false), SensorStatus::Offline);
    assert_eq!(at(1_001 + STALE_AFTER_MS, false), SensorStatus::Stale);
    assert_eq!(at(0, false), SensorStatus::Offline, "a server's clock ahead of ours");
    assert_eq!(status(1_000, true, 1_000, true), SensorStatus::Archived);
}

#[test]
fn a_server_that_no_longer_answers_vouches_for_nobody() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let shown = |fleet: &Fleet, now_ms| fleet.views(now_ms, 1_000).next().unwrap().status;
    assert_eq!(shown(&fleet, SNAPSHOT_AGE_MS_MAX - 1), SensorStatus::Online);
    assert_eq!(shown(&fleet, SNAPSHOT_AGE_MS_MAX), SensorStatus::Offline);
    let restored = disk.fleet();
    assert_eq!(shown(&restored, 0), SensorStatus::Offline);
    assert_eq!(restored.views(0, 0).next().unwrap().name, "machine");
    disk.store(fleet.archive(sensor(1), true));
    assert_eq!(shown(&disk.fleet(), 0), SensorStatus::Archived);
}

#[test]
fn a_sensor_at_rest_costs_no_writes() {
    let mut disk = Disk::default();
    let mut fleet = two(&mut disk);
    let later = SensorView { last_seen_ms: 2_000, ..view(1) };
    assert!(fleet.handle_sensors(1, D1, "d1", [later, view(2)].into_iter()).0.is_empty());
    assert_eq!(fleet.views(1, 0).next().unwrap().last_seen_ms, 2_000);
}
