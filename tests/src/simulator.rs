//! The deterministic simulator: the real cores, in a world of virtual time.
//!
//! `sensor-core`'s sensor and `servers/core`'s receiver, session, decoder and assignments run as
//! they run in production; the clock, the network, the disks and the machines' life around them are
//! made here and go wrong on purpose. One seed makes one world: the same seed gives the same run,
//! byte for byte, and a failing seed prints the command that replays it.
//!
//! Not here: TLS, real files and real sockets; journeys and the shells' own tests have those.
//!
//! Reading order: [`world`] (the loop), [`coverage`] (what must be reached), `faults` (what goes
//! wrong), `sensor`, `server` and `registration` (the machines), `oracle` (what must hold).

pub mod coverage;
pub mod report;
pub mod timeline;
pub mod world;

mod chance;
mod disk;
mod facts;
mod faults;
mod network;
mod oracle;
mod registration;
mod sensor;
mod server;
mod skew;

use lapwing_protocol::id::DeploymentId;

/// The deployment of every world.
const DEPLOYMENT: DeploymentId = DeploymentId([0xd0; 16]);
/// What wall clocks say when a world begins, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;
