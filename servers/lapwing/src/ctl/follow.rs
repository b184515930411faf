//! What streams: exported events, and MalOps as they change.

use std::io::Write;

use axum::http::Method;
use serde_json::Value;

use super::Form;
use super::connection::{Connection, encoded};
use super::problem::Problem;
use super::table::{json, json_line, text_at};
use crate::exit::Exit;

/// How long the server is asked to wait for a change, in milliseconds.
const WAIT_MS: u32 = 15_000;

/// Writes every stored fact, one object a line.
pub(super) async fn export(connection: &Connection, sensor: Option<&str>) -> Result<Exit, Problem> {
    let query = sensor.map(|sensor| format!("?sensor={}", encoded(sensor))).unwrap_or_default();
    let mut answering = connection.stream(&format!("/events{query}")).await?;
    let mut out = std::io::stdout().lock();
    let mut line = Vec::new();
    let mut last = Vec::new();
    loop {
        let piece = answering.next().await.map_err(|error| Problem::of_http(&error, "/events"))?;
        let Some(piece) = piece else { break };
        for byte in piece {
            line.push(byte);
            if byte == b'\n' {
                if is_notice(&line) {
                    last = std::mem::take(&mut line);
                } else if write_line(&mut out, &line).is_err() {
                    // Whoever read has enough: a closed pipe is no failure.
                    return Ok(Exit::Done);
                }
                line.clear();
            }
        }
    }
    let _ = out.flush();
    if last.is_empty() {
        return Ok(Exit::Done);
    }
    let notice: Value = serde_json::from_slice(&last).unwrap_or_default();
    eprintln!("lapwing ctl: not everything: {}", text_at(&notice, "reason"));
    Ok(Exit::Partial)
}

/// Writes one object; its strings are a sensor's, and the reader may be a terminal.
fn write_line(out: &mut impl Write, line: &[u8]) -> std::io::Result<()> {
    match std::str::from_utf8(line.trim_ascii_end()) {
        Ok(text) => writeln!(out, "{}", json_line(text)),
        Err(_) => out.write_all(line),
    }
}

/// The export's last line, where something is missing. No fact has such a first key.
fn is_notice(line: &[u8]) -> bool {
    line.starts_with(b"{\"partial\":true")
}

/// Writes each MalOp as it is and as it changes, until interrupted.
pub(super) async fn malops(connection: &Connection, form: Form) -> Result<Exit, Problem> {
    let mut cursor = Value::from(0);
    let mut incarnation = Value::Null;
    loop {
        let known = incarnation.as_str().map(|text| format!("&incarnation={text}"));
        let path = format!(
            "/malops/changes?cursor={cursor}&wait_ms={WAIT_MS}{}",
            known.unwrap_or_default()
        );
        let answer = connection.ask(Method::GET, &path, None).await?.value;
        for malop in answer.get("malops").and_then(Value::as_array).into_iter().flatten() {
            let line = match form {
                Form::Json => json(malop),
                Form::Table => ["last_seen", "severity", "status", "machines.name", "title", "id"]
                    .map(|path| text_at(malop, path))
                    .join("  "),
            };
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return Ok(Exit::Done);
            }
        }
        cursor = answer.get("cursor").cloned().unwrap_or(Value::from(0));
        incarnation = answer.get("incarnation").cloned().unwrap_or_default();
    }
}
