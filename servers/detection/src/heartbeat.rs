//! Tells Registration how this server is doing, every two seconds.
//!
//! Not here: what Registration makes of it. Without Registration nothing is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lapwing_net::peer::{PeerClient, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{Incarnation, ServerId};
use lapwing_protocol::registration::{Heartbeat, HeartbeatReply};
use smol::Timer;

use crate::roster::Roster;

/// How often.
const EVERY: Duration = Duration::from_secs(2);
/// How long one may take: less than the time to the next.
const TIME: Duration = Duration::from_millis(1_500);

/// What is told.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) server: ServerId,
    pub(crate) name: String,
    pub(crate) sensor_address: SocketAddr,
    pub(crate) console_address: SocketAddr,
    pub(crate) malware_address: SocketAddr,
    pub(crate) capacity: Arc<AtomicU32>,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) incarnation: Incarnation,
    pub(crate) roster: Arc<Roster>,
}

impl Beat {
    /// Tells Registration again and again.
    pub(crate) async fn run(&self, registration: PeerClient) {
        let mut reached = true;
        loop {
            match self.tell(&registration).await {
                Ok(()) if !reached => {
                    log::info!("Registration can be reached again");
                    reached = true;
                }
                Err(error) if reached => {
                    log::warn!("Registration cannot be told how this server does: {error}");
                    reached = false;
                }
                Ok(()) | Err(_) => {}
            }
            Timer::after(EVERY).await;
        }
    }

    async fn tell(&self, registration: &PeerClient) -> Result<(), String> {
        let sensors = self.roster.connected() as u32;
        let capacity = self.capacity.load(Ordering::Relaxed).max(1);
        let addresses = [self.sensor_address, self.console_address, self.malware_address]
            .map(|a| a.to_string());
        let heartbeat = Heartbeat {
            server: self.server,
            name: &self.name,
            sensor_address: &addresses[0],
            console_address: &addresses[1],
            malware_address: &addresses[2],
            capacity,
            sensors,
            load_permille: (u64::from(sensors) * 1000 / u64::from(capacity)).min(1000) as u16,
            draining: self.draining.load(Ordering::Relaxed),
            version: env!("CARGO_PKG_VERSION"),
            incarnation: self.incarnation,
        };
        let body = to_body(&heartbeat).map_err(|failure| failure.text)?;
        let reply = registration.call(Method::HEARTBEAT, &body, TIME).await;
        let reply = reply.map_err(|error| error.to_string())?;
        let reply: HeartbeatReply = from_bytes(&reply).map_err(|error| error.to_string())?;
        if let Some(capacity) = reply.capacity {
            self.capacity.store(capacity, Ordering::Relaxed);
        }
        self.draining.store(reply.drain, Ordering::Relaxed);
        Ok(())
    }
}
