//! A list of indicators with an opinion on each: the organisation's own, or Global's.
//!
//! Invariants: one entry per indicator; an entry whose time is over has no opinion; at most
//! `entries_max` entries (rule at the bound: the new one is refused, nothing goes silently).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lapwing_protocol::intel::{Classification, Indicator, ReputationPut, ReputationView, Source};

use super::{RECHECK_MS, nobody_knows};
use crate::intel_cache::{IndicatorKey, OwnedVerdict};

/// Longest comment and owner, in bytes: they are shown beside each match.
const TEXT_BYTES_MAX: usize = 1_024;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Of what.
    pub key: IndicatorKey,
    /// The opinion.
    pub classification: Classification,
    /// Why, for a person.
    pub comment: String,
    /// Who put it there.
    pub owner: String,
    /// When it ends, milliseconds since 1970; `None` = never.
    pub expires_ms: Option<u64>,
    /// When it was put, milliseconds since 1970.
    pub updated_ms: u64,
}

/// Why an entry is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The key is no hash, address or domain.
    BadKey(String),
    /// The organisation's list takes allow and block only.
    BadClassification(Classification),
    /// A text is too long.
    TooLong,
    /// The list is full.
    Full(usize),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey(key) => write!(
                f,
                "{key:?} is no hash (MD5, SHA-1 or SHA-256 in hexadecimal), address or domain"
            ),
            Self::BadClassification(classification) => write!(
                f,
                "{} cannot be put on this list; use allow or block",
                classification.name()
            ),
            Self::TooLong => {
                write!(f, "comment and owner may have {TEXT_BYTES_MAX} bytes; write less")
            }
            Self::Full(entries) => write!(f, "the list has its {entries} entries; remove some"),
        }
    }
}

impl std::error::Error for ListError {}

/// The list.
#[derive(Debug)]
pub struct ReputationList {
    source: Source,
    entries: BTreeMap<IndicatorKey, Listing>,
    ends: BTreeSet<(u64, IndicatorKey)>,
    entries_max: usize,
}

impl ReputationList {
    /// An empty list whose opinions are `source`'s.
    #[must_use]
    pub fn new(source: Source, entries_max: usize) -> Self {
        Self { source, entries: BTreeMap::new(), ends: BTreeSet::new(), entries_max }
    }

    /// Checks a wish to put an entry; it is not on the list before [`Self::put`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, now_ms: u64, put: &ReputationPut<'_>) -> Result<Listing, ListError> {
        let bad_key = || ListError::BadKey(put.indicator.key.to_owned());
        let key = IndicatorKey::from_indicator(put.indicator).ok_or_else(bad_key)?;
        let own = matches!(put.classification, Classification::Allowed | Classification::Blocked);
        if self.source == Source::Private && !own {
            return Err(ListError::BadClassification(put.classification));
        }
        if put.comment.len() > TEXT_BYTES_MAX || put.owner.len() > TEXT_BYTES_MAX {
            return Err(ListError::TooLong);
        }
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&key) {
            return Err(ListError::Full(self.entries_max));
        }
        Ok(Listing {
            key,
            classification: put.classification,
            comment: put.comment.to_owned(),
            owner: put.owner.to_owned(),
            expires_ms: put.expires_ms,
            updated_ms: now_ms,
        })
    }

    /// Whether this entry is on the list, whenever it was put.
    #[must_use]
    pub fn has(&self, listing: &Listing) -> bool {
        let same = |held: &Listing| Listing { updated_ms: listing.updated_ms, ..held.clone() };
        self.entries.get(&listing.key).is_some_and(|held| same(held) == *listing)
    }

    /// Puts an entry, over one that is there.
    pub fn put(&mut self, listing: Listing) {
        self.remove(&listing.key);
        if let Some(expires_ms) = listing.expires_ms {
            self.ends.insert((expires_ms, listing.key.clone()));
        }
        self.entries.insert(listing.key.clone(), listing);
    }

    /// Takes an entry off.
    pub fn remove(&mut self, key: &IndicatorKey) -> Option<Listing> {
        let listing = self.entries.remove(key)?;
        if let Some(expires_ms) = listing.expires_ms {
            self.ends.remove(&(expires_ms, key.clone()));
        }
        Some(listing)
    }

    /// Takes one entry off whose time is over.
    pub fn poll_expired(&mut self, now_ms: u64) -> Option<Listing> {
        let (expires_ms, key) = self.ends.first()?.clone();
        if expires_ms > now_ms { None } else { self.remove(&key) }
    }

    /// When [`Self::poll_expired`] next has something.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.ends.first().map(|(expires_ms, _)| *expires_ms)
    }

    /// The list's opinion of `key`; `None` where it has none.
    #[must_use]
    pub fn opinion(&self, now_ms: u64, key: &IndicatorKey) -> Option<OwnedVerdict> {
        let listing = self.entries.get(key)?;
        if listing.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return None;
        }
        let recheck_ms = now_ms + RECHECK_MS;
        Some(OwnedVerdict {
            classification: listing.classification,
            source: self.source,
            comment: listing.comment.clone(),
            recheck_ms: listing.expires_ms.map_or(recheck_ms, |ends| ends.min(recheck_ms)),
            ..nobody_knows(now_ms, key)
        })
    }

    /// The entries in order of key.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Listing> {
        self.entries.values()
    }
}

impl Listing {
    /// Hands the entry's wire twin to `use_view`.
    pub fn with_view<T>(&self, use_view: impl FnOnce(&ReputationView<'_>) -> T) -> T {
        let key = self.key.to_string();
        use_view(&ReputationView {
            entry: ReputationPut {
                indicator: Indicator { key_type: self.key.key_type(), key: &key },
                classification: self.classification,
                comment: &self.comment,
                owner: &self.owner,
                expires_ms: self.expires_ms,
            },
            updated_ms: self.updated_ms,
        })
    }

    /// The entry of a wire twin; `None` when its key is not sound.
    #[must_use]
    pub fn from_view(view: &ReputationView<'_>) -> Option<Self> {
        Some(Self {
            key: IndicatorKey::from_indicator(view.entry.indicator)?,
            classification: view.entry.classification,
            comment: view.entry.comment.to_owned(),
            owner: view.entry.owner.to_owned(),
            expires_ms: view.entry.expires_ms,
            updated_ms: view.updated_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::intel::KeyType;

    fn put(key: &str, classification: Classification) -> ReputationPut<'_> {
        ReputationPut {
            indicator: Indicator { key_type: KeyType::Domain, key },
            classification,
            comment: "seen in an incident",
            owner: "alice",
            expires_ms: Some(100),
        }
    }

    #[test]
    fn an_entry_has_an_opinion_until_its_time_is_over() {
        let mut list = ReputationList::new(Source::Private, 10);
        let listing = list.check(1, &put("Evil.Example.", Classification::Blocked)).unwrap();
        let key = listing.key.clone();
        list.put(listing.clone());
        let verdict = list.opinion(50, &key).unwrap();
        assert_eq!((verdict.classification, verdict.recheck_ms), (Classification::Blocked, 100));
        assert!(list.has(&Listing { updated_ms: 7, ..listing.clone() }));
        assert!(!list.has(&Listing { owner: "bob".to_owned(), ..listing.clone() }));
        assert_eq!(list.opinion(100, &key), None);
        assert_eq!(list.deadline_ms(), Some(100));
        assert_eq!(list.poll_expired(99), None);
        assert_eq!(list.poll_expired(100), Some(listing));
        assert_eq!(list.poll_expired(100), None);
    }

    #[test]
    fn what_is_no_entry_is_refused_with_the_reason() {
        let list = ReputationList::new(Source::Private, 0);
        let refused = |key, classification| list.check(0, &put(key, classification)).unwrap_err();
        assert!(matches!(refused("a b", Classification::Blocked), ListError::BadKey(_)));
        let malware = Classification::Malware;
        assert_eq!(refused("a.example", malware), ListError::BadClassification(malware));
        assert_eq!(refused("a.example", Classification::Blocked), ListError::Full(0));
    }

    #[test]
    fn an_entry_survives_its_wire_twin() {
        let list = ReputationList::new(Source::Global, 10);
        let listing = list.check(1, &put("evil.example", Classification::Ransomware)).unwrap();
        assert_eq!(listing.with_view(Listing::from_view), Some(listing));
    }
}
