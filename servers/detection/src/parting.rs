//! The last words on a sensor's connection, and how long they may take.
//!
//! Not here: whether a connection ends. Invariant: no peer can make it last longer than its time.

use std::time::Duration;

use lapwing_net::listener::Fault;
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::Refused;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::PeerFault;
use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::limits::RETRY_AFTER_MS;

/// What a sensor did wrong, for the log.
#[derive(Debug)]
pub(crate) struct SensorFault {
    pub(crate) sensor: SensorId,
    pub(crate) fault: PeerFault,
}

impl std::fmt::Display for SensorFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sensor {}: {} ({})", self.sensor, self.fault.text(), self.fault.code())
    }
}

impl std::error::Error for SensorFault {}

/// Refuses a connection and closes it, within `time`.
pub(crate) async fn refuse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    time: Duration,
    (code, detail): (Code, &'static str),
) -> Result<(), Fault> {
    let refused = Message::Refused(Refused { code, retry_after_ms: RETRY_AFTER_MS, detail });
    let mut buffer = [0; 512];
    let length = refused.encode(&mut buffer).unwrap_or_default();
    let closing = async {
        let _ = stream.write_all(&buffer[..length]).await;
        let _ = stream.flush().await;
        let _ = stream.close().await;
    };
    let late = async {
        Timer::after(time).await;
    };
    smol::future::or(closing, late).await;
    Err(detail.into())
}

/// Sends `bytes`, within `time`.
pub(crate) async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    time: Duration,
    bytes: &[u8],
) -> std::io::Result<()> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let late = async {
        Timer::after(time).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    smol::future::or(writing, late).await
}
