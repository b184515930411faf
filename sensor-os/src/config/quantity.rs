//! Sizes as people write them: `"64 MiB"`.
//!
//! Invariant: a unit is always written, and only binary ones are taken, so that nobody has to guess
//! whether a kilobyte has 1000 or 1024 bytes.

use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A number of bytes, written with a unit: `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text.trim()).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is not a size; \
                 write a whole number and B, KiB, MiB or GiB, such as \"256 MiB\""
            )
        })
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)?.parse().map_err(D::Error::custom)
    }
}

/// Takes a string, and a bare number too, so that it is refused with words about units.
struct Visitor;

impl serde::de::Visitor<'_> for Visitor {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a size in quotes with its unit, such as \"256 MiB\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn a_unit_is_required_and_decimal_units_are_refused() {
        assert_eq!("64 KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1GiB".parse(), Ok(Size(1 << 30)));
        for text in ["64", "64 KB", "64 kib", "-1 B", "1.5 MiB", "", "KiB", "99999999999 GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
