//! The parts of the shell one by one, for a program that drives sensor cores itself: enrolment,
//! the question to Registration, the connection, the lent memory, the clock.
//!
//! `lapwing-load` runs thousands of sensors in one process with them. A program that wants one
//! sensor takes [`crate::Agent`]. Not here: anything that the runner does not do the same way; each
//! part is the runner's own. Invariant: a private key never leaves the value that holds it.

use std::fmt;
use std::path::Path;

use lapwing_protocol::id::{DeploymentId, SensorId, ServerId};
use lapwing_protocol::registration::AssignReason;
use lapwing_sensor_core::{Now, Sizes, Storage};

use crate::enrol::{Enrolment, enrol_key};
use crate::runner::ask::{Credentials, Trouble};
use crate::runner::link::{Link, Progress};
use crate::runner::memory::Memory;
use crate::tls::Roots;

/// This moment, by the clocks a sensor goes by.
#[must_use]
pub fn now() -> Now {
    crate::clock::now()
}

/// Why a server was not reached or refused, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// How long the server wishes to be left alone, in milliseconds; 0 where it wishes nothing.
    pub retry_after_ms: u32,
    /// Which server, and why.
    pub text: String,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Unanswered {}

impl From<Trouble> for Unanswered {
    fn from(trouble: Trouble) -> Self {
        Self { retry_after_ms: trouble.retry_after_ms, text: trouble.text }
    }
}

/// Whom to enrol at, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Application<'a> {
    /// `host:port` of a Registration or Detection server.
    pub address: &'a str,
    /// The organisation's CA, a PEM file.
    pub ca_file: &'a Path,
    /// An enrolment token.
    pub token: &'a str,
    /// The name that servers show.
    pub name: &'a str,
}

/// An enrolled sensor: who it is and whom it trusts. Its key is in memory alone.
#[derive(Clone, Debug)]
pub struct Member(Credentials);

impl Member {
    /// Enrols with a fresh key.
    ///
    /// # Errors
    /// The CA file, the connection, the token or the answer is not as it should be.
    pub async fn enrol(application: &Application<'_>) -> Result<Self, Unanswered> {
        let Application { address, ca_file, token, name } = *application;
        let failed = |text: String| Unanswered { retry_after_ms: 0, text };
        let roots = Roots::load(ca_file)
            .map_err(|error| failed(format!("{}: {error}", ca_file.display())))?;
        let key = rcgen::KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let enrolment = Enrolment { address, roots: &roots, token, name };
        let identity = enrol_key(&key, &enrolment)
            .await
            .map_err(|error| failed(format!("server {address}: {error}")))?;
        Ok(Self(Credentials { identity, roots }))
    }

    /// Who it is.
    #[must_use]
    pub fn ids(&self) -> (DeploymentId, SensorId) {
        (self.0.identity.deployment, self.0.identity.sensor)
    }

    /// Asks the Registration servers at `addresses` in order for a Detection server.
    ///
    /// # Errors
    /// None of them answered, or one refused.
    pub async fn assign(
        self,
        addresses: Vec<String>,
        reason: AssignReason,
        trouble_with: Option<ServerId>,
    ) -> Result<Assigned, Unanswered> {
        let (assignment, traffic) = self.0.assign(addresses, reason, trouble_with).await?;
        Ok(Assigned { server: assignment.server, address: assignment.address, traffic })
    }

    /// Connects to the first Detection server of `addresses` that answers; `server` is the one that
    /// must, where one was assigned.
    ///
    /// # Errors
    /// None of them answered, or it is another server.
    pub async fn connect(
        self,
        addresses: Vec<String>,
        server: Option<ServerId>,
    ) -> Result<Connection, Unanswered> {
        let (stream, _) = self.0.connect(addresses, server).await?;
        Ok(Connection(Link::new(stream)))
    }
}

/// Where Registration sends a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The Detection server.
    pub server: ServerId,
    /// Its `host:port`.
    pub address: String,
    /// Bytes that the question took on the network, TLS included: sent, received.
    pub traffic: (u64, u64),
}

/// What a connection had to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Bytes came: [`Connection::received`].
    Received,
    /// Everything given was written.
    Written,
    /// It is gone, and why.
    Gone(String),
}

/// An open connection to a Detection server.
#[derive(Debug)]
pub struct Connection(Link);

impl Connection {
    /// Bytes sent and received, TLS included.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        self.0.traffic()
    }

    /// Whether more may be given to [`Self::send`]; beyond that the core is not asked for frames.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// Gives whole frames.
    pub fn send(&mut self, frames: &[u8]) {
        self.0.send(frames);
    }

    /// The bytes that came; they count as taken.
    pub fn received(&mut self) -> &[u8] {
        self.0.received()
    }

    /// Writes and reads until there is something to tell. May be dropped and called again.
    pub async fn progress(&mut self) -> Told {
        match self.0.progress().await {
            Progress::Received => Told::Received,
            Progress::Written => Told::Written,
            Progress::Gone(error) => Told::Gone(error.to_string()),
        }
    }

    /// Writes what is left and says goodbye, as far as two seconds allow; answers with the bytes
    /// sent and received.
    pub async fn finish(self) -> (u64, u64) {
        self.0.finish().await
    }
}

/// The memory that a core is lent, on the heap.
#[derive(Debug)]
pub struct LentMemory(Memory);

impl LentMemory {
    /// Memory of these sizes.
    #[must_use]
    pub fn new(sizes: &Sizes) -> Self {
        Self(Memory::new(sizes))
    }

    /// Lends all of it to one core.
    pub fn lend(&mut self) -> Storage<'_> {
        self.0.lend()
    }
}
