//! Connecting: name, TCP and TLS within one bound of time, and the count of bytes that cross.
//!
//! Not here: when to connect, and to whom. Invariant: what is counted is what the network carries,
//! TLS included.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, Timer};

use crate::tls::TlsError;

/// How long one attempt may take, from the name to the end of the handshake.
pub(crate) const DIAL_TIME: Duration = Duration::from_secs(10);

/// A connection to a server.
pub(crate) type Stream = TlsStream<Counted>;

/// A socket that counts what it carries.
#[derive(Debug)]
pub(crate) struct Counted {
    socket: Async<TcpStream>,
    /// Bytes sent.
    pub(crate) up: u64,
    /// Bytes received.
    pub(crate) down: u64,
}

/// Connects to `address` (`host:port`) and shakes hands. A server that refuses *our* certificate
/// says so only at the first read.
///
/// # Errors
/// Why there is no connection.
pub(crate) async fn dial(address: &str, config: Arc<ClientConfig>) -> Result<Stream, TlsError> {
    let attempt = async {
        let (socket, address) = connect(address).await?;
        // Frames are small and answers are waited for.
        let _ = socket.get_ref().set_nodelay(true);
        let counted = Counted { socket, up: 0, down: 0 };
        TlsConnector::from(config)
            .connect(ServerName::IpAddress(address.ip().into()), counted)
            .await
            .map_err(|error| TlsError::from_io(&error))
    };
    let late = async {
        Timer::after(DIAL_TIME).await;
        Err(TlsError::TimedOut)
    };
    smol::future::or(attempt, late).await
}

/// The first address of the name that answers.
async fn connect(address: &str) -> Result<(Async<TcpStream>, SocketAddr), TlsError> {
    let addresses = match address.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) => smol::net::resolve(address).await.map_err(|_| TlsError::NoSuchName)?,
    };
    let mut last = TlsError::NoSuchName;
    for address in addresses {
        match Async::<TcpStream>::connect(address).await {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => last = TlsError::Unreachable(error),
        }
    }
    Err(last)
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if let Poll::Ready(Ok(length)) = &read {
            self.down += *length as u64;
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, buffer);
        if let Poll::Ready(Ok(length)) = &written {
            self.up += *length as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}
