//! Sensors: the list, and one with what happens on its machine.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use lapwing_protocol::command::Action;
use lapwing_protocol::id::SensorId;

use super::{Shell, Trouble, actor_of, error_page, or_trouble, page, redirect_or_error, shell};
use crate::api::{EXPIRES_MS, act_on_sensor, find_sensor};
use crate::limits::SHOWN_FACTS_MAX;
use crate::view::{Cell, Event, LedgerLine, Rows, Sensor, TagLine};
use crate::web::{ApiError, App, PageActor, Posted};

#[derive(Template)]
#[template(path = "sensors.html")]
struct ListPage {
    shell: Shell,
    sensors: Vec<Sensor>,
    online: usize,
    trouble: Trouble,
}

/// `GET /sensors`.
pub(super) async fn list(actor: PageActor, State(app): State<App>) -> Response {
    let (sensors, trouble) = or_trouble(app.backend.sensors().await);
    let online = sensors.iter().filter(|sensor| sensor.status == "Online").count();
    let shell = shell(&app, &actor, "/sensors", "Sensors");
    page(&ListPage { shell, sensors, online, trouble })
}

/// A group of facts on a sensor's page.
struct Stream {
    title: &'static str,
    empty: &'static str,
    facts: Vec<Line>,
}

/// A fact, and what it is about in a line.
struct Line {
    fact: Arc<Event>,
    what: String,
}

#[derive(Template)]
#[template(path = "sensor.html")]
struct DetailPage {
    shell: Shell,
    sensor: Sensor,
    tags: Vec<TagLine>,
    running: Rows,
    running_trouble: Trouble,
    streams: Vec<Stream>,
    others: Vec<Line>,
    ledger: Vec<LedgerLine>,
    ledger_trouble: String,
}

/// `GET /sensors/ID`.
pub(super) async fn show(
    actor: PageActor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Response {
    let sensor = match find_sensor(&app, &id).await {
        Ok(sensor) => sensor,
        Err(error) => return error_page(&error, "/sensors"),
    };
    let tags = match sensor.id.parse::<SensorId>() {
        Ok(id) => app.backend.tags(Some(id)).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let (running, running_trouble) =
        or_trouble(app.backend.query(&running_on(&sensor), RUNNING_MAX).await);
    let (ledger, ledger_trouble) = ledger_of(&app, &sensor).await;
    let facts = app.live.facts_of(&sensor.id, usize::MAX);
    let stream = |title, kind, empty| Stream { title, empty, facts: of_kinds(&facts, &[kind]) };
    let streams = vec![
        stream("Processes", "process", "No process started or ended yet."),
        stream("Connections", "connection", "No connection opened or closed yet."),
        stream("Files", "file_event", "No watched file changed yet."),
        stream("Names looked up", "dns", "No name was looked up yet."),
    ];
    let others = ["service", "user", "machine", "health", "command_outcome", "finding"];
    let others = of_kinds(&facts, &others);
    let shell = shell(&app, &actor, "/sensors", &sensor.name);
    page(&DetailPage {
        shell,
        sensor,
        tags,
        running,
        running_trouble,
        streams,
        others,
        ledger,
        ledger_trouble,
    })
}

/// What became of the sensor's facts, and what is missing of the answer.
async fn ledger_of(app: &App, sensor: &Sensor) -> (Vec<LedgerLine>, String) {
    let id = sensor.id.parse::<SensorId>().ok();
    match app.backend.ledger(id).await {
        Ok((mut lines, failures)) => {
            lines.retain(|line| line.sensor == sensor.id);
            let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
            (lines, failures.join("; "))
        }
        Err(error) => (Vec::new(), error.to_string()),
    }
}

/// A running process, as a line.
struct ProcessLine {
    guid: String,
    pid: String,
    user: String,
    path: String,
    command_line: String,
}

impl DetailPage {
    /// The running processes, the youngest first.
    fn processes(&self) -> Vec<ProcessLine> {
        let position = |name: &str| self.running.columns.iter().position(|column| column == name);
        let at = |row: &[Cell], name: &str| {
            let cell = position(name).and_then(|position| row.get(position));
            cell.map(Cell::to_string).unwrap_or_default()
        };
        let mut rows: Vec<_> = self.running.rows.iter().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(at(row, "first_seen")));
        rows.iter()
            .map(|row| ProcessLine {
                guid: at(row, "guid"),
                pid: at(row, "pid"),
                user: at(row, "user"),
                path: at(row, "image_path"),
                command_line: at(row, "command_line"),
            })
            .collect()
    }
}

/// Processes shown as running on one sensor's page.
const RUNNING_MAX: u32 = 500;

/// The question that answers with a machine's running processes.
fn running_on(sensor: &Sensor) -> String {
    format!(
        "process where presence = live and image_path is not missing and sensor = {} \
         show guid, pid, user, image_path, command_line, first_seen limit {RUNNING_MAX}",
        sensor.id
    )
}

/// The newest facts of some kinds.
fn of_kinds(facts: &[Arc<Event>], kinds: &[&str]) -> Vec<Line> {
    let wanted = facts.iter().filter(|fact| kinds.contains(&fact.kind.as_str()));
    let line = |fact: &Arc<Event>| Line { fact: Arc::clone(fact), what: fact.line() };
    wanted.take(SHOWN_FACTS_MAX).map(line).collect()
}

/// `POST /sensors/ID/collection`.
pub(super) async fn set_collection(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let action = match posted.field("action") {
        "start" => Action::StartCollection,
        "stop" => Action::StopCollection,
        _ => return error_page(&ApiError::bad("there is start and stop"), "/sensors"),
    };
    let sensor = match find_sensor(&app, &id).await {
        Ok(sensor) => sensor,
        Err(error) => return error_page(&error, "/sensors"),
    };
    let done = act_on_sensor(&app, &actor_of(&posted), &sensor, action, EXPIRES_MS).await;
    let back = match posted.field("back") {
        "sensor" => format!("/sensors/{}", sensor.id),
        _ => String::from("/sensors"),
    };
    redirect_or_error(done.map(|_| ()), &back)
}
