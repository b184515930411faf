//! Sensors and what their parts say, and tags of machines.

use lapwing_protocol::console::HealthView;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::fleet::{CollectionState, FleetSensor, SensorStatus};
use lapwing_protocol::tagging::TagView;
use serde::Serialize;

use super::{Time, owned};

/// The state of one part of a sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    pub(crate) component: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) remedy: String,
    pub(crate) mechanism: String,
}

impl From<HealthView<'_>> for Health {
    fn from(view: HealthView<'_>) -> Self {
        Self {
            component: view.component.to_owned(),
            status: view.status.to_owned(),
            reason: view.reason.to_owned(),
            remedy: view.remedy.to_owned(),
            mechanism: view.mechanism.to_owned(),
        }
    }
}

impl Health {
    /// Whether it works as it should.
    pub(crate) fn is_active(&self) -> bool {
        self.status == "active"
    }

    /// The command that mends it, where its remedy is one.
    pub(crate) fn command(&self) -> &str {
        if self.remedy.starts_with("sudo ") { &self.remedy } else { "" }
    }

    /// Whether something other than the rights that a command gives would mend it.
    pub(crate) fn has_own_remedy(&self) -> bool {
        !self.is_active() && !self.remedy.is_empty() && self.command().is_empty()
    }

    /// Whether an operator should do something: it neither works nor was stopped on command.
    pub(crate) fn lacks(&self) -> bool {
        !self.is_active() && self.status != "stopped"
    }

    /// The colour of its badge.
    pub(crate) fn tone(&self) -> &'static str {
        match self.status.as_str() {
            "active" => "good",
            "degraded" => "warn",
            "missing" => "bad",
            _ => "quiet",
        }
    }
}

/// A sensor as sensor management knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sensor {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: &'static str,
    /// running, degraded or unknown.
    pub(crate) service: &'static str,
    pub(crate) collection: &'static str,
    /// The name of its Detection server.
    pub(crate) detection: String,
    pub(crate) version: String,
    pub(crate) agent: String,
    pub(crate) os: String,
    pub(crate) last_seen: Time,
    pub(crate) first_seen: Time,
    /// Actions that have no outcome yet.
    pub(crate) pending: u32,
    pub(crate) collectors: Vec<Health>,
}

impl TryFrom<FleetSensor<'_>> for Sensor {
    type Error = DecodeError;

    fn try_from(view: FleetSensor<'_>) -> Result<Self, DecodeError> {
        let collectors = owned(&view.health, |health| Ok(Health::from(health)))?;
        let service = match view.status {
            SensorStatus::Online if collectors.iter().any(Health::lacks) => "degraded",
            SensorStatus::Online => "running",
            SensorStatus::Offline | SensorStatus::Stale | SensorStatus::Archived => "unknown",
        };
        let detection = match view.server_name {
            "" => view.server.to_string(),
            name => name.to_owned(),
        };
        Ok(Self {
            id: view.sensor.to_string(),
            name: view.name.to_owned(),
            status: view.status.name(),
            service,
            collection: view.collection.name(),
            detection,
            version: view.agent.rsplit([' ', '/']).next().unwrap_or_default().to_owned(),
            agent: view.agent.to_owned(),
            os: view.os.to_owned(),
            last_seen: Time::from_ms(view.last_seen_ms),
            first_seen: Time::from_ms(view.first_seen_ms),
            pending: view.pending,
            collectors,
        })
    }
}

impl Sensor {
    /// The colour of its status.
    pub(crate) fn tone(&self) -> &'static str {
        match self.status {
            "Online" => "good",
            "Offline" => "bad",
            "Stale" => "warn",
            _ => "quiet",
        }
    }

    /// The colour of its collection.
    pub(crate) fn collection_tone(&self) -> &'static str {
        match self.collection {
            "enabled" => "good",
            "disabled" | "suspended" => "warn",
            _ => "quiet",
        }
    }

    /// Whether its collection was stopped on command.
    pub(crate) fn is_stopped(&self) -> bool {
        self.collection == CollectionState::Disabled.name()
    }

    /// How many of its collectors work as they should.
    pub(crate) fn active(&self) -> usize {
        self.collectors.iter().filter(|health| health.is_active()).count()
    }

    /// Its parts that do not work as they should.
    pub(crate) fn lacking(&self) -> Vec<&Health> {
        self.collectors.iter().filter(|health| health.lacks()).collect()
    }

    /// The command that gives it the rights that it lacks; empty when it lacks none.
    pub(crate) fn command(&self) -> &str {
        let mut lacking = self.collectors.iter().filter(|health| health.lacks());
        lacking.find(|health| !health.command().is_empty()).map_or("", Health::command)
    }
}

/// A tag of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TagLine {
    pub(crate) sensor: String,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) author: String,
    pub(crate) set: Time,
}

impl From<TagView<'_>> for TagLine {
    fn from(view: TagView<'_>) -> Self {
        Self {
            sensor: view.sensor.to_string(),
            name: view.name.to_owned(),
            value: view.value.to_owned(),
            author: view.author.to_owned(),
            set: Time::from_ms(view.set_ms),
        }
    }
}
