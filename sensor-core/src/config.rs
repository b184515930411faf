//! What a sensor is told about itself when it is made.

use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{BootId, DeploymentId, SensorId};

use crate::registration::Installation;

/// Who and where a sensor is. The two ids must be those of its certificate.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Its own id.
    pub sensor: SensorId,
    /// This boot of the machine.
    pub boot: BootId,
    /// Whether it has a spool on a disk.
    pub memory: Memory,
    /// Name and version of the agent, such as `lapwing-sensor/0.1.0`; at most 255 bytes.
    pub agent: &'a str,
    /// Name of the machine; at most 255 bytes.
    pub name: &'a str,
    /// Operating system and version; at most 255 bytes.
    pub os: &'a str,
    /// How it finds its Detection server.
    pub installation: Installation,
    /// The last command accepted, as the shell made it durable.
    pub last_command: Option<CommandNumber>,
    /// Secret and random: keys the table and the string table against aimed collisions.
    pub hash_key: [u8; 16],
    /// Random: spreads attempts to connect.
    pub seed: u64,
}
