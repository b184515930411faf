//! What a case against a server has at hand: the target, identities of its own, chance.
//!
//! Invariant: two cases share nothing but the target, so that they can run beside each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use sha2::{Digest as _, Sha256};

use super::process::Process;
use crate::cases::Stop;
use crate::crypto::identity::{Credentials, Identity};
use crate::crypto::tls;
use crate::play::link::{Link, PATIENCE};
use crate::play::log::Log;
use crate::play::sensor::Sensor;
use crate::play::wait;
use crate::wire::message::{HelloAck, Id, Lane};

/// The server under test, and what the operator lent for looking at it.
pub struct Target {
    /// Where sensors connect.
    pub address: SocketAddr,
    /// Where sensors enrol; `address` where it does that itself.
    pub enrolment: SocketAddr,
    /// A Registration server.
    pub registration: Option<SocketAddr>,
    /// The console of the Detection server.
    pub console: Option<SocketAddr>,
    /// The authority that signed it.
    pub roots: Arc<RootCertStore>,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// The enrolment token.
    pub token: String,
    /// Certificates of other roles, by the names of their files.
    pub identities: Vec<(String, Credentials)>,
    /// How many sensors the server takes, where it is said.
    pub capacity: Option<usize>,
    /// How the server is killed and started again.
    pub process: Option<Box<dyn Process>>,
    /// Where chance begins.
    pub seed: u64,
}

/// What a case has at hand.
pub struct Context<'t> {
    /// The server under test.
    pub target: &'t Target,
    /// What was only weak.
    pub weak: Vec<String>,
    name: &'static str,
    drawn: u64,
}

impl<'t> Context<'t> {
    /// For the case of that name.
    #[must_use]
    pub fn new(target: &'t Target, name: &'static str) -> Self {
        Self { target, weak: Vec::new(), name, drawn: 0 }
    }

    /// Sixteen bytes that nobody else has: of the seed, the case, and how often it asked.
    pub fn id(&mut self) -> Id {
        self.drawn += 1;
        let mut hash = Sha256::new();
        hash.update(self.target.seed.to_le_bytes());
        hash.update(self.name.as_bytes());
        hash.update(self.drawn.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        id
    }

    /// A SHOULD is missed.
    pub fn weak(&mut self, text: impl Into<String>) {
        self.weak.push(text.into());
    }

    /// A new sensor.
    ///
    /// # Errors
    /// It cannot enrol.
    pub fn sensor(&self) -> Result<Sensor, Stop> {
        let Target { enrolment, roots, token, .. } = self.target;
        Sensor::enrol(*enrolment, roots, token).map_err(Stop::Fail)
    }

    /// A new sensor with an empty log of one lane.
    ///
    /// # Errors
    /// It cannot enrol.
    pub fn sensor_with(&mut self, lane: Lane) -> Result<(Sensor, Log), Stop> {
        let sensor = self.sensor()?;
        let log = sensor.log(lane, self.id());
        Ok((sensor, log))
    }

    /// A session of `sensor` with `logs`.
    ///
    /// # Errors
    /// It is not answered.
    pub fn session(&self, sensor: &Sensor, logs: &[&Log]) -> Result<(Link, HelloAck), Stop> {
        sensor.session(self.target.address, logs).map_err(Stop::Fail)
    }

    /// A new sensor with a bulk log, in a session.
    ///
    /// # Errors
    /// It cannot enrol, or is not answered.
    pub fn bulk(&mut self) -> Result<(Sensor, Log, Link, HelloAck), Stop> {
        let (sensor, log) = self.sensor_with(Lane::Bulk)?;
        let (link, ack) = self.session(&sensor, &[&log])?;
        Ok((sensor, log, link, ack))
    }

    /// A connection of `sensor` without a Hello.
    ///
    /// # Errors
    /// There is none.
    pub fn connect(&self, sensor: &Sensor) -> Result<Link, Stop> {
        sensor.connect(self.target.address).map_err(Stop::Fail)
    }

    /// The sensor that a certificate was lent for. All but its names is that of one which enrols.
    ///
    /// # Errors
    /// The certificate names no sensor.
    pub fn sensor_of(&self, credentials: &Credentials) -> Result<Sensor, Stop> {
        let mut sensor = self.sensor()?;
        let identity = Identity::of_certificate(&credentials.certificate)?;
        (sensor.id, sensor.deployment) = (identity.id, identity.deployment);
        Ok(sensor)
    }

    /// A connection to the sensor plane with a certificate that was lent.
    ///
    /// # Errors
    /// There is none.
    pub fn connect_as(&self, credentials: &Credentials) -> Result<Link, Stop> {
        let config = tls::client(&self.target.roots, &[tls::SENSOR], Some(credentials))
            .map_err(|error| Stop::Fail(error.to_string()))?;
        Link::connect(self.target.address, &config).map_err(Stop::Fail)
    }

    /// The certificate that was lent under that name.
    ///
    /// # Errors
    /// A skip: it was not.
    pub fn lent(&self, name: &str) -> Result<&'t Credentials, Stop> {
        let found = self.target.identities.iter().find(|(known, _)| known == name);
        found.map(|(_, credentials)| credentials).ok_or_else(|| {
            Stop::Skip(format!("--identities has no {name}.pem with {name}-key.pem"))
        })
    }

    /// A connection to the console with the certificate of that name.
    ///
    /// # Errors
    /// A skip where console or certificate are not given.
    pub fn console(&self, name: &str) -> Result<Link, Stop> {
        let address = self.target.console.ok_or_else(|| {
            Stop::Skip("--console is not given: what was stored cannot be looked at".into())
        })?;
        let credentials = self.lent(name)?;
        let config = tls::client(&self.target.roots, &[tls::PEER], Some(credentials))
            .map_err(|error| Stop::Fail(error.to_string()))?;
        // A server that has just been started may open it after the port of the sensors.
        let mut last = Err("there was no time".to_owned());
        let _ = wait::attempt(PATIENCE, || {
            last = Link::connect(address, &config);
            last.is_ok().then_some(())
        });
        last.map_err(Stop::Fail)
    }

    /// What kills the server.
    ///
    /// # Errors
    /// A skip: there is none.
    pub fn process(&self) -> Result<&'t dyn Process, Stop> {
        self.target.process.as_deref().ok_or_else(|| {
            Stop::Skip(
                "neither --server-cmd nor --restart-cmd is given: it cannot be killed".into(),
            )
        })
    }
}

/// A moment in which nothing must come.
pub const MOMENT: Duration = Duration::from_millis(400);
