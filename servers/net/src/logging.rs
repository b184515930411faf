//! The log: one line a record on standard error, `TIME LEVEL TARGET MESSAGE`.
//!
//! Not here: what is worth logging. Invariants: a record is one line whatever it contains (control
//! and direction-changing characters are escaped, since messages carry what peers sent); a lost
//! line never stops the server.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};

use crate::clock;

/// The environment variable that goes before the configured level.
pub const LEVEL_VARIABLE: &str = "LAPWING_LOG";

/// Longest message, in bytes; the rest is cut and marked.
const MESSAGE_BYTES_MAX: usize = 4096;

struct StandardError {
    // Written in one call each, but two processes' lines may still meet in one terminal; within one
    // they do not.
    line: Mutex<String>,
}

/// Starts logging at `configured`, or at the level in `LAPWING_LOG`. A second call changes the
/// level only.
pub fn start(configured: LevelFilter) {
    let level =
        std::env::var(LEVEL_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(configured);
    // Fails only when a logger is installed already, ours or a test's.
    let _ = log::set_boxed_logger(Box::new(StandardError { line: Mutex::new(String::new()) }));
    log::set_max_level(level);
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
        let Ok(mut line) = self.line.lock() else { return };
        line.clear();
        let message = record.args().to_string();
        format_line(
            &mut line,
            clock::unix_ms(),
            record.level().as_str(),
            record.target(),
            &message,
        );
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn format_line(line: &mut String, unix_ms: u64, level: &str, target: &str, message: &str) {
    let _ = write!(line, "{} {level:<5} {target} ", utc_time(unix_ms));
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX.min(message.len()));
    escape_into(line, &message[..end]);
    if end < message.len() {
        let _ = write!(line, "... ({} bytes)", message.len());
    }
    line.push('\n');
}

/// The text with everything escaped that could end a line, drive a terminal or turn the reading
/// direction.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    escape_into(&mut line, text);
    line
}

fn escape_into(line: &mut String, text: &str) {
    for character in text.chars() {
        let hostile = character.is_control()
            || matches!(
                character,
                '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{2069}'
                    | '\u{feff}'
            );
        if hostile {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
}

/// `2026-11-24T04:15:09.123Z`.
#[must_use]
pub fn utc_time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
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
    use super::{escaped, format_line, utc_time};

    #[test]
    fn times_are_utc() {
        assert_eq!(utc_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc_time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc_time(1_795_493_709_123), "2026-11-24T04:15:09.123Z");
        assert_eq!(utc_time(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
    }

    #[test]
    fn a_hostile_message_stays_one_harmless_line() {
        let mut line = String::new();
        format_line(&mut line, 0, "WARN", "lapwing_net", "a\nb\r\x1b[2J\u{202e}c\u{7f}");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("a\\nb\\r\\u{1b}[2J\\u{202e}c\\u{7f}\n"), "{line}");
    }

    #[test]
    fn plain_text_is_left_alone() {
        assert_eq!(escaped("Grüße, \"world\" \\o/"), "Grüße, \"world\" \\o/");
    }

    #[test]
    fn a_long_message_is_cut_and_marked() {
        let mut line = String::new();
        format_line(&mut line, 0, "INFO", "t", &"ü".repeat(5000));
        assert!(line.ends_with("... (10000 bytes)\n"));
    }
}
