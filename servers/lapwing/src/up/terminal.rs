//! What `up` says on the terminal: progress while starting, then where to go.

use std::io::Write as _;

use lapwing_net::logging::escaped;
use serde_json::Value;

use super::children::Children;
use super::ready::Ready;

/// One line of progress.
pub(super) fn step(text: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = writeln!(std::io::stderr(), "  {text}");
}

/// What a person needs once everything answers.
pub(super) fn summary(ready: &Ready<'_>, sensor: Option<&Value>) {
    let mut text = format!("\nLapwing is up.\n\n  Page      {}\n", ready.web());
    match ready.password {
        Some(password) => {
            text.push_str(&format!("  User      admin\n  Password  {password}\n"));
            text.push_str("            (shown once; you choose your own at the first login)\n");
        }
        None => {
            text.push_str("  User      admin\n");
            text.push_str("  Password  yours; to reset it: lapwing ctl");
            text.push_str(&data_flag(ready));
            text.push_str(" users reset-password admin\n");
        }
    }
    let ca = ready.data.authority("organisation.pem");
    text.push_str(&format!("  CA        {} (trust it in the browser)\n", ca.display()));
    text.push_str(&format!("  Data      {}\n", ready.data.root().display()));
    text.push_str(&format!("  Commands  lapwing ctl{} sensors list\n", data_flag(ready)));
    text.push_str(&sensor_text(sensor, ready.children));
    text.push_str("\nStop it with Ctrl-C.\n");
    // As above.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The option that leads `ctl` to this platform, where the default would not.
pub(super) fn data_flag(ready: &Ready<'_>) -> String {
    let is_default = super::default_data().is_some_and(|default| default == ready.data.root());
    match is_default {
        true => String::new(),
        false => format!(" --ready-file {}", ready.data.ready().display()),
    }
}

fn sensor_text(sensor: Option<&Value>, children: &Children) -> String {
    if children.status("sensor").is_none() {
        return String::from("\n  No sensor was started for this machine (--no-sensor).\n");
    }
    let Some(sensor) = sensor else {
        return String::from("\n  The sensor does not report yet; see Sensors on the page.\n");
    };
    let name = escaped(sensor.get("name").and_then(Value::as_str).unwrap_or("this machine"));
    let parts = sensor.get("collectors").and_then(Value::as_array).cloned().unwrap_or_default();
    let field = |part: &Value, key: &str| {
        escaped(part.get(key).and_then(Value::as_str).unwrap_or_default())
    };
    let lacking: Vec<&Value> = parts
        .iter()
        .filter(|part| !matches!(field(part, "status").as_str(), "active" | "stopped"))
        .collect();
    if lacking.is_empty() {
        return format!("\n  {name} is watched by this machine's own sensor.\n");
    }
    let mut text = format!("\n  {name} is watched, but its sensor sees less than it could:\n");
    for part in &lacking {
        text.push_str(&format!("    {}: {}", field(part, "component"), field(part, "reason")));
        let remedy = field(part, "remedy");
        if !remedy.is_empty() && !is_command(&remedy) {
            text.push_str(&format!("; {remedy}"));
        }
        text.push('\n');
    }
    let mut remedies = lacking.iter().map(|part| field(part, "remedy"));
    if let Some(command) = remedies.find(|remedy| is_command(remedy)) {
        text.push_str(&format!("  To mend it: {command}\n"));
    }
    text
}

/// Whether a remedy is one command that mends all that lacks rights.
fn is_command(remedy: &str) -> bool {
    remedy.starts_with("sudo ")
}
