//! Threat intelligence: indicators, verdicts, and an organisation's own reputations.

use serde::{Deserialize, Serialize};

use crate::items::Items;

/// What an indicator is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// A file hash; its length tells MD5, SHA-1 or SHA-256.
    Hash,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A domain name, exactly.
    Domain,
}

impl KeyType {
    /// The type's name in API, metrics and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Ip => "ip",
            Self::Domain => "domain",
        }
    }
}

/// Something to have an opinion of. The key is canonical text: lower-case hex, an address as
/// written by the standard, a domain in lower case without its last dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Indicator<'a> {
    /// What it is.
    pub key_type: KeyType,
    /// Its canonical text.
    pub key: &'a str,
}

/// An opinion. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Classification {
    /// Nobody knows it.
    Unknown,
    /// Known, and no opinion.
    Indifferent,
    /// On an allowlist.
    Allowed,
    /// On a blocklist.
    Blocked,
    /// Known malware.
    Malware,
    /// Known ransomware.
    Ransomware,
    /// Not malicious, not wanted.
    Unwanted,
}

impl Classification {
    /// The classification's name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Indifferent => "indifferent",
            Self::Allowed => "allow",
            Self::Blocked => "block",
            Self::Malware => "malware",
            Self::Ransomware => "ransomware",
            Self::Unwanted => "unwanted",
        }
    }

    /// Whether nobody further need be asked.
    #[must_use]
    pub const fn is_definitive(self) -> bool {
        !matches!(self, Self::Unknown | Self::Indifferent)
    }

    /// Whether it speaks against the indicator.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Blocked | Self::Malware | Self::Ransomware | Self::Unwanted)
    }
}

/// Who gave a verdict. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Nobody.
    None,
    /// The organisation's own list.
    Private,
    /// The shared intel.
    Global,
}

impl Source {
    /// The source's name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Private => "private",
            Self::Global => "global",
        }
    }
}

/// Ask for verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassifyRequest<'a> {
    /// At most [`crate::limits::CLASSIFY_KEYS_MAX`].
    #[serde(borrow)]
    pub indicators: Items<'a, Indicator<'a>>,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict<'a> {
    /// Of what.
    #[serde(borrow)]
    pub indicator: Indicator<'a>,
    /// The opinion.
    pub classification: Classification,
    /// Whose it is.
    pub source: Source,
    /// Why, for a person.
    pub comment: &'a str,
    /// When it was given, milliseconds since 1970.
    pub checked_ms: u64,
    /// When it must be asked for again, milliseconds since 1970.
    pub recheck_ms: u64,
    /// Whether the one who should have been asked could not be reached.
    pub stale: bool,
}

/// Put an indicator on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationPut<'a> {
    /// Of what.
    #[serde(borrow)]
    pub indicator: Indicator<'a>,
    /// Allowed or Blocked at Private; any at Global.
    pub classification: Classification,
    /// Why, for a person.
    pub comment: &'a str,
    /// Who put it there.
    pub owner: &'a str,
    /// When it ends, milliseconds since 1970; `None` = never.
    pub expires_ms: Option<u64>,
}

/// Take an indicator off the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationRemove<'a> {
    /// Of what.
    #[serde(borrow)]
    pub indicator: Indicator<'a>,
}

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationView<'a> {
    /// What was put.
    #[serde(borrow)]
    pub entry: ReputationPut<'a>,
    /// When, milliseconds since 1970.
    pub updated_ms: u64,
}

/// A verdict that is no longer what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationChange<'a> {
    /// The verdict as it is now.
    #[serde(borrow)]
    pub verdict: Verdict<'a>,
}
