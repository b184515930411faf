//! The list of a finished backup: which files belong to it, and how far it reaches.
//!
//! Lines of words (STO-095), the last one a hash of those before it. Invariants: it is replaced by
//! rename after all its files are durable; a list that does not match its hash is none.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::TransferError;
use crate::guard;

/// The file's name in the folder of the backup.
pub(super) const MANIFEST: &str = "backup.list";
const TITLE: &str = "lapwing-backup 1";

/// A finished backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Its number; each one is higher than the one before.
    pub(super) number: u64,
    /// When it was finished, in milliseconds since 1970.
    pub(super) wall_ms: u64,
    /// The journals it reaches into.
    pub(super) journals: Vec<Reach>,
    /// Its files.
    pub(super) files: Vec<Part>,
}

/// How far a backup reaches into a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) name: String,
    pub(super) incarnation: [u8; 16],
    /// The last commit id in it; 0 where there was none.
    pub(super) position: u64,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) hash: [u8; 32],
}

impl Manifest {
    /// The list in `folder`; `None` where no backup was finished.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, TransferError> {
        let path = folder.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(TransferError::disk(&path))?,
        };
        let damaged = || TransferError::Damaged {
            path,
            at: 0,
            what: "the list of the backup is not what was written".to_owned(),
        };
        Self::parse(&text).map(Some).ok_or_else(damaged)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), TransferError> {
        let path = folder.join(MANIFEST);
        guard::write_file(&path, self.text().as_bytes()).map_err(TransferError::disk(&path))
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\nnumber {}\nwall_ms {}\n", self.number, self.wall_ms);
        for Reach { name, incarnation, position } in &self.journals {
            let _ = writeln!(text, "journal {name} {} {position}", digits(incarnation));
        }
        for Part { file, bytes, hash } in &self.files {
            let _ = writeln!(text, "file {file} {bytes} {}", digits(hash));
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let _ = writeln!(text, "end {}", digits(&hash));
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (before, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let hash: [u8; 32] = Sha256::digest(format!("{before}\n").as_bytes()).into();
        if end != format!("end {}", digits(&hash)) {
            return None;
        }
        let mut lines = before.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut manifest = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["number", number] => manifest.number = number.parse().ok()?,
                ["wall_ms", wall_ms] => manifest.wall_ms = wall_ms.parse().ok()?,
                ["journal", name, incarnation, position] => manifest.journals.push(Reach {
                    name: (*name).to_owned(),
                    incarnation: bytes(incarnation)?,
                    position: position.parse().ok()?,
                }),
                ["file", file, length, hash] => manifest.files.push(Part {
                    file: is_file(file).then(|| (*file).to_owned())?,
                    bytes: length.parse().ok()?,
                    hash: bytes(hash)?,
                }),
                _ => return None,
            }
        }
        Some(manifest)
    }
}

/// Whether it is the name of a file in the folder itself.
fn is_file(name: &str) -> bool {
    !name.starts_with('.') && !name.contains('/')
}

pub(super) fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_written_and_a_changed_one_is_none() {
        let manifest = Manifest {
            number: 7,
            wall_ms: 1_700_000_000_000,
            journals: vec![Reach { name: "journal".into(), incarnation: [0xab; 16], position: 41 }],
            files: vec![Part { file: "7-state.store".into(), bytes: 12, hash: [3; 32] }],
        };
        let text = manifest.text();
        assert_eq!(Manifest::parse(&text), Some(manifest));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Manifest::parse(&changed), None, "byte {at}");
            assert_eq!(Manifest::parse(&text[..at]), None, "cut at {at}");
        }
    }
}
