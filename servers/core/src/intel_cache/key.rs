//! An indicator in canonical form, cheap to compare, and the verdict on it as this server keeps it.
//!
//! Invariant: two spellings of one indicator are one key, and its text is what
//! `protocol::intel` calls canonical.

use core::net::IpAddr;
use std::fmt;
use std::sync::Arc;

use lapwing_protocol::intel::{Classification, Indicator, KeyType, Source, Verdict};

/// The longest domain name, in bytes.
const DOMAIN_BYTES_MAX: usize = 253;

/// An indicator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndicatorKey {
    /// A file hash of 16, 20 or 32 bytes.
    Hash(Arc<[u8]>),
    /// An address; one of IPv4 is never written as one of IPv6.
    Ip(IpAddr),
    /// A domain in lower case without its last dot.
    Domain(Arc<str>),
}

impl IndicatorKey {
    /// A hash, where it has the length of one.
    #[must_use]
    pub fn hash(bytes: &Arc<[u8]>) -> Option<Self> {
        matches!(bytes.len(), 16 | 20 | 32).then(|| Self::Hash(Arc::clone(bytes)))
    }

    /// An address; the unspecified one names nobody.
    #[must_use]
    pub fn ip(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        (!address.is_unspecified()).then_some(Self::Ip(address))
    }

    /// A domain, where `text` can be one.
    #[must_use]
    pub fn domain(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_sound = !text.is_empty()
            && text.len() <= DOMAIN_BYTES_MAX
            && text.chars().all(|it| !it.is_whitespace() && !it.is_control());
        is_sound.then(|| Self::Domain(text.to_ascii_lowercase().into()))
    }

    /// The key of an indicator on the wire, where it is sound.
    #[must_use]
    pub fn from_indicator(indicator: Indicator<'_>) -> Option<Self> {
        match indicator.key_type {
            KeyType::Hash => Self::hash(&bytes_of_hex(indicator.key)?.into()),
            KeyType::Ip => Self::ip(indicator.key.parse().ok()?),
            KeyType::Domain => Self::domain(indicator.key),
        }
    }

    /// What it is.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Hash(_) => KeyType::Hash,
            Self::Ip(_) => KeyType::Ip,
            Self::Domain(_) => KeyType::Domain,
        }
    }

    /// The cause that everything of this indicator shares, such as `hash:<hex>`.
    #[must_use]
    pub fn root_cause(&self) -> String {
        format!("{}:{self}", self.key_type().name())
    }
}

/// The canonical text.
impl fmt::Display for IndicatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Domain(name) => f.write_str(name),
        }
    }
}

/// The bytes of hexadecimal text, upper or lower case.
fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

/// A verdict, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedVerdict {
    /// Of what.
    pub key: IndicatorKey,
    /// The opinion.
    pub classification: Classification,
    /// Whose it is.
    pub source: Source,
    /// Why, for a person.
    pub comment: String,
    /// When it was given, milliseconds since 1970.
    pub checked_ms: u64,
    /// When it must be asked for again, milliseconds since 1970.
    pub recheck_ms: u64,
    /// Whether the one who should have been asked could not be reached.
    pub stale: bool,
}

impl OwnedVerdict {
    /// The owned twin of `verdict`, where its indicator is sound.
    #[must_use]
    pub fn from_wire(verdict: &Verdict<'_>) -> Option<Self> {
        Some(Self {
            key: IndicatorKey::from_indicator(verdict.indicator)?,
            classification: verdict.classification,
            source: verdict.source,
            comment: verdict.comment.to_owned(),
            checked_ms: verdict.checked_ms,
            recheck_ms: verdict.recheck_ms,
            stale: verdict.stale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key_type: KeyType, key: &str) -> Option<String> {
        IndicatorKey::from_indicator(Indicator { key_type, key }).map(|key| key.root_cause())
    }

    #[test]
    fn spellings_of_one_indicator_are_one_key() {
        assert_eq!(key(KeyType::Domain, "Evil.Example."), Some("domain:evil.example".to_owned()));
        assert_eq!(key(KeyType::Ip, "::ffff:127.66.6.6"), Some("ip:127.66.6.6".to_owned()));
        assert_eq!(key(KeyType::Ip, "2001:DB8::0"), Some("ip:2001:db8::".to_owned()));
        let md5 = "AB".repeat(16);
        assert_eq!(key(KeyType::Hash, &md5), Some(format!("hash:{}", md5.to_lowercase())));
    }

    #[test]
    fn what_is_no_indicator_is_none() {
        for (key_type, text) in [
            (KeyType::Domain, ""),
            (KeyType::Domain, "."),
            (KeyType::Domain, "a b"),
            (KeyType::Ip, "0.0.0.0"),
            (KeyType::Ip, "::"),
            (KeyType::Ip, "127.1"),
            (KeyType::Hash, "abc"),
            (KeyType::Hash, "zz"),
            (KeyType::Hash, "abcd"),
        ] {
            assert_eq!(key(key_type, text), None, "{text}");
        }
    }
}
