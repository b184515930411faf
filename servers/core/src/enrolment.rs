//! Who may enrol: tokens, and what is stored of a sensor that did. Used wherever enrolment is
//! hosted, by the Registration server or, where there is none, by a Detection server.
//!
//! Not here: certificates, sockets, the store. Invariants: a token is kept as its SHA-256 alone;
//! whether one fits is found in a time that does not depend on which, or on how far it fits; the
//! same key enrols to the same sensor, so a repeated request makes no second one.

use std::fmt;

use lapwing_protocol::enrol::EnrolRequest;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::limits::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How long a sensor's certificate lasts: 30 days.
pub const CERTIFICATE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// The longest token, in bytes; far above what is made (32 to 64 characters).
pub const TOKEN_BYTES_MAX: usize = 256;
/// Tokens in force at once. Each request is compared with all of them: about 0.1 ms.
pub const TOKENS_MAX: usize = 4_096;

/// A token in force, by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
    /// When it ends, milliseconds since 1970; `None` never does.
    pub expires_ms: Option<u64>,
}

/// The SHA-256 of a token's text.
#[must_use]
pub fn digest_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Why an enrolment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentRefused {
    /// The token is not one in force, or its time is over. The peer is not told which.
    BadToken,
    /// The name or the operating system is empty, too long, or holds control characters.
    BadName,
}

impl fmt::Display for EnrolmentRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadToken => {
                "the enrolment token is unknown or expired; take the one that `lapwing up` wrote to \
                 its ready file, or make a new one"
            }
            Self::BadName => {
                "the machine's name and operating system must be 1 to 255 bytes without control \
                 characters; set a host name"
            }
        })
    }
}

impl std::error::Error for EnrolmentRefused {}

/// Judges a request at `now_unix_ms` by the tokens in force. Returns the digest of the token used.
///
/// # Errors
/// The request is refused, and why.
pub fn judge(
    now_unix_ms: u64,
    tokens: &[Token],
    request: &EnrolRequest<'_>,
) -> Result<[u8; 32], EnrolmentRefused> {
    let presented = digest_of(request.token);
    let mut fits = u8::from(request.token.len() > TOKEN_BYTES_MAX) << 1;
    for token in tokens {
        let in_force = token.expires_ms.is_none_or(|end| now_unix_ms < end);
        fits |= u8::from(in_force) & equal(&token.digest, &presented);
    }
    if fits != 1 && !cfg!(mutant = "token_unchecked") {
        return Err(EnrolmentRefused::BadToken);
    }
    if !is_name(request.name) || !is_name(request.os) {
        return Err(EnrolmentRefused::BadName);
    }
    Ok(presented)
}

/// 1 where both are the same, 0 where not; looks at every byte always.
fn equal(left: &[u8; 32], right: &[u8; 32]) -> u8 {
    let difference = left.iter().zip(right).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
    u8::from(std::hint::black_box(difference) == 0)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// A sensor that enrolled, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorRecord {
    /// Its machine's name when it enrolled.
    pub name: String,
    /// Its machine's operating system.
    pub os: String,
    /// SHA-256 of the operating system's machine id.
    pub machine_id: [u8; 32],
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// The token it used, as its digest.
    pub token: [u8; 32],
    /// When it first enrolled, milliseconds since 1970.
    pub enrolled_ms: u64,
    /// When its certificate ends, milliseconds since 1970.
    pub not_after_ms: u64,
}

/// How often a token was used, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// How many sensors enrolled by it.
    pub uses: u64,
    /// When the last one did, milliseconds since 1970.
    pub last_ms: u64,
}

/// The keys of enrolment in whichever store hosts it.
pub mod key {
    use super::SensorId;

    /// Before the key of every sensor.
    pub const SENSORS: &[u8] = b"enrol/sensor/";
    /// Behind the key of every sensor.
    pub const SENSORS_END: &[u8] = b"enrol/sensor0";
    /// Before the key of every token.
    pub const TOKENS: &[u8] = b"enrol/token/";
    /// Behind the key of every token.
    pub const TOKENS_END: &[u8] = b"enrol/token0";

    /// Of a [`super::SensorRecord`].
    #[must_use]
    pub fn sensor(sensor: SensorId) -> Vec<u8> {
        [SENSORS, &sensor.0].concat()
    }

    /// Of a [`super::TokenUse`].
    #[must_use]
    pub fn token(digest: &[u8; 32]) -> Vec<u8> {
        [TOKENS, digest].concat()
    }

    /// The sensor in a key that [`sensor`] made.
    #[must_use]
    pub fn sensor_of(key: &[u8]) -> Option<SensorId> {
        key.strip_prefix(SENSORS)?.try_into().ok().map(SensorId)
    }

    /// The digest in a key that [`token`] made.
    #[must_use]
    pub fn token_of(key: &[u8]) -> Option<[u8; 32]> {
        key.strip_prefix(TOKENS)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(token: &'a str, name: &'a str) -> EnrolRequest<'a> {
        EnrolRequest { token, request: &[], name, os: "Linux", machine_id: [0; 32] }
    }

    fn tokens() -> [Token; 2] {
        [("one", None), ("two", Some(1_000))]
            .map(|(text, expires_ms)| Token { digest: digest_of(text), expires_ms })
    }

    #[test]
    fn a_token_in_force_is_taken() {
        assert_eq!(judge(0, &tokens(), &request("one", "m")), Ok(digest_of("one")));
        assert_eq!(judge(999, &tokens(), &request("two", "m")), Ok(digest_of("two")));
    }

    #[test]
    fn unknown_expired_empty_and_huge_tokens_are_refused_alike() {
        let huge = "x".repeat(TOKEN_BYTES_MAX + 1);
        let known_huge = [Token { digest: digest_of(&huge), expires_ms: None }];
        for (now_ms, tokens, token) in [
            (0, tokens().as_slice(), "three"),
            (0, tokens().as_slice(), ""),
            (1_000, tokens().as_slice(), "two"),
            (0, [].as_slice(), "one"),
            (0, known_huge.as_slice(), huge.as_str()),
        ] {
            assert_eq!(
                judge(now_ms, tokens, &request(token, "m")),
                Err(EnrolmentRefused::BadToken),
                "{token:.9}"
            );
        }
    }

    #[test]
    fn hostile_names_are_refused_only_behind_a_good_token() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "a\nb", "\u{1b}[2J", long.as_str()] {
            let with = |token| judge(0, &tokens(), &request(token, name));
            assert_eq!(with("one"), Err(EnrolmentRefused::BadName), "{name:?}");
            assert_eq!(with("three"), Err(EnrolmentRefused::BadToken), "{name:?}");
        }
    }

    #[test]
    fn keys_lead_back_to_their_sensor() {
        let sensor = SensorId([0xff; 16]);
        let stored = key::sensor(sensor);
        assert_eq!(key::sensor_of(&stored), Some(sensor));
        assert!(key::SENSORS < stored.as_slice() && stored.as_slice() < key::SENSORS_END);
        assert_eq!(key::sensor_of(&key::token(&[0; 32])), None);
        assert_eq!(key::token_of(&key::token(&[5; 32])), Some([5; 32]));
    }
}
