//! The rules of intel: what a bad verdict on an indicator makes of an element that has it.
//!
//! One rule for each sort of indicator and verdict. A private blocklist entry is the organisation's
//! own word and is High; what others call malware is Medium, unwanted software Low. Each is a
//! suspicion by itself.

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element;
use lapwing_protocol::intel::{Classification, KeyType};

use super::finding::Finding;
use crate::change::OwnedValue;
use crate::graph::Element;
use crate::intel_cache::{IndicatorKey, OwnedVerdict};
use crate::view::{OwnedCell, OwnedNamedCell};

/// What the verdict says of `element`; `None` unless it is bad.
pub(super) fn judge(element: &Element, verdict: &OwnedVerdict) -> Option<Finding> {
    let key_type = verdict.key.key_type();
    let (rule, severity) = rule(key_type, verdict.classification)?;
    let (activity, techniques) = meaning(key_type, verdict.classification);
    Some(Finding {
        rule,
        title: title(element, verdict),
        severity,
        activity,
        suspicious: true,
        techniques,
        root_cause: root_cause(element, &verdict.key),
        event_key: verdict.key.root_cause(),
        reputation: reputation(verdict),
    })
}

fn rule(key_type: KeyType, classification: Classification) -> Option<(&'static str, Severity)> {
    use Classification as C;
    use KeyType as K;
    Some(match (key_type, classification) {
        (K::Hash, C::Blocked) => ("blocklisted_hash", Severity::High),
        (K::Hash, C::Malware) => ("malware_by_hash", Severity::Medium),
        (K::Hash, C::Ransomware) => ("ransomware_by_hash", Severity::High),
        (K::Hash, C::Unwanted) => ("unwanted_by_hash", Severity::Low),
        (K::Ip, C::Blocked) => ("blocklisted_address", Severity::High),
        (K::Ip, C::Malware | C::Ransomware) => ("malicious_address", Severity::Medium),
        (K::Ip, C::Unwanted) => ("unwanted_address", Severity::Low),
        (K::Domain, C::Blocked) => ("blocklisted_domain", Severity::High),
        (K::Domain, C::Malware | C::Ransomware) => ("malicious_domain", Severity::Medium),
        (K::Domain, C::Unwanted) => ("unwanted_domain", Severity::Low),
        (_, C::Unknown | C::Indifferent | C::Allowed) => return None,
    })
}

fn meaning(
    key_type: KeyType,
    classification: Classification,
) -> (ActivityType, &'static [&'static str]) {
    match (key_type, classification) {
        (KeyType::Hash, Classification::Ransomware) => {
            (ActivityType::Ransomware, &["T1204.002", "T1486"])
        }
        (KeyType::Hash, _) => (ActivityType::MaliciousInfection, &["T1204.002"]),
        (KeyType::Ip, _) => (ActivityType::CommandAndControl, &["T1071"]),
        (KeyType::Domain, _) => (ActivityType::CommandAndControl, &["T1071.004"]),
    }
}

fn title(element: &Element, verdict: &OwnedVerdict) -> String {
    let opinion = match verdict.classification {
        Classification::Blocked => "blocklisted",
        Classification::Malware => "malicious",
        Classification::Ransomware => "ransomware",
        _ => "unwanted",
    };
    match (&verdict.key, element.kind()) {
        (IndicatorKey::Hash(_), element::process::KIND) => {
            format!("{} runs a {opinion} file", element.label())
        }
        (IndicatorKey::Hash(_), _) => format!("{opinion} file {}", element.label()),
        (IndicatorKey::Ip(address), element::connection::KIND) => {
            format!("connection to the {opinion} address {address}")
        }
        (IndicatorKey::Ip(address), _) => {
            format!("{} led to the {opinion} address {address}", element.label())
        }
        (IndicatorKey::Domain(name), _) => format!("lookup of the {opinion} domain {name}"),
    }
}

/// The cause to group by. Whichever hash of a file is listed, the cause is its SHA-256 where that
/// is known, so that one file is one cause.
fn root_cause(element: &Element, key: &IndicatorKey) -> String {
    if key.key_type() == KeyType::Hash
        && element.kind() == element::process::KIND
        && let Some(OwnedValue::Hash(bytes)) = element.value(element::process::image_hash)
        && let Some(sha256) = IndicatorKey::hash(bytes)
    {
        return sha256.root_cause();
    }
    key.root_cause()
}

fn reputation(verdict: &OwnedVerdict) -> Vec<OwnedNamedCell> {
    let text = |name: &str, text: &str| (name.to_owned(), OwnedCell::Text(text.to_owned()));
    vec![
        text("key", &verdict.key.to_string()),
        text("type", verdict.key.key_type().name()),
        text("verdict", verdict.classification.name()),
        text("source", verdict.source.name()),
        text("comment", &verdict.comment),
        ("checked_ms".to_owned(), OwnedCell::U64(verdict.checked_ms)),
    ]
}
