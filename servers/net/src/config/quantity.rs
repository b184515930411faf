//! Sizes and periods as people write them: `"64 KiB"`, `"5 s"`, `"24h"`.
//!
//! Not here: clocks. Invariants: a unit is always written; binary units only, so that nobody has to
//! guess whether a kilobyte has 1000 or 1024 bytes; what `Display` prints parses back to the same
//! value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A number of bytes, written with a unit: `B`, `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time, written with a unit: `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const PERIOD_UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Size {
    /// The size in bytes, as far as this machine can address it.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_quantity(text, &SIZE_UNITS).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is not a size; write a whole number and B, KiB, MiB or GiB, \
                 such as \"64 KiB\""
            )
        })
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = parse_quantity(text, &PERIOD_UNITS_MS).ok_or_else(|| {
            format!(
                "{text:?} is not a duration; write a whole number and ms, s, m, h or d, \
                 such as \"5 s\""
            )
        })?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_quantity(f, self.0, &SIZE_UNITS)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show_quantity(f, ms, &PERIOD_UNITS_MS)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer)?.0.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer)?.0.parse().map_err(D::Error::custom)
    }
}

/// A string, or a bare number that is refused with words about units instead of about types.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity in quotes with its unit, such as \"64 KiB\" or \"5 s\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*scale)
}

fn show_quantity(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = units.iter().find(|(_, scale)| value != 0 && value.is_multiple_of(*scale));
    match (fits, units.last()) {
        (Some((name, scale)), _) => write!(f, "{} {name}", value / scale),
        (None, Some((name, scale))) => write!(f, "{} {name}", value / scale),
        (None, None) => write!(f, "{value}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Period, Size};

    #[test]
    fn sizes_parse_with_and_without_a_blank() {
        assert_eq!("64 KiB".parse(), Ok(Size(65_536)));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("0 B".parse(), Ok(Size(0)));
    }

    #[test]
    fn a_unit_is_required_and_decimal_units_are_refused() {
        for text in ["64", "64 KB", "64 kib", "-1 B", "1.5 MiB", "", "KiB", "99999999999 GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn periods_parse() {
        assert_eq!("24h".parse(), Ok(Period(Duration::from_secs(86_400))));
        assert_eq!("250 ms".parse(), Ok(Period(Duration::from_millis(250))));
        assert!("5 minutes".parse::<Period>().is_err());
    }

    #[test]
    fn what_is_shown_parses_back() {
        for text in ["1 d", "36 h", "90 s", "1500 ms", "0 ms"] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.to_string(), text);
        }
        for text in ["3 GiB", "1025 KiB", "1025 B"] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
    }
}
