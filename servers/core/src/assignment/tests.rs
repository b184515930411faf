//! Shares, stickiness, death, draining and fullness of assignments.

use std::collections::BTreeMap;

use lapwing_protocol::id::{Incarnation, SensorId, ServerId};
use lapwing_protocol::registration::{
    AssignReason, AssignRequest, Heartbeat, ServerSetting, ServerState,
};

use super::limits::{DEAD_AFTER_MS, RETRY_FULL_MS};
use super::{Assignments, ChangeRefused, Decision, NoRoom, record};

const FIRST: AssignRequest = AssignRequest { reason: AssignReason::First, trouble_with: None };

fn server(number: u8) -> ServerId {
    ServerId([number; 16])
}

fn sensor(number: u32) -> SensorId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    SensorId(id)
}

fn heartbeat(name: &str, number: u8, capacity: u32) -> Heartbeat<'_> {
    Heartbeat {
        server: server(number),
        name,
        sensor_address: "127.0.0.1:443",
        console_address: "127.0.0.1:8443",
        malware_address: "127.0.0.1:7075",
        capacity,
        sensors: 0,
        load_permille: 0,
        draining: false,
        version: "0.1.0",
        incarnation: Incarnation([1; 16]),
    }
}

fn beat(assignments: &mut Assignments, now_ms: u64, heartbeat: &Heartbeat<'_>) -> super::Heard {
    let (said, passing) = record::split(7, heartbeat);
    assignments.handle_heartbeat(now_ms, heartbeat.server, said, passing).unwrap()
}

fn three(now_ms: u64) -> Assignments {
    let mut assignments = Assignments::default();
    for (name, number, capacity) in [("d1", 1, 300), ("d2", 2, 600), ("d3", 3, 1200)] {
        beat(&mut assignments, now_ms, &heartbeat(name, number, capacity));
    }
    assignments
}

fn assign_many(assignments: &mut Assignments, now_ms: u64, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let decision = assignments.assign(now_ms, 7, sensor(number), FIRST);
        assert!(!matches!(decision, Decision::AllFull { .. }), "{number}: {decision:?}");
    }
}

fn shares(assignments: &Assignments) -> BTreeMap<ServerId, u32> {
    assignments.servers().map(|(id, server)| (id, server.assigned)).collect()
}

#[test]
fn shares_follow_capacity() {
    let mut assignments = three(0);
    assign_many(&mut assignments, 0, 0..700);
    for (number, expected) in [(1, 100_u32), (2, 200), (3, 400)] {
        let share = shares(&assignments)[&server(number)];
        assert!(share.abs_diff(expected) * 20 <= expected, "{number}: {share} of {expected}");
    }
    assign_many(&mut assignments, 0, 700..2100);
    assert_eq!(shares(&assignments).into_values().collect::<Vec<_>>(), [300, 600, 1200]);
    assert_eq!(
        assignments.assign(0, 7, sensor(2100), FIRST),
        Decision::AllFull { retry_after_ms: RETRY_FULL_MS, why: NoRoom::Full }
    );
}

#[test]
fn turns_are_spread_and_not_in_blocks() {
    let mut assignments = three(0);
    let mut row = Vec::new();
    for number in 0..7 {
        if let Decision::Given { server, .. } = assignments.assign(0, 7, sensor(number), FIRST) {
            row.push(server.0[0]);
        }
    }
    assert_eq!(row, [3, 2, 3, 1, 3, 2, 3]);
}

#[test]
fn a_sensor_keeps_its_server() {
    let mut assignments = three(0);
    assign_many(&mut assignments, 0, 0..50);
    let before = assignments.place(sensor(7)).unwrap().server;
    assert_eq!(assignments.assign(1, 8, sensor(7), FIRST), Decision::Kept(before));
    let elsewhere =
        AssignRequest { reason: AssignReason::Unreachable, trouble_with: Some(ServerId([9; 16])) };
    assert_eq!(assignments.assign(1, 8, sensor(7), elsewhere), Decision::Kept(before));
}

#[test]
fn trouble_moves_a_sensor_only_where_another_has_room() {
    let mut assignments = Assignments::default();
    beat(&mut assignments, 0, &heartbeat("d1", 1, 10));
    assign_many(&mut assignments, 0, 0..1);
    let trouble = AssignRequest { reason: AssignReason::NoProgress, trouble_with: Some(server(1)) };
    assert_eq!(assignments.assign(1, 7, sensor(0), trouble), Decision::Kept(server(1)));
    beat(&mut assignments, 1, &heartbeat("d2", 2, 1));
    let moved = assignments.assign(1, 7, sensor(0), trouble);
    assert!(matches!(moved, Decision::Given { server: to, .. } if to == server(2)), "{moved:?}");
    assert_eq!(shares(&assignments).into_values().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_dead_server_loses_its_sensors_as_they_ask_and_comes_back_empty_of_them() {
    let mut assignments = Assignments::default();
    beat(&mut assignments, 0, &heartbeat("d1", 1, 10));
    assign_many(&mut assignments, 0, 0..2);
    assert_eq!(
        assignments.assign(DEAD_AFTER_MS, 7, sensor(0), FIRST),
        Decision::AllFull { retry_after_ms: RETRY_FULL_MS, why: NoRoom::NoneUp }
    );
    beat(&mut assignments, DEAD_AFTER_MS, &heartbeat("d2", 2, 10));
    let moved = assignments.assign(DEAD_AFTER_MS, 7, sensor(0), FIRST);
    assert!(matches!(moved, Decision::Given { server: to, .. } if to == server(2)), "{moved:?}");
    let heard = beat(&mut assignments, DEAD_AFTER_MS + 1, &heartbeat("d1", 1, 10));
    assert!(heard.is_back && heard.changed.is_none());
    let now_ms = DEAD_AFTER_MS + 1;
    assert_eq!(assignments.assign(now_ms, 7, sensor(0), FIRST), Decision::Kept(server(2)));
    assert_eq!(assignments.assign(now_ms, 7, sensor(1), FIRST), Decision::Kept(server(1)));
}

#[test]
fn a_drained_server_gets_nobody_and_its_sensors_move_when_they_ask() {
    let mut assignments = three(0);
    assign_many(&mut assignments, 0, 0..70);
    let (id, record) = assignments.change("d3", ServerSetting::Drain).unwrap();
    assert!(id == server(3) && record.drain);
    assert_eq!(assignments.server(id).unwrap().state(0), ServerState::Draining);
    let before = shares(&assignments)[&id];
    assign_many(&mut assignments, 0, 70..170);
    assert_eq!(shares(&assignments)[&id], before);
    for number in 0..70 {
        assignments.assign(0, 7, sensor(number), FIRST);
    }
    assert_eq!(shares(&assignments)[&id], 0);
    assert!(beat(&mut assignments, 1, &heartbeat("d3", 3, 1200)).reply.drain);
    assignments.change("d3", ServerSetting::Undrain).unwrap();
    assert_eq!(assignments.server(id).unwrap().state(1), ServerState::Up);
    assert_eq!(
        assignments.change("d9", ServerSetting::Drain).unwrap_err(),
        ChangeRefused::UnknownServer
    );
}

#[test]
fn an_operators_capacity_goes_before_the_servers_own_and_outlives_heartbeats() {
    let mut assignments = Assignments::default();
    beat(&mut assignments, 0, &heartbeat("d1", 1, 10));
    assignments.change("d1", ServerSetting::Capacity(1)).unwrap();
    let heard = beat(&mut assignments, 1, &heartbeat("d1", 1, 10));
    assert_eq!(heard.reply.capacity, Some(1));
    assign_many(&mut assignments, 1, 0..1);
    assert!(matches!(assignments.assign(1, 7, sensor(1), FIRST), Decision::AllFull { .. }));
}

#[test]
fn sensors_beyond_a_lowered_capacity_move_where_there_is_room() {
    let mut assignments = Assignments::default();
    beat(&mut assignments, 0, &heartbeat("d1", 1, 10));
    assign_many(&mut assignments, 0, 0..3);
    assignments.change("d1", ServerSetting::Capacity(2)).unwrap();
    assert_eq!(assignments.assign(0, 7, sensor(0), FIRST), Decision::Kept(server(1)));
    beat(&mut assignments, 0, &heartbeat("d2", 2, 10));
    let moved = assignments.assign(0, 7, sensor(0), FIRST);
    assert!(matches!(moved, Decision::Given { server: to, .. } if to == server(2)), "{moved:?}");
    assert_eq!(assignments.assign(0, 7, sensor(1), FIRST), Decision::Kept(server(1)));
}

#[test]
fn sensors_that_came_unasked_count_against_room() {
    let mut assignments = Assignments::default();
    beat(&mut assignments, 0, &Heartbeat { sensors: 5, ..heartbeat("d1", 1, 5) });
    assert!(matches!(assignments.assign(0, 7, sensor(0), FIRST), Decision::AllFull { .. }));
}

#[test]
fn a_restart_of_registration_moves_nobody() {
    let mut assignments = three(0);
    assign_many(&mut assignments, 0, 0..700);
    let now_ms = 1_000_000;
    let mut restored = Assignments::restore(
        now_ms,
        assignments.servers().map(|(id, server)| (id, server.record.clone())),
        assignments.places().map(|(id, place)| (id, place.clone())),
    );
    assert_eq!(shares(&restored), shares(&assignments));
    for number in 0..700 {
        let before = assignments.place(sensor(number)).unwrap().server;
        assert_eq!(restored.assign(now_ms + 1, 8, sensor(number), FIRST), Decision::Kept(before));
    }
}

#[test]
fn a_heartbeat_is_stored_only_when_it_says_something_new() {
    let mut assignments = Assignments::default();
    assert!(beat(&mut assignments, 0, &heartbeat("d1", 1, 10)).changed.is_some());
    let busier = Heartbeat { sensors: 4, load_permille: 900, ..heartbeat("d1", 1, 10) };
    assert!(beat(&mut assignments, 2_000, &busier).changed.is_none());
    assert!(beat(&mut assignments, 4_000, &heartbeat("d1", 1, 11)).changed.is_some());
}

#[test]
fn nobody_is_up_and_nobody_is_known_are_told_apart() {
    let mut assignments = Assignments::default();
    let all_full = |why| Decision::AllFull { retry_after_ms: RETRY_FULL_MS, why };
    assert_eq!(assignments.assign(0, 7, sensor(0), FIRST), all_full(NoRoom::NoServers));
    beat(&mut assignments, 0, &Heartbeat { draining: true, ..heartbeat("d1", 1, 10) });
    assert_eq!(assignments.assign(0, 7, sensor(0), FIRST), all_full(NoRoom::NoneUp));
}
