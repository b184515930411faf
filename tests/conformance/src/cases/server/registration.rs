//! A Registration server: assignments, and what it does not do.
//!
//! These need `--registration`.

use std::collections::BTreeSet;

use super::case;
use super::context::Context;
use super::steps::refused;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::crypto::identity::Identity;
use crate::crypto::tls;
use crate::play::link::Link;
use crate::play::sensor::{Sensor, call};
use crate::wire::code;
use crate::wire::frame::head;
use crate::wire::message::Lane;
use crate::wire::method::{ASSIGN, AssignReason, AssignRequest, Assignment, HEARTBEAT, Heartbeat};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "an_assignment_names_a_server_that_answers",
        &["REG-010", "PLN-002", "CAL-001"],
        "The reply names id and address; at that address a server of that id answers a Hello.",
        an_assignment_names_a_server_that_answers,
    ),
    case(
        "an_assignment_is_kept",
        &["REG-012"],
        "Asked again without trouble, Registration gives the same server.",
        an_assignment_is_kept,
    ),
    case(
        "trouble_moves_a_sensor",
        &["REG-012", "REG-013"],
        "A server that there was trouble with is not kept where others have room; without any room \
         the answer is `all_full`.",
        trouble_moves_a_sensor,
    ),
    case(
        "registration_takes_no_session",
        &["FRM-008", "FRM-005", "LIM-004"],
        "There a Hello is out of place, and a frame of more than 4,096 bytes is refused.",
        registration_takes_no_session,
    ),
    case(
        "nobody_speaks_for_another",
        &["PLN-004"],
        "A heartbeat with an id that is not the certificate's is forbidden.",
        nobody_speaks_for_another,
    ),
];

fn registration(cx: &Context<'_>, sensor: &Sensor) -> Result<Link, Stop> {
    let address = cx.target.registration.ok_or_else(|| {
        Stop::Skip("--registration is not given: there is nobody who assigns".into())
    })?;
    sensor.connect(address).map_err(Stop::Fail)
}

fn assign(
    link: &mut Link,
    reason: AssignReason,
    trouble_with: Option<[u8; 16]>,
) -> Result<Result<Assignment, String>, Stop> {
    let asked = AssignRequest { reason, trouble_with };
    let (code, body) = call(link, 1, ASSIGN, &asked.to_bytes())?;
    if code != 0 {
        return Ok(Err(code::name(code)));
    }
    let found = Assignment::from_bytes(&body).map_err(|error| format!("Assignment: {error}"))?;
    Ok(Ok(found))
}

fn an_assignment_names_a_server_that_answers(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let mut link = registration(cx, &sensor)?;
    let found = assign(&mut link, AssignReason::First, None)?;
    let assignment = found.map_err(|code| format!("REG-010: {code}"))?;
    let address = assignment
        .address
        .parse()
        .map_err(|_| format!("REG-010: `{}` is not address:port", assignment.address))?;
    let log = sensor.log(Lane::Bulk, cx.id());
    let (link, ack) = sensor.session(address, &[&log])?;
    equal!(ack.server, assignment.server, "REG-010: the id of the server that answers");
    equal!(ack.name, assignment.name, "REG-010: its name");
    let certificate = link.peer_certificate().ok_or("REG-010: no certificate")?;
    let identity = Identity::of_certificate(&certificate)?;
    equal!(identity.id, assignment.server, "REG-010: the id of its certificate");
    Ok(())
}

fn an_assignment_is_kept(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let mut link = registration(cx, &sensor)?;
    let first =
        assign(&mut link, AssignReason::First, None)?.map_err(|code| format!("REG-012: {code}"))?;
    for _ in 0..3 {
        let mut link = registration(cx, &sensor)?;
        let again = assign(&mut link, AssignReason::First, None)?
            .map_err(|code| format!("REG-012: {code}"))?;
        equal!(again.server, first.server, "REG-012: the server of a sensor that asks again");
    }
    Ok(())
}

/// Sensors that ask before it is believed that there is one server alone: they are dealt out in
/// turn, by capacity.
const ASKED: usize = 8;

fn trouble_moves_a_sensor(cx: &mut Context<'_>) -> Checked {
    let mut servers = BTreeSet::new();
    let mut last = None;
    for _ in 0..ASKED {
        let sensor = cx.sensor()?;
        let mut link = registration(cx, &sensor)?;
        let found = assign(&mut link, AssignReason::First, None)?;
        let assignment = found.map_err(|code| format!("REG-012: {code}"))?;
        servers.insert(assignment.server);
        last = Some((link, assignment.server));
    }
    let (mut link, troubled) = last.ok_or("the case itself: nobody asked")?;
    match assign(&mut link, AssignReason::Unreachable, Some(troubled))? {
        Ok(other) => ensure!(
            other.server != troubled || servers.len() == 1,
            "REG-012: the server that there was trouble with is kept, and there are {}",
            servers.len()
        ),
        Err(code) => {
            equal!(code, "all_full", "REG-013: the code");
            ensure!(servers.len() == 1, "REG-013: all are full, and there are {}", servers.len());
        }
    }
    Ok(())
}

fn registration_takes_no_session(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let log = sensor.log(Lane::Bulk, cx.id());
    let mut link = registration(cx, &sensor)?;
    link.send(sensor.hello(&[&log]));
    refused(cx, &mut link, code::OUT_OF_PLACE, "FRM-008: a Hello at Registration")?;
    let mut link = registration(cx, &sensor)?;
    link.send_bytes(&head(4_093, 14));
    refused(cx, &mut link, code::TOO_LARGE, "LIM-004: 4,097 bytes at Registration")
}

fn nobody_speaks_for_another(cx: &mut Context<'_>) -> Checked {
    let address = cx.target.registration.ok_or_else(|| {
        Stop::Skip("--registration is not given: there is nobody who takes heartbeats".into())
    })?;
    let own = cx.lent("detection")?;
    let config = tls::client(&cx.target.roots, &[tls::PEER], Some(own))
        .map_err(|error| error.to_string())?;
    let mut link = Link::connect(address, &config)?;
    let beat = Heartbeat {
        server: cx.id(),
        name: "another".into(),
        sensor_address: "127.0.0.1:1".into(),
        console_address: "127.0.0.1:1".into(),
        malware_address: "127.0.0.1:1".into(),
        capacity: 1,
        sensors: 0,
        load_permille: 0,
        draining: true,
        version: "0".into(),
        incarnation: [0; 16],
    };
    let (code, _) = call(&mut link, 1, HEARTBEAT, &beat.to_bytes())?;
    equal!(code::name(code), "forbidden", "PLN-004: a heartbeat of another server");
    Ok(())
}
