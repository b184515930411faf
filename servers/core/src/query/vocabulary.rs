//! The names an expression may use: the kinds and features of the element model, those that agents
//! defined for themselves, and what every element has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapwing_protocol::element::{MODEL, Type};

use crate::change::KindModel;
use crate::graph::Graph;

/// The word for an element of any kind.
pub(super) const ANY_KIND: &str = "element";

/// What every element has beside its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Common {
    Guid,
    Kind,
    Label,
    Machine,
    Sensor,
    Presence,
    FirstSeen,
    Changed,
    Happened,
    Ended,
}

impl Common {
    pub(super) const ALL: [(Self, &'static str); 10] = [
        (Self::Guid, "guid"),
        (Self::Kind, "kind"),
        (Self::Label, "label"),
        (Self::Machine, "machine"),
        (Self::Sensor, "sensor"),
        (Self::Presence, "presence"),
        (Self::FirstSeen, "first_seen"),
        (Self::Changed, "changed"),
        (Self::Happened, "happened"),
        (Self::Ended, "ended"),
    ];

    /// Those that an answer shows when no columns are asked for.
    pub(super) const SHOWN: [Self; 6] =
        [Self::Guid, Self::Kind, Self::Machine, Self::Label, Self::FirstSeen, Self::Ended];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, of)| *of == name).map(|(common, _)| *common)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(common, _)| *common == self).map_or("", |(_, name)| name)
    }
}

/// The names.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    kinds: BTreeMap<Arc<str>, Vec<Arc<KindModel>>>,
}

impl Default for Vocabulary {
    /// The built-in names.
    fn default() -> Self {
        let mut vocabulary = Self { kinds: BTreeMap::new() };
        for spec in MODEL {
            vocabulary.add(Arc::new(KindModel::new(spec)));
        }
        vocabulary
    }
}

impl Vocabulary {
    /// The built-in names and those of the kinds that `graph` met.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let mut vocabulary = Self::default();
        for model in graph.models() {
            vocabulary.add(Arc::clone(model));
        }
        vocabulary
    }

    fn add(&mut self, model: Arc<KindModel>) {
        self.kinds.entry(Arc::clone(&model.name)).or_default().push(model);
    }

    pub(super) fn kind_names(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(|name| &**name).chain([ANY_KIND])
    }

    pub(super) fn is_kind(&self, name: &str) -> bool {
        name == ANY_KIND || self.kinds.contains_key(name)
    }

    /// The models of the kind of that name, or of all kinds.
    pub(super) fn models(&self, kind: Option<&str>) -> impl Iterator<Item = &Arc<KindModel>> {
        self.kinds
            .iter()
            .filter(move |(name, _)| kind.is_none_or(|kind| &***name == kind))
            .flat_map(|(_, models)| models)
    }

    /// The names of all features that refer to other elements.
    pub(super) fn link_names(&self) -> BTreeSet<&str> {
        let features = self.models(None).flat_map(|model| &model.features);
        features.filter(|it| it.value_type == Type::Ref).map(|it| &*it.name).collect()
    }

    /// The types that the feature of that name has in the kinds of that name.
    pub(super) fn feature_types(&self, kind: Option<&str>, name: &str) -> Vec<Type> {
        let mut types = Vec::new();
        for feature in self.models(kind).filter_map(|model| model.feature_named(name)) {
            if !types.contains(&feature.value_type) {
                types.push(feature.value_type);
            }
        }
        types
    }
}
