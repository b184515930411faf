//! The element model, read from docs/protocol.md itself, and definitions of further kinds.
//!
//! Not here: how values are written (`op.rs`, `decode.rs`). Invariant: what the page says of a kind
//! is what this program believes of it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::primitive::{Items, choice, message};

const PAGE: &str = include_str!("../../../../docs/protocol.md");

choice! {
    /// The type of a feature.
    Type {
        U64 = 0, I64 = 1, Bool = 2, Bytes = 3, Text = 4, Ip = 5, Hash = 6, Time = 7, Ref = 8,
    }
}

choice! {
    /// Whether elements of a kind stay or only happen.
    Nature { State = 0, Event = 1 }
}

choice! {
    /// How far a natural key reaches.
    Scope { Machine = 0, Boot = 1 }
}

choice! {
    /// Whether a feature belongs to the natural key.
    Role { Key = 0, Property = 1 }
}

message! {
    /// One feature of a kind.
    FeatureSpec { feature: u16, name: String, value_type: Type, role: Role }
}

message! {
    /// A kind: what a Define op carries.
    Definition {
        kind: u16, name: String, nature: Nature, scope: Scope, features: Items<FeatureSpec>,
    }
}

impl Definition {
    /// The type of a feature, those of every kind included.
    #[must_use]
    pub fn type_of(&self, feature: u16) -> Option<Type> {
        if feature < 3 {
            return Some(Type::U64); // source_seq, missing, truncated
        }
        self.features.0.iter().find(|spec| spec.feature == feature).map(|spec| spec.value_type)
    }

    /// The key features, in order.
    pub fn keys(&self) -> impl Iterator<Item = u16> + '_ {
        let specs = self.features.0.iter().filter(|spec| spec.role == Role::Key);
        specs.map(|spec| spec.feature)
    }
}

/// `process`.
pub const PROCESS: u16 = 3;
/// `dns`.
pub const DNS: u16 = 6;
/// `service`.
pub const SERVICE: u16 = 7;
/// `command_outcome`.
pub const COMMAND_OUTCOME: u16 = 9;
/// `finding`.
pub const FINDING: u16 = 10;

/// The kinds of the page, by number.
#[must_use]
pub fn kinds() -> &'static BTreeMap<u16, Definition> {
    static KINDS: OnceLock<BTreeMap<u16, Definition>> = OnceLock::new();
    KINDS.get_or_init(|| parse(PAGE))
}

fn parse(page: &str) -> BTreeMap<u16, Definition> {
    let mut kinds: BTreeMap<u16, Definition> = BTreeMap::new();
    let mut last = 0;
    for line in page.lines() {
        if let Some(definition) = heading(line) {
            last = definition.kind;
            kinds.insert(last, definition);
        } else if line.starts_with("## ") {
            last = 0;
        } else if let (Some(kind), Some(spec)) = (kinds.get_mut(&last), feature(line)) {
            kind.features.0.push(spec);
        }
    }
    kinds
}

/// `**Kind 3, `process`**: state, scope boot.`
fn heading(line: &str) -> Option<Definition> {
    let (kind, rest) = line.strip_prefix("**Kind ")?.split_once(", `")?;
    let (name, rest) = rest.split_once("`**: ")?;
    let nature = if rest.starts_with("state") { Nature::State } else { Nature::Event };
    let scope = if rest.contains("scope boot") { Scope::Boot } else { Scope::Machine };
    let kind = kind.parse().ok()?;
    Some(Definition { kind, name: name.into(), nature, scope, features: Items(Vec::new()) })
}

/// `| 3 | `pid` | U64 | key |`
fn feature(line: &str) -> Option<FeatureSpec> {
    let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
    let [number, name, value_type, role, ..] = cells.as_slice() else { return None };
    let value_type = match *value_type {
        "U64" => Type::U64,
        "I64" => Type::I64,
        "Bool" => Type::Bool,
        "Bytes" => Type::Bytes,
        "Text" => Type::Text,
        "Ip" => Type::Ip,
        "Hash" => Type::Hash,
        "Time" => Type::Time,
        "Ref" => Type::Ref,
        _ => return None,
    };
    let role = if *role == "key" { Role::Key } else { Role::Property };
    let name = name.trim_matches('`').into();
    Some(FeatureSpec { feature: number.parse().ok()?, name, value_type, role })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_the_kinds() {
        let kinds = kinds();
        assert_eq!(kinds.len(), 11);
        let process = &kinds[&PROCESS];
        assert_eq!((process.nature, process.scope), (Nature::State, Scope::Boot));
        assert_eq!(process.keys().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(process.type_of(5), Some(Type::Ref));
        assert_eq!(process.type_of(14), Some(Type::I64));
        assert_eq!(process.type_of(63), None);
        assert_eq!(kinds[&DNS].nature, Nature::Event);
        assert_eq!(kinds[&FINDING].type_of(6), Some(Type::U64));
    }
}
