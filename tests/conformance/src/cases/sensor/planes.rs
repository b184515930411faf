//! Enrolment, and whom a sensor believes.

use std::time::Duration;

use super::case;
use super::context::Context;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::crypto::authority::{Authority, Usage};
use crate::crypto::identity::{Credentials, Identity};
use crate::play::link::{Got, Link};
use crate::play::station::{RETURN, configured};
use crate::wire::message::Id;
use crate::wire::method::AssignReason;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "it_enrols_asks_once_and_connects",
        &["PLN-001", "PLN-002", "PLN-003", "REG-010", "REG-011"],
        "A new sensor enrols with the token, asks Registration once, and goes to the server that it \
         is sent to with the certificate that it got; a lost connection alone makes it ask nobody.",
        it_enrols_asks_once_and_connects,
    ),
    case(
        "a_server_of_another_authority_is_not_spoken_with",
        &["PLN-005", "REG-004"],
        "A Detection server whose certificate another CA signed gets no Hello.",
        a_server_of_another_authority,
    ),
    case(
        "a_server_of_another_role_is_not_spoken_with",
        &["PLN-005", "PLN-003"],
        "A certificate of the CA for another role, or without an identity, or with two, or of a time \
         that is over, gets no Hello at a Detection server's place.",
        a_server_of_another_role,
    ),
    case(
        "a_server_that_was_not_assigned_is_not_spoken_with",
        &["PLN-005", "REG-010"],
        "At the address that was assigned another Detection server of the same CA gets no Hello.",
        a_server_that_was_not_assigned,
    ),
];

fn it_enrols_asks_once_and_connects(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(2)?;
    cx.registration_is_content()?;
    let asked = cx.registration.known().asked.clone();
    equal!(asked.len(), 1, "REG-011: times that Registration was asked");
    equal!(asked[0].1.reason, AssignReason::First, "REG-010: the reason");
    equal!(asked[0].1.trouble_with, None, "REG-010: the server that there is trouble with");
    cx.a.cut();
    cx.a.welcome()?;
    cx.chunks(1)?;
    cx.subject.stop()?;
    cx.restart()?;
    cx.a.welcome()?;
    cx.chunks(1)?;
    let asked = cx.registration.known().asked.len();
    equal!(
        asked,
        1,
        "REG-011: times that Registration was asked over a lost session and a restart"
    );
    cx.registration_is_content()
}

/// The sensor connects to a server with these credentials, and says nothing.
fn no_hello(cx: &mut Context, credentials: &Credentials, what: &str) -> Checked {
    let config = configured(credentials, &cx.roots)?;
    cx.restart()?;
    let link = cx.a.connection(RETURN, Some(&config)).ok_or("the sensor does not connect")?;
    let mut link: Link = match link {
        Err(_) => return Ok(()), // it ended the handshake
        Ok(link) => link,
    };
    match link.next(Duration::from_secs(8)) {
        Got::Frame(frame) => Err(format!("PLN-005: {what} gets kind {}", frame.kind).into()),
        Got::Closed(_) => Ok(()),
        Got::Silence => Err(format!("PLN-005: {what} is kept").into()),
    }
}

fn issue(cx: &Context, by: &Authority, roles: &[(&str, Id)]) -> Result<Credentials, Stop> {
    let deployment = cx.deployment;
    let uri = |(role, id): &(&str, Id)| {
        Identity { deployment, role: (*role).into(), id: *id }.to_string()
    };
    let uris: Vec<String> = roles.iter().map(uri).collect();
    by.issue(&uris, Usage::Server).map_err(|error| Stop::Fail(error.to_string()))
}

fn a_server_of_another_authority(cx: &mut Context) -> Checked {
    let other = Authority::create("other").map_err(|error| error.to_string())?;
    let credentials = issue(cx, &other, &[("detection", cx.a.id)])?;
    no_hello(cx, &credentials, "a server of another authority")
}

fn a_server_of_another_role(cx: &mut Context) -> Checked {
    let id = cx.a.id;
    let wrong: [(&str, &[(&str, Id)]); 4] = [
        ("a Registration server in a Detection server's place", &[("registration", id)]),
        ("a sensor in a server's place", &[("sensor", id)]),
        ("a certificate without an identity", &[]),
        ("a certificate with two identities", &[("detection", id), ("registration", id)]),
    ];
    for (what, roles) in wrong {
        let credentials = issue(cx, &cx.authority, roles)?;
        no_hello(cx, &credentials, what)?;
    }
    let own = Identity { deployment: cx.deployment, role: "detection".into(), id }.to_string();
    let old = cx.authority.expired(&[own], Usage::Server).map_err(|error| error.to_string())?;
    no_hello(cx, &old, "a certificate of a time that is over")?;
    // And it is the certificate that was wrong: the right one is spoken with.
    cx.restart()?;
    cx.a.welcome()?;
    Ok(())
}

fn a_server_that_was_not_assigned(cx: &mut Context) -> Checked {
    let mut id = cx.a.id;
    id[0] ^= 1;
    let credentials = issue(cx, &cx.authority, &[("detection", id)])?;
    no_hello(cx, &credentials, "another Detection server at the assigned address")?;
    ensure!(cx.a.hellos == 0, "PLN-005: a Hello came");
    Ok(())
}
