//! The deterministic simulator: the real cores, in a world of virtual time.
//!
//! `sensor-core`'s sensor and `servers/core`'s receiver, session and decoder run as they run in
//! production; the clock, the network, the disks and the machine's life around them are made here
//! and go wrong on purpose. One seed makes one world: the same seed gives the same run, byte for
//! byte, and a failing seed prints the command that replays it.
//!
//! Not here: TLS, real files and real sockets; journeys and the shells' own tests have those.
//!
//! Reading order: [`world`] (the loop), [`faults`] (what goes wrong), [`sensor`] and [`server`]
//! (the two machines), [`oracle`] (what must hold at the end).

pub mod chance;
pub mod facts;
pub mod faults;
pub mod network;
pub mod oracle;
pub mod report;
pub mod sensor;
pub mod server;
pub mod spool;
pub mod world;

use lapwing_protocol::id::{BootId, DeploymentId, SensorId, ServerId};

/// The deployment of every world.
pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId([0xd0; 16]);
/// The sensor.
pub(crate) const SENSOR: SensorId = SensorId([0x50; 16]);
/// The Detection server.
pub(crate) const SERVER: ServerId = ServerId([0x5e; 16]);
/// The machine's one boot: restarts of the sensor are not restarts of the machine.
pub(crate) const BOOT: BootId = BootId([0xb0; 16]);
