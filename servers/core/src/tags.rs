//! Asset tags: what may be said of a machine, and who said it.
//!
//! Not here: sockets, the store, the clock. Invariants: a tag has passed [`Tags::set`], so names
//! and values are bounded, free of control characters, and right for the well-known names; every
//! change has a row in the audit.

use std::collections::BTreeMap;
use std::fmt;

use lapwing_protocol::id::SensorId;
use lapwing_protocol::limits::NAME_BYTES_MAX;
use lapwing_protocol::tagging::{TagSet, TagView};
use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// The longest name of a tag, in bytes.
pub const TAG_NAME_BYTES_MAX: usize = 64;
/// The longest value of a tag, in characters.
pub const TAG_VALUE_CHARACTERS_MAX: usize = 100;
/// Tags of one machine; one more is refused.
pub const TAGS_OF_MACHINE_MAX: usize = 32;
/// Tags of all machines: 20 MiB of memory at the most, 6 MiB of a reply; one more is refused.
pub const TAGS_MAX: usize = 65_536;
/// Changes that the audit keeps; the oldest goes when one more comes.
pub const AUDIT_MAX: u64 = 100_000;

/// The well-known tag that is either `true` or `false`.
pub const CRITICAL_ASSET: &str = "critical_asset";

/// A tag, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// Its value.
    pub value: String,
    /// Who set it.
    pub author: String,
    /// When, milliseconds since 1970.
    pub set_ms: u64,
}

/// A change of a tag, as the audit keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When, milliseconds since 1970.
    pub changed_ms: u64,
    /// Who.
    pub author: String,
    /// Of which machine.
    pub sensor: SensorId,
    /// The tag's name.
    pub name: String,
    /// Its value before.
    pub old: Option<String>,
    /// Its value after.
    pub new: Option<String>,
}

/// Why a tag is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagRefused {
    /// The name is not one.
    BadName,
    /// The value is not one.
    BadValue,
    /// The value of the critical asset tag is neither true nor false.
    NotTrueOrFalse,
    /// The author is not one.
    BadAuthor,
    /// The machine has as many tags as it may.
    TooManyOfMachine,
    /// There are as many tags as there may be.
    TooMany,
}

impl fmt::Display for TagRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => write!(
                f,
                "a tag's name has 1 to {TAG_NAME_BYTES_MAX} lower-case letters, digits and `_`"
            ),
            Self::BadValue => write!(
                f,
                "a tag's value has 1 to {TAG_VALUE_CHARACTERS_MAX} characters, none of them control"
            ),
            Self::NotTrueOrFalse => write!(f, "{CRITICAL_ASSET} is `true` or `false`"),
            Self::BadAuthor => write!(
                f,
                "the author must have 1 to {NAME_BYTES_MAX} bytes without control characters"
            ),
            Self::TooManyOfMachine => {
                write!(f, "the machine has {TAGS_OF_MACHINE_MAX} tags; take one off first")
            }
            Self::TooMany => write!(f, "there are {TAGS_MAX} tags; take some off first"),
        }
    }
}

impl std::error::Error for TagRefused {}

/// All tags of all machines.
#[derive(Debug, Default)]
pub struct Tags {
    tags: BTreeMap<(SensorId, String), TagRecord>,
    /// The number of the last change.
    audited: u64,
}

impl Tags {
    /// As it was stored; `audited` is the number of the last change in the audit.
    #[must_use]
    pub fn restore(
        audited: u64,
        tags: impl IntoIterator<Item = ((SensorId, String), TagRecord)>,
    ) -> Self {
        Self { tags: tags.into_iter().collect(), audited }
    }

    /// Tags in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Sets a tag or takes it off. Returns the rows to store in one batch before the reply; none
    /// where it is as asked already.
    ///
    /// # Errors
    /// The tag is refused; nothing has changed.
    pub fn set(&mut self, unix_ms: u64, set: &TagSet<'_>) -> Result<Vec<Row>, TagRefused> {
        check(set)?;
        let id = (set.sensor, set.name.to_owned());
        let old = self.tags.get(&id).map(|tag| tag.value.clone());
        if old.as_deref() == set.value {
            return Ok(Vec::new());
        }
        if old.is_none() {
            self.check_room(set.sensor)?;
        }
        let stored_at = key::tag(set.sensor, set.name);
        let row = match set.value {
            Some(value) => {
                let (value, author) = (value.to_owned(), set.author.to_owned());
                let record = TagRecord { value, author, set_ms: unix_ms };
                let row = Row::put(stored_at, &record);
                self.tags.insert(id, record);
                row
            }
            None => {
                self.tags.remove(&id);
                Row::remove(stored_at)
            }
        };
        let mut rows = vec![row];
        rows.extend(self.audit(unix_ms, set, old));
        Ok(rows)
    }

    /// The tags of one machine, or of all, in order of machine and name.
    pub fn views(&self, sensor: Option<SensorId>) -> impl Iterator<Item = TagView<'_>> {
        let first = sensor.unwrap_or(SensorId([0; 16]));
        let from_first = self.tags.range((first, String::new())..);
        let of_machine =
            from_first.take_while(move |((of, _), _)| sensor.is_none_or(|wanted| wanted == *of));
        of_machine.map(|((of, name), tag)| TagView {
            sensor: *of,
            name,
            value: &tag.value,
            author: &tag.author,
            set_ms: tag.set_ms,
        })
    }

    fn check_room(&self, sensor: SensorId) -> Result<(), TagRefused> {
        if self.tags.len() >= TAGS_MAX {
            Err(TagRefused::TooMany)
        } else if self.views(Some(sensor)).count() >= TAGS_OF_MACHINE_MAX {
            Err(TagRefused::TooManyOfMachine)
        } else {
            Ok(())
        }
    }

    fn audit(&mut self, unix_ms: u64, set: &TagSet<'_>, old: Option<String>) -> Vec<Row> {
        self.audited += 1;
        let record = AuditRecord {
            changed_ms: unix_ms,
            author: set.author.to_owned(),
            sensor: set.sensor,
            name: set.name.to_owned(),
            old,
            new: set.value.map(str::to_owned),
        };
        let mut rows = vec![Row::put(key::audit(self.audited), &record)];
        let oldest = self.audited.checked_sub(AUDIT_MAX).filter(|number| *number > 0);
        rows.extend(oldest.map(|number| Row::remove(key::audit(number))));
        rows
    }
}

fn check(set: &TagSet<'_>) -> Result<(), TagRefused> {
    let is_name = (1..=TAG_NAME_BYTES_MAX).contains(&set.name.len())
        && set.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let is_author = (1..=NAME_BYTES_MAX).contains(&set.author.len())
        && !set.author.chars().any(char::is_control);
    let is_value = |value: &str| {
        (1..=TAG_VALUE_CHARACTERS_MAX).contains(&value.chars().count())
            && !value.chars().any(char::is_control)
    };
    if !is_name {
        Err(TagRefused::BadName)
    } else if !is_author {
        Err(TagRefused::BadAuthor)
    } else if set.value.is_some_and(|value| !is_value(value)) {
        Err(TagRefused::BadValue)
    } else if set.name == CRITICAL_ASSET
        && set.value.is_some_and(|value| value != "true" && value != "false")
    {
        Err(TagRefused::NotTrueOrFalse)
    } else {
        Ok(())
    }
}

/// The keys.
pub mod key {
    use super::SensorId;

    /// Before every tag's key, and behind it.
    pub const TAGS: [&[u8]; 2] = [b"tag/of/", b"tag/of0"];
    /// Before every change's key, and behind it.
    pub const AUDIT: [&[u8]; 2] = [b"tag/audit/", b"tag/audit0"];

    /// Of a [`super::TagRecord`].
    #[must_use]
    pub fn tag(sensor: SensorId, name: &str) -> Vec<u8> {
        [TAGS[0], &sensor.0, name.as_bytes()].concat()
    }

    /// Of an [`super::AuditRecord`].
    #[must_use]
    pub fn audit(number: u64) -> Vec<u8> {
        [AUDIT[0], &number.to_be_bytes()].concat()
    }

    /// Machine and name in a tag's key.
    #[must_use]
    pub fn tag_of(key: &[u8]) -> Option<(SensorId, String)> {
        let (sensor, name) = key.strip_prefix(TAGS[0])?.split_first_chunk::<16>()?;
        Some((SensorId(*sensor), String::from_utf8(name.to_vec()).ok()?))
    }

    /// The number in a change's key.
    #[must_use]
    pub fn audit_of(key: &[u8]) -> Option<u64> {
        key.strip_prefix(AUDIT[0])?.try_into().ok().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: SensorId = SensorId([7; 16]);

    fn set<'a>(name: &'a str, value: Option<&'a str>) -> TagSet<'a> {
        TagSet { sensor: MACHINE, name, value, author: "admin" }
    }

    #[test]
    fn a_tag_is_set_changed_and_taken_off_with_an_audit_of_each() {
        let mut tags = Tags::default();
        assert_eq!(tags.set(1, &set("location", Some("Bern"))).unwrap().len(), 2);
        assert!(tags.set(2, &set("location", Some("Bern"))).unwrap().is_empty());
        let rows = tags.set(3, &set("location", Some("Basel"))).unwrap();
        let audit: AuditRecord = crate::rows::read(rows[1].value.as_deref().unwrap()).unwrap();
        assert_eq!((audit.old.as_deref(), audit.new.as_deref()), (Some("Bern"), Some("Basel")));
        assert_eq!(key::audit_of(&rows[1].key), Some(2));
        assert_eq!(tags.views(Some(MACHINE)).next().unwrap().value, "Basel");
        let rows = tags.set(4, &set("location", None)).unwrap();
        assert_eq!(rows[0], Row::remove(key::tag(MACHINE, "location")));
        assert!(tags.is_empty());
    }

    #[test]
    fn names_values_and_authors_are_bounded() {
        let long = "x".repeat(TAG_VALUE_CHARACTERS_MAX + 1);
        for (tag, refused) in [
            (set("", Some("v")), TagRefused::BadName),
            (set("Location", Some("v")), TagRefused::BadName),
            (set("a/b", Some("v")), TagRefused::BadName),
            (set("a", Some("")), TagRefused::BadValue),
            (set("a", Some("\u{1b}[2J")), TagRefused::BadValue),
            (set("a", Some(&long)), TagRefused::BadValue),
            (set(CRITICAL_ASSET, Some("yes")), TagRefused::NotTrueOrFalse),
            (TagSet { author: "", ..set("a", Some("v")) }, TagRefused::BadAuthor),
        ] {
            assert_eq!(Tags::default().set(0, &tag), Err(refused), "{tag:?}");
        }
        assert!(Tags::default().set(0, &set("a", Some(&long[1..]))).is_ok());
    }

    #[test]
    fn a_machine_has_room_for_so_many_and_one_machine_does_not_see_anothers() {
        let mut tags = Tags::default();
        let names: Vec<String> = (0..=TAGS_OF_MACHINE_MAX).map(|n| format!("t{n}")).collect();
        for name in &names[1..] {
            tags.set(0, &set(name, Some("v"))).unwrap();
        }
        let refused = tags.set(0, &set(&names[0], Some("v")));
        assert_eq!(refused, Err(TagRefused::TooManyOfMachine));
        tags.set(0, &set(&names[1], Some("w"))).unwrap();
        let other = TagSet { sensor: SensorId([8; 16]), ..set("a", Some("v")) };
        tags.set(0, &other).unwrap();
        assert_eq!(tags.views(Some(MACHINE)).count(), TAGS_OF_MACHINE_MAX);
        assert_eq!(tags.views(Some(SensorId([8; 16]))).count(), 1);
        assert_eq!(tags.views(None).count(), tags.len());
    }

    #[test]
    fn the_audit_forgets_its_oldest() {
        let mut tags = Tags::restore(AUDIT_MAX, []);
        let rows = tags.set(0, &set("a", Some("v"))).unwrap();
        assert_eq!(rows.last(), Some(&Row::remove(key::audit(1))));
    }

    #[test]
    fn a_tags_key_leads_back() {
        let stored = key::tag(SensorId([b'/'; 16]), "a");
        assert_eq!(key::tag_of(&stored), Some((SensorId([b'/'; 16]), String::from("a"))));
    }
}
