//! Asset tags: what an organisation says of its machines.

use serde::{Deserialize, Serialize};

use crate::id::SensorId;

/// A tag. Well-known names: department, location, device_type, critical_asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagSet<'a> {
    /// Of which machine.
    pub sensor: SensorId,
    /// The tag's name.
    pub name: &'a str,
    /// Its value; `None` takes the tag off.
    pub value: Option<&'a str>,
    /// Who.
    pub author: &'a str,
}

/// Which tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagQuery {
    /// Of this machine only.
    pub sensor: Option<SensorId>,
}

/// A tag of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagView<'a> {
    /// Of which machine.
    pub sensor: SensorId,
    /// The tag's name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
    /// Who set it.
    pub author: &'a str,
    /// When, milliseconds since 1970.
    pub set_ms: u64,
}
