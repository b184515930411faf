//! Who this sensor is and what it must remember: the state folder.
//!
//! ```text
//! key.der      its private key, PKCS #8, the owner's alone
//! identity     sensor, deployment, certificate, CA: one file, so that it is whole or absent
//! name         the machine's name that `enrol` was given
//! assignment   the Detection server that Registration named
//! command      the last command it accepted, and what became of it
//! collection   present when collection was stopped on command
//! lock         held while a sensor runs on this folder
//! ```
//!
//! Not here: how an identity is got (`enrol`), the spool. Invariants: each file is
//! replaced by rename, synced before and after; one process at a time writes here; a file whose
//! checksum is wrong is an error or, where it can be learned again, is told of and left out.

pub(crate) mod record;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lapwing_protocol::command::{Action, CommandNumber};
use lapwing_protocol::id::{DeploymentId, SensorId, ServerId};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

use crate::durable_file::{self, Access, Durability, FolderLock, Locked, Owner};
use record::RecordError;

/// A PKCS #8 key has some 140 bytes.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Who the sensor is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub sensor: SensorId,
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The authority that signed it, DER.
    pub authority: Vec<u8>,
    /// When the certificate ends, milliseconds since 1970.
    pub not_after_ms: u64,
    /// Its private key, PKCS #8 DER; in a file of its own.
    #[serde(skip)]
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.sensor, self.deployment)
    }
}

/// The Detection server that Registration named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredAssignment {
    pub(crate) server: ServerId,
    pub(crate) name: String,
    pub(crate) address: String,
}

/// How far a command got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandState {
    /// It was accepted; nothing says that it ended.
    Accepted,
    /// Its outcome is in the spool.
    Ended,
}

/// The last command that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredCommand {
    pub(crate) number: CommandNumber,
    pub(crate) action: Action,
    pub(crate) state: CommandState,
}

/// What is wrong with the state folder.
#[derive(Debug)]
pub enum StateError {
    /// It belongs to another user, who could replace what lies in it.
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// Another sensor runs on it.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The file system refuses.
    File {
        /// The file or folder.
        path: PathBuf,
        /// Its word.
        error: io::Error,
    },
    /// A file does not hold what it should.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The machine gives no randomness, or the key cannot be used.
    Key {
        /// The file.
        path: PathBuf,
        /// The library's word.
        problem: String,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs { folder } => write!(
                f,
                "{}: this folder belongs to another user; give it to the user of this process, or \
                 name another `state_dir`",
                folder.display()
            ),
            Self::InUse { folder } => write!(
                f,
                "{}: another sensor runs on this folder; stop it, or name another `state_dir`",
                folder.display()
            ),
            Self::File { path, error } => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => "let this process' user write there",
                    io::ErrorKind::StorageFull => "make room on the disk",
                    _ => "see the system's log for the disk",
                };
                write!(f, "{}: {error}; {remedy}", path.display())
            }
            Self::Damaged { path, remedy } => {
                write!(f, "{}: the file is damaged; {remedy}", path.display())
            }
            Self::Key { path, problem } => write!(
                f,
                "{}: the key cannot be used: {problem}; delete the file to enrol anew",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {}

/// The state folder of one sensor, held against other processes while this value lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: FolderLock,
}

/// Reads what a running or stopped sensor remembers, without taking its folder from it.
pub(crate) fn peek_identity(folder: &Path) -> Result<Option<Identity>, StateError> {
    read_identity(folder)
}

/// Whether a sensor runs on `folder` now.
pub(crate) fn is_running(folder: &Path) -> bool {
    folder.join("lock").exists() && matches!(durable_file::lock_folder(folder), Ok(Locked::Others))
}

impl StateFolder {
    /// Makes the folder where it is missing, and takes it.
    ///
    /// # Errors
    /// The file system refuses, or another sensor runs on it.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let failed = |error| StateError::File { path: folder.to_path_buf(), error };
        durable_file::make_folder(folder).map_err(failed)?;
        if durable_file::close_folder(folder).map_err(failed)? == Owner::Others {
            return Err(StateError::NotOurs { folder: folder.to_path_buf() });
        }
        match durable_file::lock_folder(folder).map_err(failed)? {
            Locked::Ours(lock) => Ok(Self { path: folder.to_path_buf(), _lock: lock }),
            Locked::Others => Err(StateError::InUse { folder: folder.to_path_buf() }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the sensor is; `None` before it enrolled.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        read_identity(&self.path)
    }

    /// Makes the identity durable; its key is in the folder already.
    pub(crate) fn save_identity(&self, identity: &Identity) -> Result<(), StateError> {
        self.save("identity", identity)
    }

    /// The key of this folder, made where there is none: a repeated enrolment has the same key, and
    /// so makes no second sensor.
    pub(crate) fn key(&self) -> Result<KeyPair, StateError> {
        let path = self.path.join("key.der");
        let failed = |error| StateError::File { path: path.clone(), error };
        let broken = |error: rcgen::Error| StateError::Key {
            path: path.clone(),
            problem: error.to_string(),
        };
        if let Some(bytes) = durable_file::read(&path, KEY_BYTES_MAX).map_err(failed)? {
            return KeyPair::try_from(bytes).map_err(broken);
        }
        let key = KeyPair::generate().map_err(broken)?;
        durable_file::write(&path, &key.serialize_der(), Access::Owner, Durability::PowerCut)
            .map_err(failed)?;
        Ok(key)
    }

    /// The name that the enrolment was given; none where it was given none.
    pub(crate) fn name(&self) -> Option<String> {
        self.load_or_forget("name").flatten()
    }

    /// Keeps the name for every later start; none is the machine's own.
    pub(crate) fn save_name(&self, name: Option<&str>) -> Result<(), StateError> {
        self.save("name", &name)
    }

    pub(crate) fn assignment(&self) -> Option<StoredAssignment> {
        self.load_or_forget("assignment")
    }

    pub(crate) fn save_assignment(&self, assignment: &StoredAssignment) -> Result<(), StateError> {
        self.save("assignment", assignment)
    }

    pub(crate) fn command(&self) -> Option<StoredCommand> {
        self.load_or_forget("command")
    }

    pub(crate) fn save_command(&self, command: &StoredCommand) -> Result<(), StateError> {
        self.save("command", command)
    }

    /// Whether collection was stopped on command.
    pub(crate) fn is_collection_stopped(&self) -> bool {
        self.load_or_forget("collection").unwrap_or(false)
    }

    pub(crate) fn save_collection_stopped(&self, is_stopped: bool) -> Result<(), StateError> {
        self.save("collection", &is_stopped)
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        record::write(&path, value).map_err(|error| StateError::File { path, error })
    }

    /// What can be learned again is not worth refusing to start for.
    fn load_or_forget<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        let path = self.path.join(name);
        match record::read(&path) {
            Ok(found) => found,
            Err(RecordError::Damaged) => {
                log::warn!("{}: the file is damaged; it is left out", path.display());
                None
            }
            Err(RecordError::File(error)) => {
                log::warn!("{}: {error}; it is left out", path.display());
                None
            }
        }
    }
}

fn read_identity(folder: &Path) -> Result<Option<Identity>, StateError> {
    let path = folder.join("identity");
    let identity: Option<Identity> = record::read(&path).map_err(|error| match error {
        RecordError::File(error) => StateError::File { path: path.clone(), error },
        RecordError::Damaged => {
            StateError::Damaged { path: path.clone(), remedy: "delete it to enrol again" }
        }
    })?;
    let Some(mut identity) = identity else { return Ok(None) };
    let path = folder.join("key.der");
    let key = durable_file::read(&path, KEY_BYTES_MAX)
        .map_err(|error| StateError::File { path: path.clone(), error })?;
    identity.key = key.ok_or(StateError::Damaged {
        path,
        remedy: "it is missing: restore it, or delete `identity` beside it to enrol again",
    })?;
    Ok(Some(identity))
}

/// A signing request (PKCS #10, DER) for `key`.
pub(crate) fn signing_request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(key: Vec<u8>) -> Identity {
        Identity {
            sensor: SensorId([1; 16]),
            deployment: DeploymentId([2; 16]),
            certificate: vec![3; 700],
            authority: vec![4; 500],
            not_after_ms: 5,
            key,
        }
    }

    #[test]
    fn an_identity_comes_back_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert!(state.identity().unwrap().is_none());
        let key = state.key().unwrap().serialize_der();
        assert_eq!(state.key().unwrap().serialize_der(), key, "a key is made once");
        state.save_identity(&identity(key.clone())).unwrap();
        assert_eq!(state.identity().unwrap().unwrap(), identity(key));
        let shown = format!("{:?}", state.identity().unwrap().unwrap());
        assert_eq!(shown, format!("Identity({} of {})", "01".repeat(16), "02".repeat(16)));
    }

    #[test]
    fn a_folder_serves_one_sensor() {
        let folder = tempfile::tempdir().unwrap();
        let _held = StateFolder::open(folder.path()).unwrap();
        assert!(is_running(folder.path()));
        let refused = StateFolder::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another sensor runs on this folder"), "{refused}");
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_a_damaged_assignment_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let assignment = StoredAssignment {
            server: ServerId([7; 16]),
            name: "d1".into(),
            address: "127.0.0.1:1".into(),
        };
        state.save_assignment(&assignment).unwrap();
        assert_eq!(state.assignment(), Some(assignment));
        for name in ["identity", "assignment"] {
            std::fs::write(folder.path().join(name), b"not what it should be").unwrap();
        }
        assert_eq!(state.assignment(), None);
        let refused = state.identity().unwrap_err().to_string();
        assert!(refused.contains("identity: the file is damaged; delete it"), "{refused}");
    }

    #[test]
    fn commands_and_collection_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert!(state.command().is_none() && !state.is_collection_stopped());
        let command = StoredCommand {
            number: CommandNumber { issuer: u64::MAX, seq: 9 },
            action: Action::StopCollection,
            state: CommandState::Accepted,
        };
        state.save_command(&command).unwrap();
        state.save_collection_stopped(true).unwrap();
        assert_eq!(state.command(), Some(command));
        assert!(state.is_collection_stopped());
    }
}
