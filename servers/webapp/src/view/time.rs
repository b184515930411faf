//! A moment as people and scripts read it: UTC, RFC 3339.
//!
//! Invariant: 0 is "never" and is shown as such, not as 1970.

use std::fmt;

use lapwing_net::logging::utc_time;
use serde::{Serialize, Serializer};

/// A moment of a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    ns: u64,
}

impl Time {
    /// From milliseconds since 1970.
    pub(crate) const fn from_ms(ms: u64) -> Self {
        Self { ns: ms.saturating_mul(1_000_000) }
    }

    /// From nanoseconds since 1970.
    pub(crate) const fn from_ns(ns: u64) -> Self {
        Self { ns }
    }

    /// Milliseconds since 1970.
    pub(crate) const fn ms(self) -> u64 {
        self.ns / 1_000_000
    }

    /// The moment at `ms`, or none for 0.
    pub(crate) fn known(ms: u64) -> Option<Self> {
        (ms != 0).then(|| Self::from_ms(ms))
    }

    /// How long before `now_ms` it was, in the largest unit that fits.
    pub(crate) fn age(self, now_ms: u64) -> String {
        let seconds = now_ms.saturating_sub(self.ms()) / 1000;
        match seconds {
            _ if self.ns == 0 => String::from("never"),
            0..5 => String::from("just now"),
            5..120 => format!("{seconds} s ago"),
            120..7_200 => format!("{} min ago", seconds / 60),
            7_200..172_800 => format!("{} h ago", seconds / 3600),
            _ => format!("{} days ago", seconds / 86_400),
        }
    }

    /// Hours, minutes and seconds of the day, UTC.
    pub(crate) fn clock(self) -> String {
        let text = utc_time(self.ms());
        text.get(11..19).unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ns == 0 {
            return f.write_str("never");
        }
        let text = utc_time(self.ms());
        let below_ms = self.ns % 1_000_000;
        if below_ms == 0 {
            return f.write_str(&text);
        }
        write!(f, "{}{below_ms:06}Z", text.trim_end_matches('Z'))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.ns == 0 { serializer.serialize_none() } else { serializer.collect_str(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn nanoseconds_are_kept_where_there_are_any() {
        assert_eq!(Time::from_ms(0).to_string(), "never");
        assert_eq!(Time::from_ms(951_782_400_000).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(
            Time::from_ns(951_782_400_000_000_042).to_string(),
            "2000-02-29T00:00:00.000000042Z"
        );
    }

    #[test]
    fn an_age_is_told_in_the_largest_unit() {
        let now_ms = 1_000_000_000;
        assert_eq!(Time::from_ms(now_ms - 61_000).age(now_ms), "61 s ago");
        assert_eq!(Time::from_ms(now_ms - 7_200_000).age(now_ms), "2 h ago");
        assert_eq!(Time::from_ms(0).age(now_ms), "never");
        assert_eq!(Time::from_ms(now_ms + 9).age(now_ms), "just now");
    }
}
