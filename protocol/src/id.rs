//! The 16-byte names of things, and the lane.
//!
//! Ids are opaque and compared as bytes. They are shown, and parsed, as 32 lower-case hex digits.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DecodeError;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl FromStr for $name {
            type Err = DecodeError;
            fn from_str(text: &str) -> Result<Self, DecodeError> {
                parse_hex(text.as_bytes()).map(Self)
            }
        }
    )*};
}

id! {
    /// One installation of the platform; everything an organisation's CA signs belongs to it.
    DeploymentId;
    /// One sensor, given at enrolment and carried in its certificate.
    SensorId;
    /// One server.
    ServerId;
    /// One log of one lane: random, made by the sensor.
    LogId;
    /// One boot of a machine.
    BootId;
    /// One element of the graph, derived from its natural key.
    ElementGuid;
    /// One evidence, derived from rule, element and event key.
    EvidenceId;
    /// One MalOp, derived from its root cause.
    MalOpId;
    /// A life of a feed: changes when its store is made or restored.
    Incarnation;
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_hex(text: &[u8]) -> Result<[u8; 16], DecodeError> {
    let mut id = [0; 16];
    if text.len() != 32 {
        return Err(DecodeError::Shape);
    }
    for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
        let (Some(high), Some(low)) = (hex_digit(pair[0]), hex_digit(pair[1])) else {
            return Err(DecodeError::Shape);
        };
        *byte = high << 4 | low;
    }
    Ok(id)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// One of the two logs a sensor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// What happens on the machine.
    Bulk,
    /// Command outcomes and findings; overtakes bulk. Its chunks are always self-contained.
    Urgent,
}

impl Lane {
    /// Both lanes, the urgent one first: the order in which they are served.
    pub const BY_URGENCY: [Self; 2] = [Self::Urgent, Self::Bulk];

    /// The lane's position in an array of lanes.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn ids_are_shown_and_parsed_as_lower_case_hex() {
        let id = SensorId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("AB".repeat(16).parse::<SensorId>(), Err(DecodeError::Shape));
        assert_eq!("ab".parse::<SensorId>(), Err(DecodeError::Shape));
    }
}
