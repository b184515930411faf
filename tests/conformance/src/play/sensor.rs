//! A sensor as a case plays it: enrolled by itself, with an identity of its own.
//!
//! Not here: what it sends (`log.rs` builds, cases choose).

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::link::Link;
use super::log::{BOOT, Log};
use crate::crypto::identity::{Credentials, Identity, Request};
use crate::crypto::tls;
use crate::wire::message::{
    Ack, Call, Hello, HelloAck, Id, Lane, LogGrant, Memory, Message, Reply,
};
use crate::wire::method::{ENROL, EnrolRequest, Enrolled};
use crate::wire::primitive::Wire as _;

/// A sensor with its certificate.
#[derive(Clone)]
pub struct Sensor {
    /// Its id.
    pub id: Id,
    /// Its deployment.
    pub deployment: Id,
    /// Its certificate and key.
    pub credentials: Credentials,
    config: Arc<ClientConfig>,
}

impl Sensor {
    /// Enrols with a new key.
    ///
    /// # Errors
    /// The server does not enrol; the text says why.
    pub fn enrol(
        address: SocketAddr,
        roots: &Arc<RootCertStore>,
        token: &str,
    ) -> Result<Self, String> {
        let request = Request::create().map_err(|error| error.to_string())?;
        let enrolled = enrol(address, roots, token, &request.der)?
            .map_err(|(code, text)| format!("enrolment: code {code}: {text}"))?;
        Self::with(&enrolled, &request.key, roots)
    }

    /// A sensor of an enrolment's answer.
    ///
    /// # Errors
    /// The certificate cannot be used, or names somebody else.
    pub fn with(
        enrolled: &Enrolled,
        key: &[u8],
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, String> {
        let identity = Identity::of_certificate(&enrolled.certificate)?;
        let expected = Identity {
            deployment: enrolled.deployment,
            role: "sensor".into(),
            id: enrolled.sensor,
        };
        if identity != expected {
            return Err(format!("the certificate is of {identity}, not of {expected}"));
        }
        let credentials = Credentials {
            certificate: enrolled.certificate.clone(),
            certificate_pem: String::new(),
            key: key.to_vec(),
            key_pem: String::new(),
        };
        let config = tls::client(roots, &[tls::SENSOR], Some(&credentials))
            .map_err(|error| error.to_string())?;
        Ok(Self { id: enrolled.sensor, deployment: enrolled.deployment, credentials, config })
    }

    /// A connection on the sensor plane.
    ///
    /// # Errors
    /// There is none.
    pub fn connect(&self, address: SocketAddr) -> Result<Link, String> {
        Link::connect(address, &self.config)
    }

    /// A new log of this sensor.
    #[must_use]
    pub fn log(&self, lane: Lane, log: Id) -> Log {
        Log::new(&self.deployment, &self.id, lane, log)
    }

    /// A sound Hello of `logs`.
    #[must_use]
    pub fn hello(&self, logs: &[&Log]) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            capabilities: Vec::new(),
            agent: "lapwing-conformance/1".into(),
            name: "conformance".into(),
            os: "none".into(),
            boot: BOOT,
            receive_bytes_max: 16_640,
            memory: Memory::Disk,
            collecting: true,
            last_command: None,
            logs: logs.iter().map(|log| log.head()).collect(),
        }
    }

    /// Connects and says a sound Hello.
    ///
    /// # Errors
    /// It is not answered by a HelloAck.
    pub fn session(&self, address: SocketAddr, logs: &[&Log]) -> Result<(Link, HelloAck), String> {
        let mut link = self.connect(address)?;
        let ack = greet(&mut link, self.hello(logs))?;
        Ok((link, ack))
    }
}

/// Says `hello` and waits for the answer.
///
/// # Errors
/// It is not a HelloAck.
pub fn greet(link: &mut Link, hello: Hello) -> Result<HelloAck, String> {
    link.send(hello);
    link.wait_for("a HelloAck", |message| match message {
        Message::HelloAck(ack) => Some(ack.clone()),
        _ => None,
    })
}

/// The grant of a lane.
///
/// # Errors
/// There is none.
pub fn grant(ack: &HelloAck, lane: Lane) -> Result<&LogGrant, String> {
    let found = ack.logs.iter().find(|grant| grant.lane == lane);
    found.ok_or_else(|| format!("HEL-007: the HelloAck grants nothing to lane {lane:?}"))
}

/// Waits until `seq` of a lane is acknowledged.
///
/// # Errors
/// It is not, in time.
pub fn acked(link: &mut Link, lane: Lane, seq: u64) -> Result<Ack, String> {
    link.wait_for(&format!("an Ack of lane {lane:?} up to {seq}"), |message| match message {
        Message::Ack(ack) if ack.lane == lane && ack.stored_seq >= seq => Some(ack.clone()),
        _ => None,
    })
}

/// Asks for an enrolment: the answer, or code and text of a refusal.
///
/// # Errors
/// There is no connection, or no answer to the call.
pub fn enrol(
    address: SocketAddr,
    roots: &Arc<RootCertStore>,
    token: &str,
    request: &[u8],
) -> Result<Result<Enrolled, (u16, String)>, String> {
    let config = tls::client(roots, &[tls::ENROL], None).map_err(|error| error.to_string())?;
    let mut link = Link::connect(address, &config)?;
    let asked = EnrolRequest {
        token: token.into(),
        request: request.to_vec(),
        name: "conformance".into(),
        os: "none".into(),
        machine_id: [0x77; 32],
    };
    let (code, body) = call(&mut link, 1, ENROL, &asked.to_bytes())?;
    if code != 0 {
        return Ok(Err((code, String::from_utf8_lossy(&body).into_owned())));
    }
    let enrolled = Enrolled::from_bytes(&body).map_err(|error| format!("Enrolled: {error}"))?;
    Ok(Ok(enrolled))
}

/// Calls a method and puts the parts of the reply together: its code and body.
///
/// # Errors
/// The reply does not come.
pub fn call(
    link: &mut Link,
    number: u32,
    method: u16,
    body: &[u8],
) -> Result<(u16, Vec<u8>), String> {
    link.send(Call { call: number, method, body: body.to_vec() });
    let mut whole = Vec::new();
    loop {
        let part =
            link.wait_for(&format!("a Reply to method {method}"), |message| match message {
                Message::Reply(reply) if reply.call == number => Some(reply.clone()),
                _ => None,
            })?;
        let Reply { more, code, body, .. } = part;
        whole.extend(body);
        if !more {
            return Ok((code, whole));
        }
    }
}
