//! Indicators, their canonical writing, verdicts and the organisation's own lists.

use std::net::IpAddr;

use lapwing_protocol::intel::{KeyType, ReputationView, Verdict};
use serde::Serialize;

use super::Time;

/// An entry of the organisation's own lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reputation {
    pub(crate) key: String,
    #[serde(rename = "type")]
    pub(crate) key_type: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) source: &'static str,
    pub(crate) comment: String,
    pub(crate) owner: String,
    pub(crate) checked_at: Time,
    pub(crate) recheck_at: Option<Time>,
    pub(crate) expires_at: Option<Time>,
}

impl From<ReputationView<'_>> for Reputation {
    fn from(view: ReputationView<'_>) -> Self {
        Self {
            key: view.entry.indicator.key.to_owned(),
            key_type: view.entry.indicator.key_type.name(),
            verdict: view.entry.classification.name(),
            source: "private",
            comment: view.entry.comment.to_owned(),
            owner: view.entry.owner.to_owned(),
            checked_at: Time::from_ms(view.updated_ms),
            recheck_at: None,
            expires_at: view.entry.expires_ms.map(Time::from_ms),
        }
    }
}

/// What intel says of one indicator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VerdictLine {
    pub(crate) key: String,
    #[serde(rename = "type")]
    pub(crate) key_type: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) source: &'static str,
    pub(crate) comment: String,
    pub(crate) checked_at: Time,
    pub(crate) recheck_at: Option<Time>,
    pub(crate) expires_at: Option<Time>,
    /// Whether the one who should have been asked could not be reached.
    pub(crate) stale: bool,
}

impl From<Verdict<'_>> for VerdictLine {
    fn from(verdict: Verdict<'_>) -> Self {
        Self {
            key: verdict.indicator.key.to_owned(),
            key_type: verdict.indicator.key_type.name(),
            verdict: verdict.classification.name(),
            source: verdict.source.name(),
            comment: verdict.comment.to_owned(),
            checked_at: Time::from_ms(verdict.checked_ms),
            recheck_at: Time::known(verdict.recheck_ms),
            expires_at: None,
            stale: verdict.stale,
        }
    }
}

/// The key type of that name.
pub(crate) fn parse_key_type(name: &str) -> Option<KeyType> {
    [KeyType::Hash, KeyType::Ip, KeyType::Domain]
        .into_iter()
        .find(|key_type| key_type.name() == name)
}

/// The canonical writing of a key, or what is wrong with it.
pub(crate) fn canonical(key_type: KeyType, key: &str) -> Result<String, &'static str> {
    let key = key.trim();
    match key_type {
        KeyType::Hash => {
            let is_hash = matches!(key.len(), 32 | 40 | 64)
                && key.bytes().all(|digit| digit.is_ascii_hexdigit());
            let problem = "a hash has 32 (MD5), 40 (SHA-1) or 64 (SHA-256) hexadecimal digits";
            is_hash.then(|| key.to_ascii_lowercase()).ok_or(problem)
        }
        KeyType::Ip => {
            let problem = "this is not an IPv4 or IPv6 address";
            key.parse::<IpAddr>()
                .map(|address| address.to_canonical().to_string())
                .map_err(|_| problem)
        }
        KeyType::Domain => {
            let name = key.trim_end_matches('.').to_ascii_lowercase();
            let is_label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            let is_name = name.len() <= 253 && name.split('.').all(is_label);
            let problem =
                "a domain is written in letters, digits, hyphens and dots (xn-- for others)";
            is_name.then_some(name).ok_or(problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use lapwing_protocol::intel::KeyType;

    #[test]
    fn keys_have_one_writing() {
        assert_eq!(canonical(KeyType::Hash, &"AB".repeat(32)), Ok("ab".repeat(32)));
        assert_eq!(canonical(KeyType::Ip, "0:0::1").as_deref(), Ok("::1"));
        assert_eq!(canonical(KeyType::Ip, "::ffff:127.66.6.6").as_deref(), Ok("127.66.6.6"));
        assert_eq!(canonical(KeyType::Domain, " Bad.Example. ").as_deref(), Ok("bad.example"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(canonical(KeyType::Hash, "abc").is_err());
        assert!(canonical(KeyType::Ip, "127.0.0.1/8").is_err());
        assert!(canonical(KeyType::Domain, "a..b").is_err());
        assert!(canonical(KeyType::Domain, "<script>").is_err());
    }
}
