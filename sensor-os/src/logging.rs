//! The log: one line a record on standard error, `TIME LEVEL TARGET MESSAGE`.
//!
//! Not here: what is worth logging. Invariants: a record is one line whatever it contains; a lost
//! line never stops the sensor; a program that links the sensor and has a logger keeps its own.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

use crate::clock;
use crate::escape::escaped;

/// The environment variable that goes before the configured level.
const LEVEL_VARIABLE: &str = "LAPWING_LOG";
/// Longest message, in bytes; the rest is cut and marked.
const MESSAGE_BYTES_MAX: usize = 4_096;

struct StandardError;

/// Starts logging at `configured`, or at the level in `LAPWING_LOG`.
pub(crate) fn start(configured: LevelFilter) {
    let level =
        std::env::var(LEVEL_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(configured);
    // Fails only when a logger is installed already, and then that one stays.
    if log::set_boxed_logger(Box::new(StandardError)).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // rustls logs each handshake at debug; a developer who wants that asks for trace.
        metadata.level() <= log::max_level()
            && (metadata.target().starts_with("lapwing")
                || metadata.level() <= log::Level::Warn
                || log::max_level() == LevelFilter::Trace)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX.min(message.len()));
        let cut = if end < message.len() { "..." } else { "" };
        let line = format!(
            "{} {:<5} {} {}{cut}\n",
            utc_time(clock::unix_ms()),
            record.level().as_str(),
            record.target(),
            escaped(&message[..end]),
        );
        // One write, so that lines of several threads do not mix. Nobody is left to tell when
        // standard error is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// `2026-11-24T04:15:09.123Z`.
#[must_use]
pub(crate) fn utc_time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

/// Days since 1970 as (year, month, day), by the 400-year cycle of the Gregorian calendar counted
/// from a first of March, so that the leap day is a year's last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let cycle = from_march_0000 / 146_097;
    let day_of_cycle = from_march_0000 % 146_097;
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
        - day_of_cycle / 146_096)
        / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::utc_time;

    #[test]
    fn times_are_utc() {
        assert_eq!(utc_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc_time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc_time(1_795_493_709_123), "2026-11-24T04:15:09.123Z");
    }
}
