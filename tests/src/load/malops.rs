//! How long it takes from an event to a MalOp about it, as a person at the page would see it.
//!
//! The WebApp is asked for changes of MalOps all the time. The evidence of a MalOp says of which
//! sensor it is and when the event claims to have happened, and by that the moment is found at
//! which the event was handed to the core.
//!
//! Not here: what raises MalOps; a reputation or a rule must be set before the run. Invariant: a
//! MalOp counts once, and not when it was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::http::Method;
use lapwing_net::http::Client;
use lapwing_net::identity::Role;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use serde_json::Value;

use super::machine::Tally;
use super::target::Target;

/// How long the WebApp is asked to wait for a change, in milliseconds.
const WAIT_MS: u32 = 1_000;

/// A MalOp that appeared.
#[derive(Clone, Debug)]
pub(super) struct Appeared {
    at: Instant,
    /// Of each evidence: sensor, and when its event claims to have happened, in milliseconds.
    evidence: Vec<(String, u64)>,
}

/// Asks for changes until `stop` is closed; gives the MalOps that were not there at the beginning.
pub(super) async fn watch(
    target: Target,
    started: smol::channel::Sender<()>,
    stop: smol::channel::Receiver<()>,
) -> Result<Vec<Appeared>, String> {
    let expected = ExpectedPeer { role: Some(Role::Webapp), ..ExpectedPeer::default() };
    let tls = ClientTls::anonymous(&target.ca_file, Plane::Http, expected)
        .map_err(|error| error.to_string())?;
    let client = Client::new(tls).with_token(&target.api_token);
    let base = format!("{}/api/v1/malops/changes", target.web.trim_end_matches('/'));
    let (mut known, mut appeared) = (BTreeSet::new(), Vec::new());
    let (mut cursor, mut incarnation, mut is_first) = (Value::from(0), Value::Null, true);
    loop {
        let of = incarnation.as_str().map(|text| format!("&incarnation={text}"));
        let wait_ms = if is_first { 0 } else { WAIT_MS };
        let url = format!("{base}?cursor={cursor}&wait_ms={wait_ms}{}", of.unwrap_or_default());
        let asked = async { Some(client.send(Method::GET, &url, &[], Vec::new()).await) };
        let stopped = async {
            let _ = stop.recv().await;
            None
        };
        let Some(answer) = smol::future::or(asked, stopped).await else { return Ok(appeared) };
        let Ok(answer) = answer else {
            super::wait::pause(Duration::from_millis(u64::from(WAIT_MS))).await;
            continue;
        };
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let malops = answer.get("malops").and_then(Value::as_array);
        let next = answer.get("cursor").cloned().unwrap_or(Value::from(0));
        for malop in malops.into_iter().flatten() {
            let id = malop.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            if known.insert(id) && !is_first {
                appeared.push(Appeared { at: Instant::now(), evidence: evidence(malop) });
            }
        }
        incarnation = answer.get("incarnation").cloned().unwrap_or_default();
        // The first round goes on until nothing is left of what was there.
        if is_first && next == cursor {
            is_first = false;
            let _ = started.try_send(());
        }
        cursor = next;
    }
}

fn evidence(malop: &Value) -> Vec<(String, u64)> {
    let list = malop.get("evidence").and_then(Value::as_array);
    let each = list.into_iter().flatten().filter_map(|evidence| {
        let sensor = evidence.get("sensor")?.as_str()?.to_owned();
        Some((sensor, milliseconds(evidence.get("time")?)?))
    });
    each.collect()
}

/// A time of the API: RFC 3339 text in UTC.
fn milliseconds(time: &Value) -> Option<u64> {
    let text = time.as_str()?;
    let (date, clock) = text.trim_end_matches('Z').split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.split(':');
    let hour: u64 = clock.next()?.parse().ok()?;
    let minute: u64 = clock.next()?.parse().ok()?;
    let seconds: f64 = clock.next()?.parse().ok()?;
    // Days since 1970 of a date in the Gregorian calendar, years beginning in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let whole = u64::try_from(days).ok()? * 86_400 + hour * 3_600 + minute * 60;
    Some(whole * 1_000 + (seconds * 1_000.0).round() as u64)
}

/// How long each MalOp took from its first event.
pub(super) fn delays(appeared: &[Appeared], tallies: &BTreeMap<String, &Tally>) -> Vec<Duration> {
    let delay = |malop: &Appeared| {
        let handed = malop.evidence.iter().filter_map(|(sensor, claimed_ms)| {
            let handed = &tallies.get(sensor)?.handed;
            let behind = handed.partition_point(|(first_ms, _)| first_ms <= claimed_ms);
            // A millisecond is lost in rounding.
            handed.get(behind.saturating_sub(1)).map(|(_, at)| *at)
        });
        handed.min().map(|at| malop.at.saturating_duration_since(at))
    };
    appeared.iter().filter_map(delay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_api_are_read() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:34:56.789Z", 1_709_210_096_789),
            ("2026-11-24T07:22:16.000Z", 1_795_504_936_000),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(&Value::from(text)), Some(expected), "{text}");
        }
        assert_eq!(milliseconds(&Value::from("yesterday")), None);
    }

    #[test]
    fn a_malop_counts_from_the_batch_that_held_its_event() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let tally = Tally { handed: vec![(100, began), (200, after(5))], ..Tally::default() };
        let tallies = BTreeMap::from([("s".to_owned(), &tally)]);
        let malop = Appeared { at: after(50), evidence: vec![("s".into(), 150)] };
        assert_eq!(delays(&[malop], &tallies), [Duration::from_millis(50)]);
    }
}
