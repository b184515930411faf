//! What a case against a sensor has at hand: a deployment of its own, made for it alone.
//!
//! Invariant: two cases share nothing but the command, so that they can run beside each other.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::subject::{STATE, Subject};
use crate::cases::Stop;
use crate::crypto::authority::Authority;
use crate::crypto::identity::hex;
use crate::crypto::tls;
use crate::play::desk::Registration;
use crate::play::station::Station;
use crate::wire::message::{Id, Lane};
use crate::wire::method::Assignment;

/// The sensor under test.
pub struct Target {
    /// The command that is a sensor.
    pub command: String,
    /// Where chance begins.
    pub seed: u64,
}

/// What a case has at hand.
pub struct Context {
    /// The sensor; not started yet.
    pub subject: Subject,
    /// Registration, which sends it to `a`.
    pub registration: Registration,
    /// The Detection server it is assigned to.
    pub a: Station,
    /// Another one.
    pub b: Station,
    /// The authority of all three.
    pub authority: Arc<Authority>,
    /// Its certificate as whom to trust.
    pub roots: Arc<RootCertStore>,
    /// The deployment.
    pub deployment: Id,
    /// What was only weak.
    pub weak: Vec<String>,
    _folder: TempDir,
}

impl Context {
    /// A deployment for the case of that name.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(target: &Target, name: &str) -> Result<Self, String> {
        let id = |what: &str| -> Id {
            let seed = target.seed.to_le_bytes();
            let parts: [&[u8]; 3] = [&seed, name.as_bytes(), what.as_bytes()];
            let hash = parts.into_iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
            let mut id = [0; 16];
            id.copy_from_slice(&hash.finalize()[..16]);
            id
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let authority =
            Arc::new(Authority::create("conformance").map_err(|error| error.to_string())?);
        let roots = tls::roots(&authority.certificate_der).map_err(|error| error.to_string())?;
        let (deployment, sensor, token) = (id("deployment"), id("sensor"), hex(&id("token")));
        let registration = Registration::open(
            &authority,
            &roots,
            (deployment, id("registration"), sensor),
            &token,
        )?;
        let a = Station::open(&authority, &roots, (deployment, id("a"), sensor))?;
        let b = Station::open(&authority, &roots, (deployment, id("b"), sensor))?;
        let (ca, state) = (folder.path().join("ca.pem"), folder.path().join("state"));
        std::fs::write(&ca, &authority.certificate_pem).map_err(|error| error.to_string())?;
        let environment = vec![
            ("LAPWING_REGISTRATION", registration.address.to_string()),
            ("LAPWING_CA", ca.display().to_string()),
            ("LAPWING_TOKEN", token),
            (STATE, state.display().to_string()),
            ("LAPWING_STDIN", "yes".into()),
        ];
        let subject = Subject::new(&target.command, folder.path(), environment);
        let weak = Vec::new();
        let _folder = folder;
        let mut this =
            Self { subject, registration, a, b, authority, roots, deployment, weak, _folder };
        this.assign_to_a();
        Ok(this)
    }

    /// From now on Registration sends the sensor to `a`.
    pub fn assign_to_a(&mut self) {
        let assignment = assignment(&self.a);
        self.registration.known().assignment = Some(assignment);
    }

    /// From now on Registration sends the sensor to `b`.
    pub fn assign_to_b(&mut self) {
        let assignment = assignment(&self.b);
        self.registration.known().assignment = Some(assignment);
    }

    /// Starts the sensor and greets it at `a`.
    ///
    /// # Errors
    /// It does not come, or not as it must.
    pub fn online(&mut self) -> Result<(), Stop> {
        self.subject.start()?;
        self.a.welcome()?;
        Ok(())
    }

    /// Kills the sensor where it runs and starts it again. What it had begun to dial is forgotten.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<(), Stop> {
        self.subject.kill();
        for station in [&mut self.a, &mut self.b] {
            station.cut();
            while station.is_wanted_within(Duration::ZERO) {}
        }
        self.subject.start().map_err(Stop::Fail)
    }

    /// Has `count` more chunks of the bulk lane made and taken at `a`.
    ///
    /// # Errors
    /// They do not come.
    pub fn chunks(&mut self, count: u64) -> Result<(), Stop> {
        for _ in 0..count {
            let (log, seen) = (self.a.log(Lane::Bulk)?, self.a.seen(Lane::Bulk));
            self.subject.event(FACTS);
            self.a.pump("a chunk of facts that were asked for", |station| {
                station.seen(Lane::Bulk) > seen || station.log(Lane::Bulk) != Ok(log)
            })?;
        }
        Ok(())
    }

    /// What a case saw of Registration that no sensor may do.
    ///
    /// # Errors
    /// There was something.
    pub fn registration_is_content(&self) -> Result<(), Stop> {
        match self.registration.known().faults.first() {
            Some(fault) => Err(Stop::Fail(fault.clone())),
            None => Ok(()),
        }
    }

    /// A SHOULD is missed.
    pub fn weak(&mut self, text: impl Into<String>) {
        self.weak.push(text.into());
    }
}

/// Facts that are asked for at once: enough for a chunk or two.
pub const FACTS: u64 = 20;

fn assignment(station: &Station) -> Assignment {
    Assignment { server: station.id, name: "played".into(), address: station.address.to_string() }
}
