//! An agent's own kinds, as encoded Define ops in lent memory.
//!
//! ```text
//! record = length: u16 LE, one postcard Definition
//! ```
//!
//! Built-in kinds are looked up in the protocol's model and take no room here. A definition never
//! changes within a log.

use heapless::Vec;
use lapwing_protocol::element::{
    self, Definition, Feature, FeatureSpec, Kind, KindSpec, Nature, Type,
};
use lapwing_protocol::error::{from_bytes, to_slice};
use lapwing_protocol::limits::{DEFINED_KINDS_MAX, FEATURES_MAX, VALUE_BYTES_MAX};

use crate::error::DefineError;
use crate::limits::FIELDS_MAX;

/// Bytes a Define op needs beyond the definition: head and length.
const DEFINE_OVERHEAD_BYTES: usize = 1 + 3;

#[derive(Debug)]
pub(crate) struct Definitions<'a> {
    bytes: &'a mut [u8],
    length: usize,
    count: usize,
}

impl<'a> Definitions<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, length: 0, count: 0 }
    }

    /// Adds a kind; one that is defined already in the same words changes nothing. Its op takes at
    /// most `op_bytes_max`: one that fits no chunk could never be sent.
    pub(crate) fn define(
        &mut self,
        definition: &Definition<'_>,
        op_bytes_max: usize,
    ) -> Result<(), DefineError> {
        check(definition)?;
        if let Some((_, known)) = self.find(definition.kind) {
            return if known == *definition { Ok(()) } else { Err(DefineError::Redefined) };
        }
        if self.count == DEFINED_KINDS_MAX {
            return Err(DefineError::Full);
        }
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let (head, body) = room.split_at_mut_checked(2).ok_or(DefineError::Full)?;
        let fitting = op_bytes_max.saturating_sub(DEFINE_OVERHEAD_BYTES);
        let bound = body.len().min(VALUE_BYTES_MAX).min(fitting);
        let length = to_slice(definition, &mut body[..bound]).map_err(|_| DefineError::Full)?.len();
        head.copy_from_slice(&(length as u16).to_le_bytes());
        self.length += 2 + length;
        self.count += 1;
        Ok(())
    }

    /// The definitions as they are written into a chunk, in the order in which they were made.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.get(..self.length).unwrap_or_default();
        core::iter::from_fn(move || {
            let (head, body) = rest.split_first_chunk::<2>()?;
            let (definition, behind) =
                body.split_at_checked(usize::from(u16::from_le_bytes(*head)))?;
            rest = behind;
            Some(definition)
        })
    }

    /// The definition of `kind` and its number among the definitions.
    pub(crate) fn find(&self, kind: Kind) -> Option<(usize, Definition<'_>)> {
        let decoded = self.encoded().filter_map(|bytes| from_bytes::<Definition<'_>>(bytes).ok());
        decoded.enumerate().find(|(_, definition)| definition.kind == kind)
    }

    /// Bytes that the Define op of `kind` takes; 0 for a built-in kind.
    pub(crate) fn op_bytes(&self, kind: Kind) -> usize {
        let find = self.find(kind).and_then(|(number, _)| self.encoded().nth(number));
        find.map_or(0, |bytes| DEFINE_OVERHEAD_BYTES + bytes.len())
    }

    /// The spec of `kind`, built in or an agent's own; `features` is where the latter is unfolded.
    pub(crate) fn spec<'f, 'd: 'f>(
        &'d self,
        kind: Kind,
        features: &'f mut Vec<FeatureSpec<'d>, FIELDS_MAX>,
    ) -> Option<KindSpec<'f>> {
        if let Some(spec) = element::kind(kind) {
            return Some(*spec);
        }
        let (_, definition) = self.find(kind)?;
        features.clear();
        for feature in definition.features.iter() {
            features.push(feature.ok()?).ok()?;
        }
        Some(KindSpec {
            kind,
            name: definition.name,
            nature: definition.nature,
            scope: definition.scope,
            features,
        })
    }
}

fn check(definition: &Definition<'_>) -> Result<(), DefineError> {
    if element::kind(definition.kind).is_some() || !element::is_name(definition.name) {
        return Err(DefineError::Malformed);
    }
    let mut last = None;
    let mut has_key = false;
    for feature in definition.features.iter() {
        let feature = feature.map_err(|_| DefineError::Malformed)?;
        let range = Feature::FIRST_OF_KIND..Feature(FEATURES_MAX);
        // A key is compared as bytes; a reference is resolved only later.
        let is_key_of_ref = feature.role.is_key() && feature.value_type == Type::Ref;
        let is_placed = range.contains(&feature.feature) && last < Some(feature.feature);
        if !is_placed || is_key_of_ref || !element::is_name(feature.name) {
            return Err(DefineError::Malformed);
        }
        last = Some(feature.feature);
        has_key |= feature.role.is_key();
    }
    // A row without a key could not be found again; an event has no use for one.
    if has_key == (definition.nature == Nature::State) {
        Ok(())
    } else {
        Err(DefineError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::element::{Role, Scope};
    use lapwing_protocol::items::Items;

    fn feature(number: u16, role: Role) -> FeatureSpec<'static> {
        FeatureSpec { feature: Feature(number), name: "door", value_type: Type::U64, role }
    }

    fn definition<'b>(features: &[FeatureSpec<'b>], buffer: &'b mut [u8]) -> Definition<'b> {
        Definition {
            kind: Kind(0x8001),
            name: "door",
            nature: Nature::State,
            scope: Scope::Machine,
            features: Items::encode(features.iter().copied(), buffer).unwrap(),
        }
    }

    #[test]
    fn a_definition_is_kept_and_can_be_said_twice_but_not_otherwise() {
        let (mut memory, mut first, mut second) = ([0; 64], [0; 64], [0; 64]);
        let mut definitions = Definitions::new(&mut memory);
        let key = definition(&[feature(3, Role::Key)], &mut first);
        assert_eq!(definitions.define(&key, 512), Ok(()));
        assert_eq!(definitions.define(&key, 512), Ok(()));
        let other = definition(&[feature(3, Role::Key), feature(4, Role::Property)], &mut second);
        assert_eq!(definitions.define(&other, 512), Err(DefineError::Redefined));
        let mut features = Vec::new();
        let spec = definitions.spec(Kind(0x8001), &mut features).unwrap();
        assert_eq!((spec.name, spec.features.len()), ("door", 1));
    }

    #[test]
    fn a_state_needs_a_key_and_features_ascend() {
        let mut buffer = [0; 64];
        let keyless = definition(&[feature(3, Role::Property)], &mut buffer);
        assert_eq!(check(&keyless), Err(DefineError::Malformed));
        let mut buffer = [0; 64];
        let disordered = definition(&[feature(4, Role::Key), feature(3, Role::Key)], &mut buffer);
        assert_eq!(check(&disordered), Err(DefineError::Malformed));
    }

    #[test]
    fn what_no_server_would_read_is_refused_here() {
        let mut buffer = [0; 64];
        let named = FeatureSpec { name: "Door number", ..feature(3, Role::Key) };
        assert_eq!(check(&definition(&[named], &mut buffer)), Err(DefineError::Malformed));
        let mut buffer = [0; 64];
        let of_ref = FeatureSpec { value_type: Type::Ref, ..feature(3, Role::Key) };
        assert_eq!(check(&definition(&[of_ref], &mut buffer)), Err(DefineError::Malformed));
        let mut buffer = [0; 64];
        let sound = definition(&[feature(3, Role::Key)], &mut buffer);
        assert_eq!(check(&sound), Ok(()));
        let shouted = Definition { name: "DOOR", ..sound };
        assert_eq!(check(&shouted), Err(DefineError::Malformed));
    }

    #[test]
    fn a_full_memory_refuses() {
        let (mut memory, mut buffer) = ([0; 8], [0; 64]);
        let mut definitions = Definitions::new(&mut memory);
        let key = definition(&[feature(3, Role::Key)], &mut buffer);
        assert_eq!(definitions.define(&key, 512), Err(DefineError::Full));
        assert_eq!(definitions.encoded().count(), 0);
    }
}
