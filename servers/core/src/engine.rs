//! The names of the storage engines, as configurations and stores write them.
//!
//! Not here: the engines themselves; the store's crate has them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What keeps the keys and values of a store on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// sled 0.34.7 behind the durability guard.
    #[default]
    Sled,
    /// redb.
    Redb,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Redb];

    /// Its name in configurations and format files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|engine| engine.name() == text);
        known.ok_or_else(|| format!("{text:?} is not a storage engine; write \"sled\" or \"redb\""))
    }
}
