//! A Registration server that the harness plays: it enrols one sensor, tells it where to go, and
//! remembers what it was asked.
//!
//! Not here: the sessions (`station.rs`). It answers by itself, on threads of its own that end with
//! it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{RootCertStore, ServerConfig};

use super::link::Link;
use crate::crypto::authority::{Authority, Usage};
use crate::crypto::identity::Identity;
use crate::crypto::tls::{self, Clients};
use crate::wire::code;
use crate::wire::message::{Call, Id, Message, Reply};
use crate::wire::method::{ASSIGN, AssignRequest, Assignment, ENROL, EnrolRequest, Enrolled};
use crate::wire::primitive::Wire as _;

const CALL_WAIT: Duration = Duration::from_secs(10);

/// What it knows and heard.
#[derive(Default)]
pub struct Known {
    /// The sensor, once it has enrolled.
    pub sensor: Option<Id>,
    /// Where it is sent; nobody: `all_full`.
    pub assignment: Option<Assignment>,
    /// It does not say where to go: whoever asks is cut off.
    pub is_mute: bool,
    /// Each time it asked, and with what.
    pub asked: Vec<(Instant, AssignRequest)>,
    /// What it did wrong.
    pub faults: Vec<String>,
}

struct Desk {
    authority: Arc<Authority>,
    deployment: Id,
    /// The id that the sensor gets.
    sensor: Id,
    token: String,
    known: Mutex<Known>,
    is_over: AtomicBool,
}

/// The server; it ends with this.
pub struct Registration {
    /// Where it listens.
    pub address: SocketAddr,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Registration {
    /// Opens it.
    ///
    /// # Errors
    /// There is no port, or no certificate.
    pub fn open(
        authority: &Arc<Authority>,
        roots: &Arc<RootCertStore>,
        (deployment, id, sensor): (Id, Id, Id),
        token: &str,
    ) -> Result<Self, String> {
        let uri = Identity { deployment, role: "registration".into(), id }.to_string();
        let own = authority.issue(&[uri], Usage::Server).map_err(|error| error.to_string())?;
        let config = tls::server(&own, &[tls::ENROL, tls::SENSOR], roots, Clients::All)
            .map_err(|error| error.to_string())?;
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let desk = Arc::new(Desk {
            authority: Arc::clone(authority),
            deployment,
            sensor,
            token: token.into(),
            known: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&desk);
        let thread = std::thread::spawn(move || serve(&listener, &config, &shared));
        Ok(Self { address, desk, thread: Some(thread) })
    }

    /// What it knows and heard.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.desk.known()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.desk.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address)); // wakes the listener
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, desk: &Arc<Desk>) {
    for socket in listener.incoming() {
        if desk.is_over() {
            return;
        }
        let (Ok(socket), config, desk) = (socket, Arc::clone(config), Arc::clone(desk)) else {
            continue;
        };
        std::thread::spawn(move || {
            if let Ok(link) = Link::accept(socket, &config)
                && let Err(fault) = answer(link, &desk)
            {
                desk.known().faults.push(fault);
            }
        });
    }
}

/// Answers the calls of one connection.
fn answer(mut link: Link, desk: &Desk) -> Result<(), String> {
    use super::link::Got;
    let plane = link.plane().ok_or("PLN-002: a connection to Registration without ALPN")?;
    loop {
        let frame = match link.next(CALL_WAIT) {
            Got::Frame(frame) => frame,
            Got::Closed(_) | Got::Silence => return Ok(()),
        };
        let message = Message::decode(&frame).map_err(|error| format!("FRM-004: {error}"))?;
        let Some(Message::Call(Call { call, method, body })) = message else {
            return Err(format!("FRM-008: kind {} at Registration", frame.kind));
        };
        if plane == tls::SENSOR && desk.known().is_mute {
            link.cut();
            return Ok(());
        }
        let (code, body) = match (plane.as_str(), method) {
            (tls::ENROL, ENROL) => enrol(desk, &body)?,
            (tls::SENSOR, ASSIGN) => assign(desk, &link, &body)?,
            (plane, method) => return Err(format!("method {method} is called on {plane}")),
        };
        link.send(Reply { call, more: false, code, body });
    }
}

fn enrol(desk: &Desk, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let asked = EnrolRequest::from_bytes(body).map_err(|error| format!("EnrolRequest: {error}"))?;
    if asked.token != desk.token {
        desk.known().faults.push("REG-002: another token came".into());
        return Ok((code::BAD_TOKEN, b"another token".to_vec()));
    }
    let (deployment, sensor) = (desk.deployment, desk.sensor);
    let uri = Identity { deployment, role: "sensor".into(), id: sensor }.to_string();
    let certificate = desk
        .authority
        .sign(&asked.request, &[uri])
        .map_err(|error| format!("REG-001: the request: {error}"))?;
    let enrolled = Enrolled {
        sensor,
        deployment,
        certificate,
        authority: desk.authority.certificate_der.clone(),
        not_after_ms: 4_000_000_000_000,
    };
    desk.known().sensor = Some(sensor);
    Ok((0, enrolled.to_bytes()))
}

fn assign(desk: &Desk, link: &Link, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let certificate = link.peer_certificate().ok_or("PLN-002: a sensor without a certificate")?;
    let identity = Identity::of_certificate(&certificate)?;
    if identity.id != desk.sensor || identity.role != "sensor" {
        return Err(format!("PLN-003: {identity} asks to be assigned"));
    }
    let asked =
        AssignRequest::from_bytes(body).map_err(|error| format!("AssignRequest: {error}"))?;
    let mut known = desk.known();
    known.asked.push((Instant::now(), asked));
    Ok(match &known.assignment {
        Some(assignment) => (0, assignment.to_bytes()),
        None => (code::ALL_FULL, b"nobody has room".to_vec()),
    })
}
