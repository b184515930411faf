//! The indicators of an element: what intel may have an opinion on.

use std::sync::Arc;

use lapwing_protocol::element::{self, Feature, Type};

use crate::change::{KindModel, OwnedValue};
use crate::graph::bit;
use crate::intel_cache::IndicatorKey;

/// Calls `tell` with each indicator among the `fields` of an element of kind `model`, and the bit
/// of its feature.
pub(super) fn each_indicator(
    model: &KindModel,
    fields: &[(Feature, OwnedValue)],
    tell: &mut dyn FnMut(u64, IndicatorKey),
) {
    let mask = indicator_features(model);
    if mask == 0 {
        return;
    }
    for (feature, value) in fields.iter().filter(|(feature, _)| mask & bit(*feature) != 0) {
        let tell = &mut |key| tell(bit(*feature), key);
        match value {
            OwnedValue::Hash(bytes) => IndicatorKey::hash(bytes).into_iter().for_each(tell),
            OwnedValue::Ip(address) => IndicatorKey::ip(*address).into_iter().for_each(tell),
            OwnedValue::Text(text) if *feature == element::dns::question => {
                domain(text).into_iter().for_each(tell);
            }
            OwnedValue::Text(text) => addresses(text).for_each(tell),
            OwnedValue::U64(_)
            | OwnedValue::I64(_)
            | OwnedValue::Bool(_)
            | OwnedValue::Bytes(_)
            | OwnedValue::Time(_)
            | OwnedValue::Element(_) => {}
        }
    }
}

/// Whether `key` is among the indicators of these fields.
pub(super) fn has_indicator(
    model: &KindModel,
    fields: &[(Feature, OwnedValue)],
    key: &IndicatorKey,
) -> bool {
    let mut found = false;
    each_indicator(model, fields, &mut |_, other| found |= other == *key);
    found
}

/// The features that hold indicators. Of an agent's own kinds these are all hashes and addresses.
fn indicator_features(model: &KindModel) -> u64 {
    match model.kind {
        element::process::KIND => {
            bit(element::process::image_hash)
                | bit(element::process::image_md5)
                | bit(element::process::image_sha1)
        }
        element::file_event::KIND => bit(element::file_event::hash),
        element::connection::KIND => bit(element::connection::remote_address),
        element::dns::KIND => bit(element::dns::question) | bit(element::dns::answers),
        kind if kind.is_own() => {
            let features = model.features.iter();
            features
                .filter(|feature| matches!(feature.value_type, Type::Hash | Type::Ip))
                .fold(0, |bits, feature| bits | bit(feature.feature))
        }
        _ => 0,
    }
}

fn domain(text: &Arc<[u8]>) -> Option<IndicatorKey> {
    IndicatorKey::domain(std::str::from_utf8(text).ok()?)
}

fn addresses(text: &Arc<[u8]>) -> impl Iterator<Item = IndicatorKey> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.split(',').filter_map(|part| IndicatorKey::ip(part.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::element::{Kind, Nature, Role, Scope, dns, kind, machine};

    use super::*;
    use crate::change::FeatureModel;

    fn causes(model: &KindModel, fields: &[(Feature, OwnedValue)]) -> Vec<String> {
        let mut causes = Vec::new();
        each_indicator(model, fields, &mut |_, key| causes.push(key.root_cause()));
        causes
    }

    #[test]
    fn a_lookup_has_its_name_and_its_answers() {
        let model = KindModel::new(kind(dns::KIND).unwrap());
        let fields = [
            (dns::question, OwnedValue::Text(b"Evil.Example".as_slice().into())),
            (dns::answers, OwnedValue::Text(b"10.0.0.1, cname.example,::1".as_slice().into())),
            (dns::server, OwnedValue::Ip("127.0.0.53".parse().unwrap())),
        ];
        assert_eq!(causes(&model, &fields), ["domain:evil.example", "ip:10.0.0.1", "ip:::1"]);
    }

    #[test]
    fn the_machine_id_is_no_indicator() {
        let model = KindModel::new(kind(machine::KIND).unwrap());
        let fields = [(machine::machine_id, OwnedValue::Hash([7; 32].as_slice().into()))];
        assert!(causes(&model, &fields).is_empty());
    }

    #[test]
    fn hashes_of_an_agents_own_kind_are_indicators() {
        let digest = FeatureModel {
            feature: Feature(3),
            name: "digest".into(),
            value_type: Type::Hash,
            role: Role::Property,
        };
        let model = KindModel {
            kind: Kind::OWN_FIRST,
            name: "image".into(),
            nature: Nature::Event,
            scope: Scope::Machine,
            features: vec![digest],
        };
        let fields = [(Feature(3), OwnedValue::Hash([1; 20].as_slice().into()))];
        assert_eq!(causes(&model, &fields), [format!("hash:{}", "01".repeat(20))]);
    }
}
