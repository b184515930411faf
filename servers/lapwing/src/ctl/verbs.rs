//! What each verb asks, and how its answer is written.

use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::{Value, json};

use super::arguments::Noun;
use super::connection::{Connection, Whole, encoded};
use super::naming;
use super::nouns::*;
use super::problem::Problem;
use super::table::{Column, aligned, json as json_text, plain, sheet, table, text_at};
use super::{Form, follow, ledger};
use crate::exit::Exit;

const SENSORS: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("status", "status"),
    ("collection", "collection"),
    ("service", "service"),
    ("detection", "detection"),
    ("last seen", "last_seen"),
    ("os", "os"),
];
const SERVERS: &[Column] = &[
    ("name", "name"),
    ("role", "role"),
    ("status", "status"),
    ("pid", "pid"),
    ("sensors", "sensors"),
    ("capacity", "capacity"),
    ("load", "load"),
    ("version", "version"),
    ("trouble", "trouble"),
];
const MALOPS: &[Column] = &[
    ("id", "id"),
    ("severity", "severity"),
    ("status", "status"),
    ("count", "count"),
    ("machines", "machines.name"),
    ("last seen", "last_seen"),
    ("title", "title"),
];
const SUSPICIONS: &[Column] =
    &[("id", "id"), ("time", "time"), ("machine", "machine"), ("rule", "rule"), ("title", "title")];
const REPUTATIONS: &[Column] =
    &[("type", "type"), ("verdict", "verdict"), ("key", "key"), ("comment", "comment")];
const VERDICTS: &[Column] =
    &[("type", "type"), ("verdict", "verdict"), ("source", "source"), ("key", "key")];
const UPDATES: &[Column] = &[
    ("name", "name"),
    ("version", "version"),
    ("target", "target"),
    ("state", "state"),
    ("bytes", "length"),
];
const TAGS: &[Column] =
    &[("sensor", "sensor"), ("name", "name"), ("value", "value"), ("author", "author")];
const AUDIT: &[Column] = &[
    ("number", "number"),
    ("time", "time"),
    ("actor", "actor"),
    ("source", "source"),
    ("action", "action"),
    ("target", "target"),
    ("outcome", "outcome"),
];
const USERS: &[Column] = &[("name", "name"), ("role", "role")];
const TOKENS: &[Column] =
    &[("id", "id"), ("name", "name"), ("made", "made"), ("revoked", "revoked")];

/// Carries out a verb.
pub(super) async fn run(at: &Connection, form: Form, noun: Noun) -> Result<Exit, Problem> {
    match noun {
        Noun::Sensors(sensors) => run_sensors(at, form, sensors.verb).await,
        Noun::Servers(servers) => run_servers(at, form, servers.verb).await,
        Noun::Malops(malops) => run_malops(at, form, malops.verb).await,
        Noun::Suspicions(Suspicions { verb: SuspicionsVerb::List(list) }) => {
            show(at, form, SUSPICIONS, &format!("/suspicions?limit={}", list.limit)).await
        }
        Noun::Malware(Malware { verb: MalwareVerb::List(list) }) => {
            show(at, form, SUSPICIONS, &format!("/malware?limit={}", list.limit)).await
        }
        Noun::Elements(Elements { verb: ElementsVerb::Query(query) }) => {
            elements(at, form, &query).await
        }
        Noun::Events(Events { verb: EventsVerb::Export(export) }) => {
            let sensor = match &export.sensor {
                Some(sensor) => Some(naming::sensor(at, sensor).await?),
                None => None,
            };
            follow::export(at, sensor.as_deref()).await
        }
        Noun::Reputation(reputation) => run_reputation(at, form, reputation.verb).await,
        Noun::Updates(_) => show(at, form, UPDATES, "/updates").await,
        Noun::Tags(tags) => run_tags(at, form, tags.verb).await,
        Noun::Audit(Audit { verb: AuditVerb::List(list) }) => {
            show(at, form, AUDIT, &format!("/audit?limit={}", list.limit)).await
        }
        Noun::Users(users) => run_users(at, form, users.verb).await,
        Noun::Tokens(tokens) => run_tokens(at, form, tokens.verb).await,
        Noun::Ledger(ledger) => ledger::run(at, form, &ledger).await,
        Noun::Rules(_) | Noun::Policies(_) | Noun::Packages(_) => Ok(Exit::Usage),
    }
}

/// Gets a list and writes it.
async fn show(
    at: &Connection,
    form: Form,
    columns: &[Column],
    path: &str,
) -> Result<Exit, Problem> {
    let whole = at.ask(Method::GET, path, None).await?;
    Ok(write(form, columns, &whole))
}

pub(super) fn write(form: Form, columns: &[Column], whole: &Whole) -> Exit {
    match (form, &whole.value) {
        (Form::Json, value) => say(&format!("{}\n", json_text(value))),
        (Form::Table, Value::Array(rows)) => say(&table(columns, rows)),
        (Form::Table, value) => say(&sheet(value)),
    }
    match &whole.partial {
        Some(reason) => {
            eprintln!("lapwing ctl: not everything: {reason}");
            Exit::Partial
        }
        None => Exit::Done,
    }
}

/// Changes something and writes what the server says of it.
async fn change(
    at: &Connection,
    form: Form,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Exit, Problem> {
    let whole = at.ask(method, path, body).await?;
    Ok(write(form, &[], &whole))
}

async fn run_sensors(at: &Connection, form: Form, verb: SensorsVerb) -> Result<Exit, Problem> {
    match verb {
        SensorsVerb::List(_) => show(at, form, SENSORS, "/sensors").await,
        SensorsVerb::Show(one) => {
            let id = naming::sensor(at, &one.id).await?;
            show(at, form, &[], &format!("/sensors/{}", encoded(&id))).await
        }
        SensorsVerb::Start(start) => {
            collection(at, form, "start_collection", start.sensors, start.wait).await
        }
        SensorsVerb::Stop(stop) => {
            collection(at, form, "stop_collection", stop.sensors, stop.wait).await
        }
        _ => Ok(Exit::Usage),
    }
}

/// Has an action done on sensors, and waits for what becomes of it.
async fn collection(
    at: &Connection,
    form: Form,
    action: &str,
    sensors: Vec<String>,
    wait_s: u64,
) -> Result<Exit, Problem> {
    let sensors = if sensors.is_empty() { vec![only_sensor(at).await?] } else { sensors };
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let mut batches = Vec::new();
    for sensor in &sensors {
        let path = format!("/sensors/{}/actions", encoded(&naming::sensor(at, sensor).await?));
        let asked = at.ask(Method::POST, &path, Some(&json!({ "action": action }))).await?;
        batches.push(text_at(&asked.value, "batch"));
    }
    let mut results = Vec::new();
    for batch in batches {
        results.extend(outcome(at, &batch, deadline).await?);
    }
    let states: Vec<String> = results.iter().map(|result| text_at(result, "state")).collect();
    let rows = Whole { value: Value::Array(results), partial: None };
    let columns =
        [("sensor", "sensor"), ("action", "action"), ("state", "state"), ("detail", "detail")];
    write(form, &columns, &rows);
    let worst = states.iter().map(|state| match state.as_str() {
        "done" => Exit::Done,
        "pending" | "queued" => Exit::Partial,
        "refused" => Exit::Refused,
        _ => Exit::Failed,
    });
    Ok(worst.max_by_key(|exit| exit.number()).unwrap_or(Exit::Done))
}

/// The one sensor there is, where none was named.
async fn only_sensor(at: &Connection) -> Result<String, Problem> {
    let sensors = at.ask(Method::GET, "/sensors", None).await?.value;
    match sensors.as_array().map(Vec::as_slice) {
        Some([sensor]) => Ok(text_at(sensor, "id")),
        Some(sensors) => {
            let message = format!("there are {} sensors", sensors.len());
            Err(Problem::usage(message, "name one or more by id or machine's name"))
        }
        None => Err(Problem::new(Exit::Failed, "the answer is not a list", "")),
    }
}

async fn outcome(at: &Connection, batch: &str, deadline: Instant) -> Result<Vec<Value>, Problem> {
    loop {
        let results = at.ask(Method::GET, &format!("/batches/{batch}"), None).await?.value;
        let results = results.as_array().cloned().unwrap_or_default();
        let is_finished = |result: &Value| result.get("finished") == Some(&Value::Bool(true));
        if results.iter().all(is_finished) || Instant::now() >= deadline {
            return Ok(results);
        }
        smol::Timer::after(Duration::from_millis(150)).await;
    }
}

async fn run_servers(at: &Connection, form: Form, verb: ServersVerb) -> Result<Exit, Problem> {
    let (name, body) = match verb {
        ServersVerb::List(_) => return show(at, form, SERVERS, "/servers").await,
        ServersVerb::Drain(one) => (one.id, json!({ "action": "drain" })),
        ServersVerb::Undrain(one) => (one.id, json!({ "action": "undrain" })),
        ServersVerb::Start(one) => (one.id, json!({ "action": "start" })),
        ServersVerb::Stop(stop) => (stop.id, json!({ "action": "stop", "kill": stop.kill })),
        ServersVerb::Set(set) => (set.id, json!({ "action": "set", "capacity": set.capacity })),
    };
    let path = format!("/servers/{}/actions", encoded(&name));
    change(at, form, Method::POST, &path, Some(&body)).await
}

async fn run_malops(at: &Connection, form: Form, verb: MalopsVerb) -> Result<Exit, Problem> {
    match verb {
        MalopsVerb::List(list) if list.follow => follow::malops(at, form).await,
        MalopsVerb::List(list) => {
            let evidence = if form == Form::Json { "&evidence=true" } else { "" };
            let status = list.status.map(|status| format!("&status={}", encoded(&status)));
            let status = status.unwrap_or_default();
            show(at, form, MALOPS, &format!("/malops?limit={}{status}{evidence}", list.limit)).await
        }
        MalopsVerb::Show(one) => {
            let id = naming::malop(at, &one.id).await?;
            show(at, form, &[], &format!("/malops/{}", encoded(&id))).await
        }
        MalopsVerb::Status(status) => {
            let path = format!("/malops/{}/status", encoded(&naming::malop(at, &status.id).await?));
            let body = json!({ "status": status.status });
            change(at, form, Method::POST, &path, Some(&body)).await
        }
        MalopsVerb::Comment(comment) => {
            let id = naming::malop(at, &comment.id).await?;
            let path = format!("/malops/{}/comments", encoded(&id));
            change(at, form, Method::POST, &path, Some(&json!({ "text": comment.text }))).await
        }
    }
}

async fn elements(at: &Connection, form: Form, query: &ElementsQuery) -> Result<Exit, Problem> {
    let body = json!({ "expression": query.expression.join(" "), "limit": query.limit });
    let rows = at.ask(Method::POST, "/elements/query", Some(&body)).await?.value;
    if form == Form::Json {
        say(&format!("{}\n", json_text(&rows)));
    } else {
        let list = |key: &str| rows.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let headings = list("columns").iter().map(|name| plain(name).to_uppercase()).collect();
        let cells_of = |row: &Value| {
            row.as_array().map(|cells| cells.iter().map(plain).collect()).unwrap_or_default()
        };
        let cells = list("rows").iter().map(cells_of).collect();
        say(&aligned(headings, cells));
    }
    if rows.get("partial") == Some(&Value::Bool(true)) {
        eprintln!("lapwing ctl: not everything: {}", text_at(&rows, "reason"));
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}

/// What is wrong with the arguments of a verb, before anybody is asked.
pub(super) fn check(noun: &Noun) -> Result<(), Problem> {
    let Noun::Reputation(reputation) = noun else { return Ok(()) };
    match &reputation.verb {
        ReputationVerb::Add(add) => {
            one_key(&add.hash, &add.ip, &add.domain)?;
            list_of(add).map(drop)
        }
        ReputationVerb::Remove(remove) => {
            one_key(&remove.hash, &remove.ip, &remove.domain).map(drop)
        }
        ReputationVerb::Classify(classify) => {
            one_key(&classify.hash, &classify.ip, &classify.domain).map(drop)
        }
        ReputationVerb::List(_) | ReputationVerb::Import(_) | ReputationVerb::Export(_) => Ok(()),
    }
}

fn list_of(add: &ReputationAdd) -> Result<&'static str, Problem> {
    match (add.block, add.allow) {
        (true, false) => Ok("block"),
        (false, true) => Ok("allow"),
        _ => Err(Problem::usage("which list?", "give one of --block and --allow")),
    }
}

/// The one key that is named by a hash, an address or a domain.
fn one_key<'a>(
    hash: &'a Option<String>,
    ip: &'a Option<String>,
    domain: &'a Option<String>,
) -> Result<(&'static str, &'a str), Problem> {
    let given = [("hash", hash), ("ip", ip), ("domain", domain)];
    let mut given = given.into_iter().filter_map(|(name, key)| Some((name, key.as_deref()?)));
    match (given.next(), given.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(Problem::usage("which key?", "give exactly one of --hash, --ip and --domain")),
    }
}

async fn run_reputation(
    at: &Connection,
    form: Form,
    verb: ReputationVerb,
) -> Result<Exit, Problem> {
    match verb {
        ReputationVerb::List(list) => {
            let path = format!("/reputations?offset={}&limit={}", list.offset, list.limit);
            show(at, form, REPUTATIONS, &path).await
        }
        ReputationVerb::Add(add) => {
            let (key_type, key) = one_key(&add.hash, &add.ip, &add.domain)?;
            let verdict = list_of(&add)?;
            let body = json!({
                "type": key_type, "key": key, "verdict": verdict, "comment": add.comment,
            });
            change(at, form, Method::PUT, "/reputations", Some(&body)).await
        }
        ReputationVerb::Remove(remove) => {
            let (key_type, key) = one_key(&remove.hash, &remove.ip, &remove.domain)?;
            let path = format!("/reputations/{key_type}/{}", encoded(key));
            change(at, form, Method::DELETE, &path, None).await
        }
        ReputationVerb::Classify(classify) => {
            let (key_type, key) = one_key(&classify.hash, &classify.ip, &classify.domain)?;
            let body = json!({ "type": key_type, "key": key, "global": classify.global });
            let whole = at.ask(Method::POST, "/reputations/classify", Some(&body)).await?;
            Ok(write(form, VERDICTS, &whole))
        }
        ReputationVerb::Import(_) | ReputationVerb::Export(_) => Ok(Exit::Usage),
    }
}

async fn run_tags(at: &Connection, form: Form, verb: TagsVerb) -> Result<Exit, Problem> {
    match verb {
        TagsVerb::Get(get) => {
            let of = match get.sensor {
                Some(sensor) => format!("?sensor={}", encoded(&naming::sensor(at, &sensor).await?)),
                None => String::new(),
            };
            show(at, form, TAGS, &format!("/tags{of}")).await
        }
        TagsVerb::Set(set) => {
            let sensor = naming::sensor(at, &set.sensor).await?;
            let body = json!({ "sensor": sensor, "name": set.name, "value": set.value });
            change(at, form, Method::PUT, "/tags", Some(&body)).await
        }
    }
}

async fn run_users(at: &Connection, form: Form, verb: UsersVerb) -> Result<Exit, Problem> {
    match verb {
        UsersVerb::List(_) => show(at, form, USERS, "/users").await,
        UsersVerb::ResetPassword(one) => {
            let path = format!("/users/{}/reset-password", encoded(&one.id));
            change(at, form, Method::POST, &path, None).await
        }
    }
}

async fn run_tokens(at: &Connection, form: Form, verb: TokensVerb) -> Result<Exit, Problem> {
    match verb {
        TokensVerb::List(_) => show(at, form, TOKENS, "/tokens").await,
        TokensVerb::Revoke(one) => {
            change(at, form, Method::DELETE, &format!("/tokens/{}", encoded(&one.id)), None).await
        }
        TokensVerb::Create(_) => Ok(Exit::Usage),
    }
}

/// Writes on standard output. Whoever read has enough when the pipe is closed: no failure.
pub(super) fn say(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
