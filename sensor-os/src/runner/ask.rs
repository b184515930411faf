//! Whom to reach and how: the question to Registration, and the way to a Detection server.
//!
//! Not here: when (the core decides). Invariant: an address is only a place to look; who answers
//! there is judged by its certificate.

use std::fmt;
use std::sync::Arc;

use lapwing_protocol::call::Method;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::{AssignReason, AssignRequest, Assignment, ServerRole};

use crate::config::is_address;
use crate::dial::{Stream, dial};
use crate::identity::{Identity, StoredAssignment};
use crate::one_call::{CallError, call};
use crate::tls::{Expected, Roots, TlsError, sensor_plane};

/// What a sensor shows and whom it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) roots: Roots,
}

/// Why nobody answered, for the status.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// The server's wish, or 0.
    pub(crate) retry_after_ms: u32,
    /// For a person.
    pub(crate) text: String,
}

/// What went right, and the bytes it took on the network: sent, received.
pub(crate) type Answer<T> = Result<(T, (u64, u64)), Trouble>;

impl Credentials {
    fn config(
        &self,
        role: &'static [ServerRole],
        server: Option<ServerId>,
    ) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let deployment = Some(self.identity.deployment);
        let expected = Expected { roles: role, deployment, server };
        sensor_plane(&self.roots, expected, &self.identity).map(Arc::new)
    }

    /// Asks the Registration servers in order.
    pub(crate) async fn assign(
        self,
        addresses: Vec<String>,
        reason: AssignReason,
        trouble_with: Option<ServerId>,
    ) -> Answer<StoredAssignment> {
        let mut troubles = Vec::new();
        let mut retry_after_ms = 0;
        for address in &addresses {
            match self.assign_by(address, AssignRequest { reason, trouble_with }).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if let CallError::Refused { retry_after_ms: wish, .. } = error {
                        retry_after_ms = wish;
                    }
                    troubles.push(trouble("Registration", address, &error));
                }
            }
        }
        Err(Trouble { retry_after_ms, text: troubles.join("; ") })
    }

    async fn assign_by(
        &self,
        address: &str,
        request: AssignRequest,
    ) -> Result<(StoredAssignment, (u64, u64)), CallError> {
        let config = self.config(&[ServerRole::Registration], None)?;
        let mut stream = dial(address, config).await?;
        let answer = call(&mut stream, Method::ASSIGN, &request).await?;
        let assignment: Assignment<'_> =
            from_bytes(&answer).map_err(|_| CallError::BadAnswer("it is no assignment"))?;
        if !is_address(assignment.address) {
            return Err(CallError::BadAnswer("its address is not host:port"));
        }
        let counted = stream.get_ref().0;
        let assignment = StoredAssignment {
            server: assignment.server,
            name: assignment.name.to_owned(),
            address: assignment.address.to_owned(),
        };
        Ok((assignment, (counted.up, counted.down)))
    }

    /// Connects to the first Detection server of `addresses` that answers; `server` is the one that
    /// must, where one was assigned.
    pub(crate) async fn connect(
        self,
        addresses: Vec<String>,
        server: Option<ServerId>,
    ) -> Result<(Box<Stream>, String), Trouble> {
        let mut troubles = Vec::new();
        for address in addresses {
            let attempt = match self.config(&[ServerRole::Detection], server) {
                Ok(config) => dial(&address, config).await,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(stream) => return Ok((Box::new(stream), address)),
                Err(error) => troubles.push(trouble("Detection", &address, &error)),
            }
        }
        Err(Trouble { retry_after_ms: 0, text: troubles.join("; ") })
    }
}

fn trouble(role: &str, address: &str, error: &dyn fmt::Display) -> String {
    format!("{role} server {address}: {error}")
}
