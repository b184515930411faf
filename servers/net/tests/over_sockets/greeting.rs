//! A server that greets everyone with one byte, and a client that waits for it.

use std::sync::{Arc, Mutex};

use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::{Connection, Fault};
use lapwing_net::runtime::Executor;
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, HandshakeError, Plane, connect};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Deployment, PATIENCE, Serving, Setup};

pub(crate) const ALL_PLANES: [Plane; 4] = [Plane::Enrol, Plane::Sensor, Plane::Peer, Plane::Http];

/// What the handler saw: plane and peer of each connection.
pub(crate) type Seen = Arc<Mutex<Vec<(Plane, Option<PeerIdentity>)>>>;

/// Greets everyone with one byte and waits for them to close.
pub(crate) fn greeter(
    seen: &Seen,
) -> impl Fn(Connection) -> smol::future::Boxed<Result<(), Fault>> + use<> {
    let seen = Arc::clone(seen);
    move |mut connection: Connection| {
        seen.lock().unwrap().push((connection.plane, connection.peer));
        Box::pin(async move {
            connection.stream.write_all(b"!").await?;
            connection.stream.flush().await?;
            // A client that drops its socket without a close is normal.
            let _ = connection.stream.read(&mut [0; 1]).await;
            Ok(())
        })
    }
}

pub(crate) fn serve(
    executor: &Executor,
    deployment: &Deployment,
    planes: &[Plane],
    limits: ListenerLimits,
) -> (Serving, Seen) {
    let seen = Seen::default();
    let credentials = deployment.credentials(Role::Detection, 1);
    let setup = Setup { executor, credentials, deployment: deployment.id, planes, limits };
    (setup.serve(greeter(&seen)), seen)
}

/// Connects and waits for the greeting; the error is the handshake's, or what the server's refusal
/// means.
pub(crate) async fn greet(serving: &Serving, tls: &ClientTls) -> Result<(), HandshakeError> {
    let mut stream = connect(serving.address, tls, PATIENCE).await?;
    match stream.read_exact(&mut [0; 1]).await {
        Ok(()) => Ok(()),
        Err(error) => Err(HandshakeError::from_io(&error)),
    }
}

pub(crate) fn client(credentials: &Credentials, plane: Plane) -> ClientTls {
    ClientTls::new(credentials, plane, ExpectedPeer::default()).unwrap()
}
