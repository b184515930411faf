//! A change: one op of a sensor, decoded, resolved and owned. What the graph lives on.
//!
//! The decoder makes changes out of chunks; nobody else does. Text is shared: a string that a
//! chunk names by its slot is the same allocation each time, so it may be compared by pointer
//! first.

use core::net::IpAddr;
use std::fmt;
use std::sync::Arc;

use lapwing_protocol::element::{Feature, Kind, KindSpec, Nature, Role, Scope, Type, Value};
use lapwing_protocol::id::ElementGuid;

/// A kind as this server knows it: built in, or defined by a sensor in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindModel {
    /// Its number.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is state or event.
    pub nature: Nature,
    /// How far its natural key reaches.
    pub scope: Scope,
    /// Its features in ascending order of number, the common ones first.
    pub features: Vec<FeatureModel>,
}

/// One feature of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureModel {
    /// Its number.
    pub feature: Feature,
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub value_type: Type,
    /// Whether it belongs to the natural key.
    pub role: Role,
}

impl KindModel {
    /// The owned twin of `spec`.
    #[must_use]
    pub fn new(spec: &KindSpec<'_>) -> Self {
        let features = lapwing_protocol::element::COMMON_FEATURES.iter().chain(spec.features);
        Self {
            kind: spec.kind,
            name: spec.name.into(),
            nature: spec.nature,
            scope: spec.scope,
            features: features
                .map(|feature| FeatureModel {
                    feature: feature.feature,
                    name: feature.name.into(),
                    value_type: feature.value_type,
                    role: feature.role,
                })
                .collect(),
        }
    }

    /// The feature of that number.
    #[must_use]
    pub fn feature(&self, feature: Feature) -> Option<&FeatureModel> {
        self.features.iter().find(|model| model.feature == feature)
    }

    /// The feature of that name.
    #[must_use]
    pub fn feature_named(&self, name: &str) -> Option<&FeatureModel> {
        self.features.iter().find(|model| &*model.name == name)
    }
}

/// A value, owned and resolved: a reference has become the id of the element it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// Bytes without meaning to the platform.
    Bytes(Arc<[u8]>),
    /// Text as the operating system gave it.
    Text(Arc<[u8]>),
    /// An address.
    Ip(IpAddr),
    /// A hash of 16, 20 or 32 bytes.
    Hash(Arc<[u8]>),
    /// Monotonic nanoseconds since boot, counting suspend.
    Time(u64),
    /// Another element of the same sensor.
    Element(ElementGuid),
}

impl OwnedValue {
    /// The text, where it is one; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes)),
            _ => None,
        }
    }

    /// The number, where it is an unsigned one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::U64(number) | Self::Time(number) => Some(*number),
            _ => None,
        }
    }

    /// The length of its text or bytes; 0 for what has none.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) | Self::Text(bytes) | Self::Hash(bytes) => bytes.len(),
            Self::U64(_)
            | Self::I64(_)
            | Self::Bool(_)
            | Self::Ip(_)
            | Self::Time(_)
            | Self::Element(_) => 0,
        }
    }

    /// The owned twin of a protocol value; `None` for a reference, which only a decoder resolves.
    #[must_use]
    pub fn from_plain(value: Value<'_>) -> Option<Self> {
        Some(match value {
            Value::U64(value) => Self::U64(value),
            Value::I64(value) => Self::I64(value),
            Value::Bool(value) => Self::Bool(value),
            Value::Bytes(bytes) => Self::Bytes(bytes.into()),
            Value::Text(bytes) => Self::Text(bytes.into()),
            Value::Ip(address) => Self::Ip(address),
            Value::Hash(bytes) => Self::Hash(bytes.into()),
            Value::Time(time) => Self::Time(time),
            Value::Ref(_) => return None,
        })
    }
}

/// For people and exports: hashes and bytes as hex, text lossily.
impl fmt::Display for OwnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U64(value) | Self::Time(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Element(guid) => write!(f, "{guid}"),
            Self::Bytes(bytes) | Self::Hash(bytes) => {
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// What became of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is as the fields say; what is not named is absent.
    Put,
    /// A keyframe states it again: as Put, but not a new fact.
    Restated,
    /// The named features are so.
    Patched,
    /// It ended; the fields are its last.
    Ended,
    /// It is no longer reported; it may go on.
    Forgotten,
    /// An event: it happened.
    Happened,
}

impl What {
    /// Its name in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Restated => "restated",
            Self::Patched => "patch",
            Self::Ended => "remove",
            Self::Forgotten => "forget",
            Self::Happened => "event",
        }
    }
}

/// One op of a sensor, decoded and resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its element.
    pub guid: ElementGuid,
    /// The element's kind.
    pub model: Arc<KindModel>,
    /// What became of it.
    pub what: What,
    /// When, in monotonic nanoseconds since the sensor's boot.
    pub time_ns: u64,
    /// When by the sensor's claimed wall clock, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// The fact's index in its log; `None` for what is no fact (restated, forgotten by a keyframe).
    pub index: Option<u64>,
    /// The source's own number.
    pub source_seq: Option<u64>,
    /// The fields in ascending order of feature, `source_seq` left out.
    pub fields: Vec<(Feature, OwnedValue)>,
}

impl Change {
    /// The value of `feature`, where the change names it.
    #[must_use]
    pub fn value(&self, feature: Feature) -> Option<&OwnedValue> {
        self.fields.iter().find(|(of, _)| *of == feature).map(|(_, value)| value)
    }
}
