//! The names that the examples share: one deployment, one sensor, one server, its logs.

use lapwing_protocol::digest::Chain;
use lapwing_protocol::id::{
    BootId, DeploymentId, ElementGuid, EvidenceId, Incarnation, LogId, MalOpId, SensorId, ServerId,
};

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId([0x11; 16]);
pub(crate) const SENSOR: SensorId = SensorId([0x22; 16]);
pub(crate) const SERVER: ServerId = ServerId([0x33; 16]);
pub(crate) const OTHER_SERVER: ServerId = ServerId([0x34; 16]);
pub(crate) const BULK_LOG: LogId = LogId([0x44; 16]);
pub(crate) const URGENT_LOG: LogId = LogId([0x45; 16]);
pub(crate) const OLD_LOG: LogId = LogId([0x46; 16]);
pub(crate) const BOOT: BootId = BootId([0x55; 16]);
pub(crate) const ELEMENT: ElementGuid = ElementGuid([0x66; 16]);
pub(crate) const EVIDENCE: EvidenceId = EvidenceId([0x77; 16]);
pub(crate) const MALOP: MalOpId = MalOpId([0x88; 16]);
pub(crate) const INCARNATION: Incarnation = Incarnation([0x99; 16]);
pub(crate) const CHAIN: Chain = Chain([0xaa; 32]);
/// 2026-11-24 05:00 UTC, milliseconds since 1970.
pub(crate) const WALL_MS: u64 = 1_795_496_400_000;
