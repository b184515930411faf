//! A stored fact, as it is exported and as it passes on a sensor's page.

use lapwing_protocol::console::EventView;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::Lane;
use serde::Serialize;

use super::{Cell, Fields, Time, fields};

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
    /// What an earlier fact called the element, where this one does not name it.
    #[serde(skip)]
    pub(crate) about: Option<String>,
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
            about: None,
        })
    }

    /// One line that says what happened, and to what.
    pub(crate) fn line(&self) -> String {
        if self.names_its_element() {
            return self.summary();
        }
        let id = || self.element.get(..8).unwrap_or_default();
        let nameless = || format!("{} {}", self.kind.replace('_', " "), id());
        let name = self.about.clone().unwrap_or_else(nameless);
        match self.changes() {
            changes if changes.is_empty() => name,
            changes => format!("{name} ({changes})"),
        }
    }

    /// What a fact that names its element calls it.
    pub(crate) fn summary(&self) -> String {
        let field = |name: &str| self.fields.text(name);
        let first = |names: &[&str]| {
            names.iter().map(|name| field(name)).find(|text| !text.is_empty()).unwrap_or_default()
        };
        match self.kind.as_str() {
            "process" => first(&["command_line", "image_path", "name"]),
            "connection" => format!(
                "{}:{} to {}:{}",
                field("local_address"),
                field("local_port"),
                field("remote_address"),
                field("remote_port")
            ),
            "file_event" => first(&["path", "old_path"]),
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

    /// What else the fact says, in words.
    fn changes(&self) -> String {
        let words = self.fields.iter().filter_map(|(name, value)| match (name, value) {
            // Moments of a clock since boot, and the machine's own counting, tell a reader nothing.
            ("ended" | "started" | "missing" | "truncated", _) => None,
            ("user_time_us" | "system_time_us", _) => None,
            ("duration_ms", Cell::U64(ms)) => Some(format!("after {}", duration(*ms))),
            ("bytes_sent", value) => Some(format!("{value} bytes sent")),
            ("bytes_received", value) => Some(format!("{value} received")),
            (name, value) => Some(format!("{} {value}", name.replace('_', " "))),
        });
        words.collect::<Vec<String>>().join(", ")
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

/// A length of time in the unit that a person would choose.
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Event, Fields, Time, duration};

    fn event(kind: &str, op: &str, fields: &[(&str, Cell)]) -> Event {
        let fields = fields.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone()));
        Event {
            sensor: String::new(),
            machine: String::new(),
            server: String::new(),
            lane: "bulk",
            log: String::new(),
            seq: 1,
            index: 1,
            source_seq: None,
            time: Time::from_ms(1),
            time_ns: 1,
            received: Time::from_ms(1),
            kind: kind.to_owned(),
            op: op.to_owned(),
            element: "0123456789abcdef".repeat(2),
            fields: fields.collect::<Fields>(),
            about: None,
        }
    }

    #[test]
    fn an_end_says_what_ended_in_words() {
        let told = [
            ("exit_code", Cell::I64(0)),
            ("ended", Cell::U64(4_972_310_956_107)),
            ("duration_ms", Cell::U64(59_225)),
        ];
        let mut end = event("process", "remove", &told);
        assert_eq!(end.line(), "process 01234567 (exit code 0, after 59.2 s)");
        end.about = Some(String::from("/bin/sleep 59"));
        assert_eq!(end.line(), "/bin/sleep 59 (exit code 0, after 59.2 s)");
        let start = event("process", "put", &[("command_line", Cell::Text("ls -l".into()))]);
        assert_eq!(start.line(), "ls -l");
    }

    #[test]
    fn lengths_of_time_are_told_in_a_fitting_unit() {
        let told = [0, 999, 1_000, 119_999, 120_000, 7_200_000].map(duration);
        assert_eq!(told, ["0 ms", "999 ms", "1.0 s", "119.9 s", "2 min", "2 h"]);
    }
}
