//! Bad input: what no friend would send, to every port of a running platform. Each is refused, and
//! everything still answers, by the same processes.
//!
//! Not here: what messages decode to (`tests/corpus.rs`). No sensor runs: nothing here needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use lapwing_net::authority::{Authority, Usage};
use lapwing_net::clock;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane, connect};
use lapwing_protocol::id::{DeploymentId, SensorId, ServerId};
use lapwing_tests::platform::{PATIENCE, Platform, binary};
use lapwing_tests::wait;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn whatever_is_sent_to_a_port_everything_still_answers() {
    let platform = Platform::start(&["--no-sensor"]);
    let before = processes(&platform);
    let ports = ports(&platform);
    assert!(ports.len() >= 11, "every server has a port: {ports:?}");

    let half_open: Vec<TcpStream> = ports
        .iter()
        .flat_map(|(_, port)| std::iter::repeat_with(move || TcpStream::connect(port)).take(8))
        .map(|stream| stream.expect("it takes connections"))
        .collect();
    for (name, port) in &ports {
        for garbage in garbage() {
            send(*port, &garbage).unwrap_or_else(|error| panic!("{name} at {port}: {error}"));
        }
    }
    for (name, port) in &ports {
        foreign_certificates_are_refused(&platform, name, *port);
    }
    frames_over_the_limit_end_the_connection(&platform);

    still_answers(&platform);
    drop(half_open);
    assert_eq!(processes(&platform), before, "no server fell over");
    drop(platform.stop());
}

/// Every server's process, by name.
fn processes(platform: &Platform) -> BTreeMap<String, u64> {
    let rows = platform.rows(&["servers", "list"]);
    let process = |row: &serde_json::Value| {
        let name = row["name"].as_str().expect("a name").to_owned();
        assert_eq!(row["status"], "up", "{row}");
        (name, row["pid"].as_u64().expect("a process"))
    };
    rows.iter().map(process).collect()
}

/// Every address that the platform listens on, with the server's name.
fn ports(platform: &Platform) -> Vec<(String, SocketAddr)> {
    let ready = platform.ready();
    let metrics = ready["metrics"].as_object().expect("metrics of each server");
    let mut ports: Vec<(String, SocketAddr)> = metrics
        .iter()
        .map(|(name, url)| {
            let url = url.as_str().expect("a URL");
            let address = url.trim_start_matches("https://").trim_end_matches("/metrics");
            (name.clone(), address.parse().expect("an address"))
        })
        .collect();
    for server in ready["detection"].as_array().expect("Detection servers") {
        for port in ["console", "malware"] {
            let address = server[port].as_str().expect("an address");
            ports.push((format!("d1 {port}"), address.parse().expect("an address")));
        }
    }
    ports
}

/// Streams that are no TLS, or no good one.
fn garbage() -> Vec<Vec<u8>> {
    let noise = |seed: u32, length: usize| {
        let mut state = seed;
        let byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(byte).take(length).collect::<Vec<u8>>()
    };
    let mut hello_of_noise = vec![0x16, 3, 1, 0x40, 0];
    hello_of_noise.extend(noise(3, 0x4000));
    vec![
        Vec::new(),
        vec![0],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        noise(1, 100_000),
        vec![0xff; 70_000],
        // Records that promise more than comes.
        vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff],
        hello_of_noise,
    ]
}

/// Sends what is taken of `bytes`. That the other side hangs up is its right.
fn send(port: SocketAddr, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(port)?;
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    Ok(())
}

fn authority_file(platform: &Platform, name: &str) -> std::path::PathBuf {
    platform.folder().join("data/authority").join(name)
}

fn deployment(platform: &Platform) -> DeploymentId {
    let plan = std::fs::read_to_string(platform.folder().join("data/up.toml")).expect("a plan");
    let plan: toml::Table = toml::from_str(&plan).expect("TOML");
    plan["deployment"].as_str().and_then(|id| id.parse().ok()).expect("a deployment")
}

/// What a client shows that `authority` signed as `subject`, and that trusts the server.
fn credentials(authority: &Authority, subject: &PeerIdentity, trusted: &Path) -> Credentials {
    let leaf =
        authority.issue(clock::unix_ms(), subject, Usage::Client, HOUR).expect("a certificate");
    let trusted = std::fs::read_to_string(trusted).expect("the server's authority");
    Credentials::from_pem(&trusted, &leaf.certificate_pem, &leaf.key_pem).expect("credentials")
}

/// A client with the right names, signed by an authority that nobody here knows.
fn foreign_certificates_are_refused(platform: &Platform, name: &str, port: SocketAddr) {
    let stranger = Authority::create(clock::unix_ms(), "Stranger", HOUR).expect("an authority");
    let is_vendor = ["update", "intel_global"].contains(&name);
    let trusted =
        authority_file(platform, if is_vendor { "vendor.pem" } else { "organisation.pem" });
    let deployment = deployment(platform);
    let subjects = [
        (Plane::Sensor, PeerIdentity::of_sensor(deployment, SensorId([7; 16]))),
        (Plane::Peer, PeerIdentity::of_server(deployment, Role::Webapp, ServerId([7; 16]))),
    ];
    for (plane, subject) in subjects {
        let credentials = credentials(&stranger, &subject, &trusted);
        let tls = ClientTls::new(&credentials, plane, ExpectedPeer::default()).expect("TLS");
        let sent = smol::block_on(sent_until_closed(port, &tls, &[0; 64]));
        assert_eq!(sent, Ok(Vec::new()), "{name} answers a stranger on {}", plane.name());
    }
}

/// Frames that promise more than a frame may hold: before authentication, and after it.
fn frames_over_the_limit_end_the_connection(platform: &Platform) {
    let (_, registration) = ports(platform)
        .into_iter()
        .find(|(name, _)| name == "registration")
        .expect("a Registration server");
    let (_, detection) =
        ports(platform).into_iter().find(|(name, _)| name == "d1").expect("a Detection server");
    let trusted = authority_file(platform, "organisation.pem");
    let authority = Authority::load(&trusted, &authority_file(platform, "organisation-key.pem"))
        .expect("the organisation's authority");
    let subject = PeerIdentity::of_sensor(deployment(platform), SensorId([8; 16]));
    let ours = credentials(&authority, &subject, &trusted);
    let cases = [
        (registration, Plane::Enrol, 5_000_u16),
        (registration, Plane::Sensor, u16::MAX),
        (detection, Plane::Sensor, u16::MAX),
    ];
    for (port, plane, length) in cases {
        let tls = ClientTls::new(&ours, plane, ExpectedPeer::default()).expect("TLS");
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend([1, 0]);
        frame.resize(4 + usize::from(length), 0);
        let sent = smol::block_on(sent_until_closed(port, &tls, &frame));
        let said = sent.unwrap_or_else(|error| panic!("{} at {port}: {error}", plane.name()));
        // One who is let in is told why it is shown the door.
        let text = String::from_utf8_lossy(&said).into_owned();
        assert!(text.contains("bound") || text.contains("longer"), "{}: {text:?}", plane.name());
    }
}

/// Shakes hands, sends `bytes`, and reads until the other side closes; what it said.
async fn sent_until_closed(
    port: SocketAddr,
    tls: &ClientTls,
    bytes: &[u8],
) -> Result<Vec<u8>, String> {
    // A server may refuse within the handshake or after it: both are a refusal.
    let Ok(mut stream) = connect(port, tls, PATIENCE).await else { return Ok(Vec::new()) };
    let talking = async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let mut said = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(said),
                Ok(count) => said.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let late = async {
        smol::Timer::at(Instant::now() + PATIENCE).await;
        Err(String::from("it keeps the connection open"))
    };
    smol::future::or(talking, late).await
}

/// Each server is asked for something by the way that people use.
fn still_answers(platform: &Platform) {
    for question in [
        &["sensors", "list"][..],
        &["servers", "list"],
        &["malops", "list"],
        &["malware", "list"],
        &["tags", "get"],
        &["updates", "list"],
        &["reputation", "list"],
        &["reputation", "classify", "--ip", "192.0.2.1", "--global"],
        &["elements", "query", "machine"],
    ] {
        wait::until(&format!("an answer to {question:?}"), PATIENCE, || platform.try_ctl(question));
    }
}

#[test]
fn a_bad_configuration_is_told_by_file_line_key_and_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("detection.toml");
    let example = Command::new(binary()).args(["config", "example", "detection"]).output();
    let example = String::from_utf8(example.expect("it runs").stdout).expect("text");
    let cases = [
        (example.replacen("[detection]", "[detection]\nspeed = 3", 1), "`detection.speed`"),
        (example.replacen("role = \"detection\"", "role = \"dancer\"", 1), "`server.role`"),
        (format!("{example}\n[["), "not TOML"),
        (String::from("\u{0}\u{1}"), "not TOML"),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, &text).expect("written");
        for arguments in [["config", "check"], ["detection", "--config"]] {
            let output = Command::new(binary()).args(arguments).arg(&file).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("detection.toml") && said.contains(expected), "{said}");
            assert!(said.contains(';'), "it says what to do: {said}");
        }
    }
}
