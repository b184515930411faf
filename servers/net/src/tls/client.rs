//! The calling side: connects, shakes hands, and knows whom it reached.
//!
//! Not here: reconnecting (peer/client.rs). Invariant: a stream is handed out only to a peer that
//! was expected.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::verify::ServerByIdentity;
use super::{Credentials, CredentialsError, ExpectedPeer, HandshakeError, Plane, provider};
use crate::socket::Socket;

/// How to reach one kind of server: the plane, whom to expect, and what to show.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Shows our certificate if the plane asks for one.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub fn new(
        credentials: &Credentials,
        plane: Plane,
        expected: ExpectedPeer,
    ) -> Result<Self, HandshakeError> {
        let roots = Arc::clone(&credentials.server_roots);
        let mut config =
            match plane {
                Plane::Sensor | Plane::Peer => builder(roots, expected)?
                    .with_client_cert_resolver(Arc::clone(&credentials.slot)
                        as Arc<dyn rustls::client::ResolvesClientCert>),
                Plane::Enrol | Plane::Http => builder(roots, expected)?.with_no_client_auth(),
            };
        finish(&mut config, plane);
        Ok(Self { config: Arc::new(config) })
    }

    /// Without a certificate of our own, trusting the authorities in a PEM file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn anonymous(
        ca: &Path,
        plane: Plane,
        expected: ExpectedPeer,
    ) -> Result<Self, CredentialsError> {
        Self::anonymous_with(super::credentials::load_roots([ca])?, plane, expected)
    }

    /// Without a certificate of our own, trusting the authorities in PEM text.
    ///
    /// # Errors
    /// The text holds no certificate.
    pub fn anonymous_from_pem(
        ca: &str,
        plane: Plane,
        expected: ExpectedPeer,
    ) -> Result<Self, CredentialsError> {
        let roots = super::credentials::roots_from_pem(Path::new("(memory)"), ca.as_bytes())?;
        Self::anonymous_with(roots, plane, expected)
    }

    fn anonymous_with(
        roots: RootCertStore,
        plane: Plane,
        expected: ExpectedPeer,
    ) -> Result<Self, CredentialsError> {
        let mut config = builder(Arc::new(roots), expected)
            .map_err(|_| CredentialsError::File {
                path: Path::new("(memory)").to_path_buf(),
                error: std::io::Error::other("the TLS library refuses the configuration"),
            })?
            .with_no_client_auth();
        finish(&mut config, plane);
        Ok(Self { config: Arc::new(config) })
    }

    /// The TLS library's configuration, for a caller with its own stream.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn builder(
    roots: Arc<RootCertStore>,
    expected: ExpectedPeer,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, HandshakeError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| HandshakeError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerByIdentity::new(roots, expected))))
}

fn finish(config: &mut ClientConfig, plane: Plane) {
    config.alpn_protocols = match plane {
        // Our own HTTP client speaks 1.1.
        Plane::Http => vec![b"http/1.1".to_vec()],
        Plane::Enrol | Plane::Sensor | Plane::Peer => {
            plane.alpn().iter().map(|name| name.to_vec()).collect()
        }
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The server is known by its URI; its address in the hello would tell onlookers only what they
    // see anyway.
    config.enable_sni = false;
}

/// Connects to `address` and shakes hands, all within `time`.
///
/// # Errors
/// Nobody answers, the handshake fails on either side, or the peer is not the expected one. A
/// server that refuses *our* certificate says so only after this returns, at the first read.
pub async fn connect(
    address: SocketAddr,
    tls: &ClientTls,
    time: Duration,
) -> Result<TlsStream<Socket>, HandshakeError> {
    let attempt = async {
        let socket = Socket::connect(address)
            .await
            .map_err(|error| HandshakeError::Unreachable { address, error })?;
        TlsConnector::from(tls.config())
            .connect(ServerName::IpAddress(address.ip().into()), socket)
            .await
            .map_err(|error| HandshakeError::from_io(&error))
    };
    let late = async {
        smol::Timer::after(time).await;
        Err(HandshakeError::TimedOut)
    };
    smol::future::or(attempt, late).await
}
