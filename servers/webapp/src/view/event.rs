//! A stored fact, as it is exported and as it passes on a sensor's page.

use lapwing_protocol::console::EventView;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::Lane;
use serde::Serialize;

use super::{Fields, Time, fields};

/// One stored fact.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) sensor: String,
    pub(crate) machine: String,
    /// The server that stores it.
    pub(crate) server: String,
    pub(crate) lane: &'static str,
    pub(crate) log: String,
    pub(crate) seq: u64,
    pub(crate) index: u64,
    pub(crate) source_seq: Option<u64>,
    pub(crate) time: Time,
    pub(crate) time_ns: u64,
    pub(crate) received: Time,
    pub(crate) kind: String,
    pub(crate) op: String,
    pub(crate) element: String,
    pub(crate) fields: Fields,
}

/// The lane's name in API and command line.
pub(crate) const fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Bulk => "bulk",
        Lane::Urgent => "urgent",
    }
}

impl Event {
    /// The owned twin of `view`, which `server` stores.
    pub(crate) fn new(view: EventView<'_>, server: &str) -> Result<Self, DecodeError> {
        Ok(Self {
            sensor: view.sensor.to_string(),
            machine: view.machine.to_owned(),
            server: server.to_owned(),
            lane: lane_name(view.lane),
            log: view.log.to_string(),
            seq: view.seq,
            index: view.index,
            source_seq: view.source_seq,
            time: Time::from_ns(view.time_ns),
            time_ns: view.time_ns,
            received: Time::from_ms(view.received_ms),
            kind: view.kind.to_owned(),
            op: view.op.to_owned(),
            element: view.element.to_string(),
            fields: fields(&view.fields)?,
        })
    }

    /// One line that says what happened.
    pub(crate) fn summary(&self) -> String {
        let field = |name: &str| self.fields.text(name);
        let first = |names: &[&str]| {
            names.iter().map(|name| field(name)).find(|text| !text.is_empty()).unwrap_or_default()
        };
        match self.kind.as_str() {
            "process" => match first(&["command_line", "image_path", "name"]) {
                text if text.is_empty() => self.brief(),
                text => text,
            },
            "connection" if field("remote_address").is_empty() => self.brief(),
            "connection" => format!(
                "{}:{} to {}:{}",
                field("local_address"),
                field("local_port"),
                field("remote_address"),
                field("remote_port")
            ),
            "file_event" => first(&["path", "old_path"]),
            "service" if field("name").is_empty() => self.brief(),
            "dns" => match field("answers") {
                answers if answers.is_empty() => field("question"),
                answers => format!("{} is {answers}", field("question")),
            },
            "service" | "user" | "machine" => first(&["name", "state"]),
            "health" => format!("{} is {}", field("component"), field("status")),
            "command_outcome" => format!("{}: {}", field("action"), field("detail")),
            "finding" => field("detail"),
            _ => self.fields.iter().next().map(|(_, cell)| cell.to_string()).unwrap_or_default(),
        }
    }

    /// What a change says that does not name its element: its fields, else the element's id.
    fn brief(&self) -> String {
        // Moments of a clock since boot, and what every fact has, say nothing to a reader.
        let told = |name: &str| !["ended", "started", "missing", "truncated"].contains(&name);
        let fields = self.fields.iter().filter(|(name, _)| told(name));
        let fields = fields.map(|(name, value)| format!("{name} {value}"));
        let fields: Vec<String> = fields.collect();
        let id = self.element.get(..8).unwrap_or_default();
        if fields.is_empty() { format!("element {id}") } else { fields.join(", ") }
    }

    /// Whether it names its element: an end or a change tells only what is new of it.
    pub(crate) fn names_its_element(&self) -> bool {
        matches!(self.op.as_str(), "put" | "event")
    }

    /// Who did it, where the fact says so.
    pub(crate) fn actor(&self) -> String {
        match self.fields.text("user") {
            user if user.is_empty() => self.fields.text("image_path"),
            user => user,
        }
    }

    /// What happened to the element, in a word for a person.
    pub(crate) fn verb(&self) -> &'static str {
        match (self.kind.as_str(), self.op.as_str()) {
            ("process", "put") => "started",
            ("process", "remove") => "ended",
            ("connection", "put") => "opened",
            ("connection", "remove") => "closed",
            ("dns", _) => "looked up",
            ("file_event", _) => match self.fields.text("action").as_str() {
                "1" => "created",
                "2" => "modified",
                "3" => "removed",
                "4" => "renamed",
                _ => "touched",
            },
            (_, "put") => "seen",
            (_, "patch") => "changed",
            (_, "remove") => "gone",
            (_, "forget") => "forgotten",
            (_, "dropped" | "jump") => "lost",
            (_, "undecoded") => "undecoded",
            _ => "happened",
        }
    }
}
