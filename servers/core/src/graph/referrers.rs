//! Who names an element: few for most, a hundred thousand for a busy server's process.
//!
//! Invariants: each referrer is there once, the longest known first; adding and removing stay cheap
//! however many there are, since a sensor decides that.

use std::collections::BTreeSet;

use super::ElementIndex;

/// A referrer by when it was first seen, and its place.
pub(super) type Referrer = (u64, ElementIndex);

/// Up to this many are searched in a row; a tree costs more for so few.
const FEW_MAX: usize = 16;

/// The referrers of one element.
#[derive(Debug)]
pub(super) enum Referrers {
    Few(Vec<Referrer>),
    Many(BTreeSet<Referrer>),
}

impl Default for Referrers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Referrers {
    pub(super) fn add(&mut self, referrer: Referrer) {
        match self {
            Self::Many(many) => {
                many.insert(referrer);
            }
            Self::Few(few) => match few.binary_search(&referrer) {
                Ok(_) => {}
                Err(place) if few.len() < FEW_MAX => few.insert(place, referrer),
                Err(_) => {
                    *self = Self::Many(few.drain(..).chain([referrer]).collect());
                }
            },
        }
    }

    pub(super) fn remove(&mut self, referrer: Referrer) {
        match self {
            Self::Many(many) => {
                many.remove(&referrer);
            }
            Self::Few(few) => few.retain(|other| *other != referrer),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ElementIndex> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten()).map(|(_, index)| *index)
    }
}
