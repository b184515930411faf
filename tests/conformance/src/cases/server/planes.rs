//! Planes, TLS, certificates and enrolment.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::context::Context;
use super::steps::{is_closed, refused, store};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::crypto::authority::{Authority, Usage};
use crate::crypto::identity::{Credentials, Identity, Request, hex};
use crate::crypto::tls;
use crate::play::link::{Got, Link, PATIENCE, socket};
use crate::play::sensor::{Sensor, call, enrol, grant, greet};
use crate::wire::code;
use crate::wire::message::{Lane, Message};
use crate::wire::method::{ENROL, STATUS};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "an_older_tls_is_refused",
        &["PLN-001"],
        "A handshake of TLS 1.2 ends with an alert, never with a server's hello.",
        an_older_tls_is_refused,
    ),
    case(
        "nothing_is_resumed",
        &["PLN-001"],
        "A second handshake is a full one, and early data is not taken, on both planes.",
        nothing_is_resumed,
    ),
    case(
        "an_unknown_plane_is_refused_in_the_handshake",
        &["PLN-002"],
        "A peer that offers no name of the listener gets no connection.",
        an_unknown_plane_is_refused_in_the_handshake,
    ),
    case(
        "the_server_names_itself",
        &["PLN-003"],
        "The server's certificate has one URI: of its deployment and role.",
        the_server_names_itself,
    ),
    case(
        "a_stranger_is_refused",
        &["PLN-002", "PLN-003"],
        "On the sensor plane a client without a certificate, or with one of another authority, is \
         refused before Hello.",
        a_stranger_is_refused,
    ),
    case(
        "another_role_is_refused",
        &["PLN-002", "PLN-003"],
        "A certificate of another role or deployment, of no name or of two, or of a time that is \
         over, is refused on the sensor plane.",
        another_role_is_refused,
    ),
    in_phase(
        case(
            "a_slow_handshake_is_closed",
            &["PLN-007"],
            "A connection that says nothing, or drips, is closed within seconds.",
            a_slow_handshake_is_closed,
        ),
        Phase::Slow,
    ),
    case(
        "a_long_handshake_is_closed",
        &["PLN-007"],
        "A handshake without end is closed after its bound of bytes.",
        a_long_handshake_is_closed,
    ),
    case(
        "an_enrolment_gives_an_identity",
        &["REG-001", "REG-005", "PLN-003"],
        "The certificate is for the key that was sent, signed by the CA, for thirty days.",
        an_enrolment_gives_an_identity,
    ),
    case(
        "of_a_request_only_the_key_counts",
        &["REG-001", "PLN-003"],
        "A request that names another role, id and deployment gets none of them.",
        of_a_request_only_the_key_counts,
    ),
    case(
        "the_same_id_with_another_key_is_refused",
        &["HEL-026"],
        "A certificate of another key for a known sensor is refused before Hello, and the sensor \
         goes on.",
        the_same_id_with_another_key_is_refused,
    ),
    case(
        "the_same_key_is_the_same_sensor",
        &["REG-003", "CAL-005"],
        "An enrolment said again gives the same id; another key gets another.",
        the_same_key_is_the_same_sensor,
    ),
    case(
        "a_bad_token_is_refused",
        &["REG-003", "CAL-002"],
        "A wrong token is `bad_token`, and the text says so for a person.",
        a_bad_token_is_refused,
    ),
    case(
        "a_request_that_is_not_sound_is_refused",
        &["REG-001"],
        "A signing request whose signature does not hold is refused.",
        a_request_that_is_not_sound_is_refused,
    ),
    case(
        "the_enrol_plane_does_nothing_else",
        &["CAL-004", "FRM-008"],
        "There another method is refused, and a Hello is out of place.",
        the_enrol_plane_does_nothing_else,
    ),
];

/// A connection on the enrol plane.
pub(super) fn enrol_link(cx: &Context<'_>) -> Result<Link, Stop> {
    let config = tls::client(&cx.target.roots, &[tls::ENROL], None)
        .map_err(|error| Stop::Fail(error.to_string()))?;
    Link::connect(cx.target.enrolment, &config).map_err(Stop::Fail)
}

/// A ClientHello of TLS 1.2: version 3.3, two suites, ALPN of the sensor plane, no
/// `supported_versions`.
fn client_hello_of_tls12() -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend([0, 10, 0, 4, 0, 2, 0, 23]); // supported_groups: secp256r1
    extensions.extend([0, 11, 0, 2, 1, 0]); // ec_point_formats: uncompressed
    extensions.extend([0, 13, 0, 6, 0, 4, 4, 3, 8, 4]); // signature_algorithms
    let name = tls::SENSOR.as_bytes();
    let one = u8::try_from(name.len()).unwrap_or(0);
    extensions.extend([0, 16, 0, one + 3, 0, one + 1, one]);
    extensions.extend(name);
    let mut hello = vec![3, 3];
    hello.extend([0x5a; 32]);
    hello.push(0);
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM
    hello.extend([1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap_or(0).to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![22, 3, 1];
    let length = u16::try_from(hello.len() + 4).unwrap_or(0);
    record.extend(length.to_be_bytes());
    record.extend([1, 0]);
    record.extend((length - 4).to_be_bytes());
    record.extend(hello);
    record
}

fn an_older_tls_is_refused(cx: &mut Context<'_>) -> Checked {
    for address in [cx.target.address, cx.target.enrolment] {
        let mut socket = socket(address)?;
        socket.write_all(&client_hello_of_tls12()).map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.read(&mut buffer) {
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&buffer[..length]);
        }
        let is_alert = answer.is_empty() || answer.first() == Some(&21);
        ensure!(is_alert, "PLN-001: TLS 1.2 was answered with {:02x?}", answer.first_chunk::<8>());
    }
    Ok(())
}

fn nothing_is_resumed(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let log = sensor.log(Lane::Bulk, cx.id());
    for _ in 0..3 {
        // The same configuration each time: what the server offers for later is used.
        let (mut link, _) = cx.session(&sensor, &[&log])?;
        link.settle()?;
        let (resumed, early) = link.resumed();
        ensure!(!resumed, "PLN-001: a session of the sensor plane was resumed");
        ensure!(!early, "PLN-001: early data was taken");
    }
    let config = tls::client(&cx.target.roots, &[tls::ENROL], None)
        .map_err(|error| Stop::Fail(error.to_string()))?;
    for _ in 0..3 {
        let mut link = Link::connect(cx.target.enrolment, &config)?;
        let _ = call(&mut link, 1, 4_000, &[]);
        ensure!(link.resumed() == (false, false), "PLN-001: the enrol plane was resumed");
    }
    Ok(())
}

fn an_unknown_plane_is_refused_in_the_handshake(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let names: [&[&str]; 4] =
        [&["lapwing-sensor/2"], &["lapwing-sensor"], &["smtp", "lapwing-sensor/11"], &[tls::PEER]];
    for planes in names {
        let config = tls::client(&cx.target.roots, planes, Some(&sensor.credentials))
            .map_err(|error| Stop::Fail(error.to_string()))?;
        let connected = Link::connect(cx.target.address, &config);
        if let Ok(link) = connected {
            let plane = link.plane();
            ensure!(false, "PLN-002: {planes:?} was let in, as {plane:?}");
        }
    }
    // One that is known among others is chosen.
    let planes = ["lapwing-sensor/2", tls::SENSOR];
    let config = tls::client(&cx.target.roots, &planes, Some(&sensor.credentials))
        .map_err(|error| Stop::Fail(error.to_string()))?;
    let link = Link::connect(cx.target.address, &config)?;
    let chosen = link.plane();
    equal!(chosen.as_deref(), Some(tls::SENSOR), "PLN-002: the plane that was chosen");
    Ok(())
}

fn the_server_names_itself(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let log = sensor.log(Lane::Bulk, cx.id());
    let (link, ack) = cx.session(&sensor, &[&log])?;
    let certificate = link.peer_certificate().ok_or("PLN-003: no certificate")?;
    let found = Identity::of_certificate(&certificate)
        .map_err(|error| Stop::Fail(format!("PLN-003: {error}")))?;
    equal!(found.role.as_str(), "detection", "PLN-003: the role of the server");
    equal!(found.deployment, sensor.deployment, "PLN-003: the deployment of the server");
    equal!(found.id, ack.server, "PLN-003: the id of certificate and HelloAck");
    Ok(())
}

/// Whether a connection with these credentials gets as far as a HelloAck.
fn gets_in(cx: &Context<'_>, sensor: &Sensor, own: Option<&Credentials>) -> Result<bool, Stop> {
    let config = tls::client(&cx.target.roots, &[tls::SENSOR], own)
        .map_err(|error| Stop::Fail(error.to_string()))?;
    let Ok(mut link) = Link::connect(cx.target.address, &config) else { return Ok(false) };
    link.send(sensor.hello(&[]));
    match link.next(PATIENCE) {
        Got::Frame(frame) => Ok(!matches!(Message::decode(&frame), Ok(Some(Message::Refused(_))))),
        Got::Closed(_) => Ok(false),
        Got::Silence => Err(Stop::Fail("the server neither answers nor closes".into())),
    }
}

fn a_stranger_is_refused(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    ensure!(gets_in(cx, &sensor, Some(&sensor.credentials))?, "the case itself is at fault");
    ensure!(!gets_in(cx, &sensor, None)?, "PLN-002: a client without a certificate was let in");
    let foreign = Authority::create("somebody else").map_err(|error| error.to_string())?;
    let uri = Identity { deployment: sensor.deployment, role: "sensor".into(), id: sensor.id };
    let forged =
        foreign.issue(&[uri.to_string()], Usage::Client).map_err(|error| error.to_string())?;
    let is_in = gets_in(cx, &sensor, Some(&forged))?;
    ensure!(!is_in, "PLN-003: a certificate of an authority that nobody trusts was let in");
    Ok(())
}

fn another_role_is_refused(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let mut tried = 0;
    for (name, credentials) in &cx.target.identities {
        if name.starts_with("sensor") {
            continue;
        }
        tried += 1;
        let is_in = gets_in(cx, &sensor, Some(credentials))?;
        ensure!(!is_in, "PLN-003: the certificate {name}.pem was let in on the sensor plane");
    }
    if tried == 0 {
        return Err(Stop::Skip("--identities is not given: only sensors can be had".into()));
    }
    Ok(())
}

/// Whether the server closes a plain connection within `limit`, while `act` does something to it
/// again and again.
fn closes_within(
    address: SocketAddr,
    limit: Duration,
    mut act: impl FnMut(&mut TcpStream, usize) -> std::io::Result<()>,
) -> Result<bool, String> {
    let mut socket = socket(address)?;
    let pause = Duration::from_millis(300);
    socket.set_read_timeout(Some(pause)).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + limit;
    let mut round = 0;
    while Instant::now() < deadline {
        if act(&mut socket, round).is_err() {
            return Ok(true);
        }
        round += 1;
        match socket.read(&mut [0; 512]) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

fn a_slow_handshake_is_closed(cx: &mut Context<'_>) -> Checked {
    let limit = Duration::from_secs(60);
    let silent = closes_within(cx.target.address, limit, |_, _| Ok(()))?;
    ensure!(silent, "PLN-007: a connection that says nothing is open after {limit:?}");
    let hello = client_hello_of_tls12();
    let dripped = closes_within(cx.target.address, limit, |socket, round| {
        let byte = hello.get(round % hello.len()).copied().unwrap_or(0);
        if round + 1 < hello.len() { socket.write_all(&[byte]) } else { Ok(()) }
    })?;
    ensure!(dripped, "PLN-007: a handshake that drips is open after {limit:?}");
    Ok(())
}

fn a_long_handshake_is_closed(cx: &mut Context<'_>) -> Checked {
    // Handshake records of one message that is said to be 16 MiB long.
    let mut record = vec![22, 3, 3, 0x40, 0];
    record.extend(vec![0; 0x4000]);
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let mut sent = 0;
    let limit = Duration::from_secs(30);
    let closed = closes_within(cx.target.address, limit, |socket, round| {
        sent += record.len();
        socket.write_all(if round == 0 { &first } else { &record })
    })?;
    ensure!(closed, "PLN-007: a handshake of {sent} bytes is still read");
    Ok(())
}

fn an_enrolment_gives_an_identity(cx: &mut Context<'_>) -> Checked {
    let request = Request::create().map_err(|error| error.to_string())?;
    let found = enrol(cx.target.enrolment, &cx.target.roots, &cx.target.token, &request.der)?;
    let enrolled = found.map_err(|(code, text)| format!("{}: {text}", code::name(code)))?;
    equal!(enrolled.authority, cx.target.authority, "REG-002: the CA of the reply");
    let identity = Identity::of_certificate(&enrolled.certificate)?;
    let expected =
        format!("lapwing://{}/sensor/{}", hex(&enrolled.deployment), hex(&enrolled.sensor));
    equal!(identity.to_string(), expected, "PLN-003: the sensor's URI");
    let der = CertificateDer::from(enrolled.certificate.clone());
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
    let end_ms = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0) * 1_000;
    ensure!(
        end_ms.abs_diff(enrolled.not_after_ms) < 2_000,
        "REG-005: the certificate ends at {end_ms}, the reply says {}",
        enrolled.not_after_ms
    );
    let sensor = Sensor::with(&enrolled, &request.key, &cx.target.roots)?;
    let log = sensor.log(Lane::Bulk, cx.id());
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let days = enrolled.not_after_ms.saturating_sub(ack.server_ms) / 86_400_000;
    ensure!((28..=30).contains(&days), "REG-005: the certificate lasts {days} days");
    Ok(())
}

fn of_a_request_only_the_key_counts(cx: &mut Context<'_>) -> Checked {
    let [foreign, server] = ["sensor", "ctl"].map(|role| {
        let id = Identity { deployment: [0xd7; 16], role: role.into(), id: [0xe7; 16] };
        id.to_string()
    });
    let request = Request::naming(&[foreign, server]).map_err(|error| error.to_string())?;
    let found = enrol(cx.target.enrolment, &cx.target.roots, &cx.target.token, &request.der)?;
    // A server may refuse a request that asks for names; it may not give them.
    let Ok(enrolled) = found else { return Ok(()) };
    let identity = Identity::of_certificate(&enrolled.certificate)
        .map_err(|error| Stop::Fail(format!("REG-001: of a request that names others: {error}")))?;
    equal!(identity.role.as_str(), "sensor", "REG-001: the role of who asked to be another");
    equal!(identity.id, enrolled.sensor, "REG-001: the id of who asked to be another");
    equal!(identity.deployment, enrolled.deployment, "REG-001: the deployment");
    Ok(())
}

fn the_same_id_with_another_key_is_refused(cx: &mut Context<'_>) -> Checked {
    let log = cx.id();
    let (own, other) = (cx.lent("sensor")?, cx.lent("sensor-twin")?);
    let sensor = cx.sensor_of(own)?;
    let mut log = sensor.log(Lane::Bulk, log);
    let mut first = cx.connect_as(own)?;
    greet(&mut first, sensor.hello(&[&log]))?;
    store(&mut first, &[log.fact()])?;
    let mut second = cx.connect_as(other)?;
    second.send(sensor.hello(&[&log]));
    refused(cx, &mut second, code::REVOKED, "HEL-026: another key for the same id")?;
    store(&mut first, &[log.fact()])?;
    drop(first);
    log.acked = 2;
    let ack = greet(&mut cx.connect_as(own)?, sensor.hello(&[&log]))?;
    equal!(grant(&ack, Lane::Bulk)?.next_seq, 3, "HEL-026: the sensor itself goes on");
    Ok(())
}

fn the_same_key_is_the_same_sensor(cx: &mut Context<'_>) -> Checked {
    let once = |request: &Request| -> Result<[u8; 16], Stop> {
        let found = enrol(cx.target.enrolment, &cx.target.roots, &cx.target.token, &request.der)?;
        let enrolled = found.map_err(|(code, text)| format!("{}: {text}", code::name(code)))?;
        Ok(enrolled.sensor)
    };
    let [one, other] = [Request::create(), Request::create()];
    let (one, other) = (one.map_err(|e| e.to_string())?, other.map_err(|e| e.to_string())?);
    let first = once(&one)?;
    equal!(once(&one)?, first, "REG-003: the id of a key that enrols again");
    ensure!(once(&other)? != first, "REG-003: two keys have one id");
    Ok(())
}

fn a_bad_token_is_refused(cx: &mut Context<'_>) -> Checked {
    let request = Request::create().map_err(|error| error.to_string())?;
    for token in ["", "wrong", &format!("{}x", cx.target.token), &cx.target.token.to_uppercase()] {
        if token == cx.target.token {
            continue;
        }
        let found = enrol(cx.target.enrolment, &cx.target.roots, token, &request.der)?;
        match found {
            Ok(_) => ensure!(false, "REG-003: the token {token:?} enrols"),
            Err((code, text)) => {
                equal!(code::name(code), "bad_token", "REG-003: the code");
                ensure!(!text.is_empty(), "CAL-002: no text for a person");
            }
        }
    }
    Ok(())
}

fn a_request_that_is_not_sound_is_refused(cx: &mut Context<'_>) -> Checked {
    let request = Request::create().map_err(|error| error.to_string())?;
    let mut forged = request.der.clone();
    if let Some(last) = forged.last_mut() {
        *last ^= 1; // the end of the signature
    }
    for (what, der) in
        [("a wrong signature", forged), ("no request", vec![1, 2, 3]), ("nothing", Vec::new())]
    {
        let found = enrol(cx.target.enrolment, &cx.target.roots, &cx.target.token, &der)?;
        match found {
            Ok(_) => ensure!(false, "REG-001: {what} enrols"),
            Err((code, _)) => {
                let expected = code::name(code::BAD_REQUEST_FOR_CERTIFICATE);
                equal!(code::name(code), expected, "REG-001: {what}");
            }
        }
    }
    Ok(())
}

fn the_enrol_plane_does_nothing_else(cx: &mut Context<'_>) -> Checked {
    let mut link = enrol_link(cx)?;
    let (code, _) = call(&mut link, 1, STATUS, &[])?;
    let is_refused = code == code::UNSUPPORTED || code == code::FORBIDDEN;
    ensure!(is_refused, "CAL-004: `status` on the enrol plane is {}", code::name(code));
    let (code, _) = call(&mut link, 2, ENROL, &[0xff])?;
    equal!(code::name(code), "malformed", "FRM-004: a request that does not decode");
    let sensor = cx.sensor()?;
    let mut link = enrol_link(cx)?;
    let hello = sensor.hello(&[]);
    if greet(&mut link, hello).is_ok() {
        ensure!(false, "FRM-008: a Hello on the enrol plane is answered");
    }
    ensure!(is_closed(&mut link), "FRM-008: a Hello on the enrol plane does not close it");
    Ok(())
}
