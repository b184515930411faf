//! The element model: what kinds of things a sensor speaks of, and with which features.
//!
//! A kind is a row of a table: its number, name, nature (state or event), and its features, each
//! with a number, a type and whether it belongs to the natural key. Numbers never change and are
//! never used again. A kind from [`Kind::OWN_FIRST`] on is an agent's own and is described in the
//! log by a Define op; a built-in kind or feature newer than this table is described likewise.
//!
//! Not here: the encoding of ops ([`crate::op`]) and of rows ([`crate::row`]).

mod model;
mod value;

pub use model::*;
pub use value::*;
pub(crate) use value::{read_bool, read_reference};

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// What sort of thing an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind(pub u16);

impl Kind {
    /// The first of the kinds that an agent may define for itself.
    pub const OWN_FIRST: Self = Self(0x8000);

    /// Whether this kind is an agent's own.
    #[must_use]
    pub const fn is_own(self) -> bool {
        self.0 >= Self::OWN_FIRST.0
    }
}

/// One property of a kind. Below [`Feature::FIRST_OF_KIND`] the numbers mean the same in all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Feature(pub u16);

impl Feature {
    /// A number the source itself gave the fact, to compare with what arrives. Any kind; `u64`.
    pub const SOURCE_SEQ: Self = Self(0);
    /// Bit i is set when feature i exists but could not be read. Any kind; `u64`.
    pub const MISSING: Self = Self(1);
    /// Bit i is set when feature i was cut to its bound. Any kind; `u64`.
    pub const TRUNCATED: Self = Self(2);
    /// The first number that each kind uses as it likes.
    pub const FIRST_OF_KIND: Self = Self(3);
}

/// Whether elements of a kind stay or only happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nature {
    /// A row of the table: can be rebuilt by a keyframe.
    State,
    /// Happens once: cannot be rebuilt.
    Event,
}

/// The type of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// Unsigned integer.
    U64,
    /// Signed integer.
    I64,
    /// Yes or no.
    Bool,
    /// Bytes without meaning to the platform.
    Bytes,
    /// Text as the operating system gives it: bytes, usually UTF-8.
    Text,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A cryptographic hash; its length tells which.
    Hash,
    /// Monotonic nanoseconds since boot, counting suspend.
    Time,
    /// Another element, by kind and natural key.
    Ref,
}

/// Whether a feature belongs to its kind's natural key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Part of the natural key: always present, never changes.
    Key,
    /// May be absent and may change.
    Property,
}

/// One feature of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSpec<'a> {
    /// Its number.
    pub feature: Feature,
    /// Its name in queries, exports and pages.
    pub name: &'a str,
    /// Its type.
    pub value_type: Type,
    /// Whether it belongs to the natural key.
    pub role: Role,
}

/// Whether the natural key of a kind is only unique within one boot of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Unique on its machine for good.
    Machine,
    /// Unique within one boot: the boot id is part of the element's id.
    Boot,
}

/// One kind: a row of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSpec<'a> {
    /// Its number.
    pub kind: Kind,
    /// Its name in queries, exports and pages.
    pub name: &'a str,
    /// Whether it is state or event.
    pub nature: Nature,
    /// How far its natural key reaches.
    pub scope: Scope,
    /// Its features in ascending order of number, the common ones left out.
    pub features: &'a [FeatureSpec<'a>],
}

impl<'a> KindSpec<'a> {
    /// The spec of a feature, common ones included.
    #[must_use]
    pub fn feature(&self, feature: Feature) -> Option<FeatureSpec<'a>> {
        if feature < Feature::FIRST_OF_KIND {
            return COMMON_FEATURES.get(usize::from(feature.0)).copied();
        }
        self.features.iter().find(|spec| spec.feature == feature).copied()
    }

    /// The spec of a feature by its name, common ones included.
    #[must_use]
    pub fn feature_named(&self, name: &str) -> Option<FeatureSpec<'a>> {
        COMMON_FEATURES.iter().chain(self.features).find(|spec| spec.name == name).copied()
    }

    /// Bit i is set when feature i belongs to the natural key.
    #[must_use]
    pub fn key_mask(&self) -> u64 {
        let keys = self.features.iter().filter(|spec| spec.role == Role::Key);
        keys.fold(0, |mask, spec| mask | 1 << (spec.feature.0 & 63))
    }
}

/// The features that mean the same in every kind.
pub const COMMON_FEATURES: [FeatureSpec<'static>; 3] = [
    FeatureSpec {
        feature: Feature::SOURCE_SEQ,
        name: "source_seq",
        value_type: Type::U64,
        role: Role::Property,
    },
    FeatureSpec {
        feature: Feature::MISSING,
        name: "missing",
        value_type: Type::U64,
        role: Role::Property,
    },
    FeatureSpec {
        feature: Feature::TRUNCATED,
        name: "truncated",
        value_type: Type::U64,
        role: Role::Property,
    },
];

/// Whether `name` is what a kind or feature may be called: 1 to 255 lower-case letters, digits and
/// `_`, since it becomes a word of queries and pages.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(sound)
}

/// The built-in spec of `kind`.
#[must_use]
pub fn kind(kind: Kind) -> Option<&'static KindSpec<'static>> {
    MODEL.iter().find(|spec| spec.kind == kind)
}

/// The built-in kind called `name`.
#[must_use]
pub fn kind_named(name: &str) -> Option<&'static KindSpec<'static>> {
    MODEL.iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_in_order_and_without_repeats() {
        for pair in MODEL.windows(2) {
            assert!(pair[0].kind < pair[1].kind, "{} {}", pair[0].name, pair[1].name);
        }
        for spec in MODEL {
            assert!(!spec.kind.is_own());
            for pair in spec.features.windows(2) {
                assert!(pair[0].feature < pair[1].feature, "{}: {}", spec.name, pair[1].name);
            }
            for feature in spec.features {
                assert!(feature.feature >= Feature::FIRST_OF_KIND);
                assert!(feature.feature.0 < crate::limits::FEATURES_MAX);
                assert_eq!(spec.feature_named(feature.name), Some(*feature));
                assert!(is_name(feature.name) && is_name(spec.name), "{}", feature.name);
                assert!(!feature.role.is_key() || feature.value_type != Type::Ref);
            }
            assert_eq!(spec.key_mask() != 0, spec.nature == Nature::State, "{}", spec.name);
        }
    }
}
