//! What the WebApp's store holds, and how.
//!
//! Keys are a prefix and the thing's own name; values are a version byte and one postcard message.
//! Invariant: a record of a version that is not known is an error, never skipped.

use std::collections::BTreeMap;

use lapwing_protocol::error::from_bytes;
use lapwing_store::{Batch, Scan, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::AccountError;
use super::password::PasswordHash;

/// Prefix of users, by name.
pub(super) const USERS: &[u8] = b"user/";
/// Prefix of sessions, by digest.
pub(super) const SESSIONS: &[u8] = b"session/";
/// Prefix of API tokens, by id.
pub(super) const TOKENS: &[u8] = b"token/";
/// Prefix of audit records, by number (8 bytes, big-endian).
pub(super) const AUDIT: &[u8] = b"audit/";

const VERSION: u8 = 1;

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) hash: PasswordHash,
    pub(super) must_change: bool,
    pub(super) made_ms: u64,
    /// What the user may do; "admin" may do everything.
    pub(super) role: String,
}

/// A session, kept under the digest of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) made_ms: u64,
    /// The last use that is written down; later ones are only in memory.
    pub(super) noted_ms: u64,
    pub(super) used_ms: u64,
}

/// An API token, kept as the digest of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ApiToken {
    pub(super) name: String,
    pub(super) digest: [u8; 32],
    pub(super) made_ms: u64,
    pub(super) revoked_ms: Option<u64>,
}

/// The key of a record.
pub(super) fn key(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [prefix, name].concat()
}

/// Puts a record into a batch.
pub(super) fn put<T: Serialize>(
    batch: &mut Batch,
    prefix: &[u8],
    name: &[u8],
    record: &T,
) -> Result<(), AccountError> {
    let body = lapwing_net::peer::to_body(record)
        .map_err(|failure| AccountError::Store(failure.to_string()))?;
    let value = [&[VERSION], body.as_slice()].concat();
    batch.put(&key(prefix, name), &value).map_err(|misuse| AccountError::Store(misuse.to_string()))
}

/// Puts a deletion into a batch.
pub(super) fn delete(batch: &mut Batch, prefix: &[u8], name: &[u8]) -> Result<(), AccountError> {
    batch.delete(&key(prefix, name)).map_err(|misuse| AccountError::Store(misuse.to_string()))
}

/// Reads one record.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, AccountError> {
    let broken = |problem: String| {
        AccountError::Store(format!("{}: {problem}", String::from_utf8_lossy(key)))
    };
    match value.split_first() {
        Some((&VERSION, body)) => from_bytes(body).map_err(|error| broken(error.to_string())),
        Some((version, _)) => Err(broken(format!("version {version} is not known"))),
        None => Err(broken(String::from("the record is empty"))),
    }
}

/// Everything under `prefix`, by name.
pub(super) fn load<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &[u8],
) -> Result<BTreeMap<String, T>, AccountError> {
    let mut records = BTreeMap::new();
    for (key, value) in store.scan(&Scan::range(prefix, &end_of(prefix), usize::MAX))? {
        let name = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default());
        records.insert(name.into_owned(), decode(&key, &value)?);
    }
    Ok(records)
}

/// All sessions, by digest.
pub(super) fn load_by_digest(
    store: &dyn Store,
) -> Result<BTreeMap<[u8; 32], Session>, AccountError> {
    let mut sessions = BTreeMap::new();
    for (key, value) in store.scan(&Scan::range(SESSIONS, &end_of(SESSIONS), usize::MAX))? {
        let name = key.get(SESSIONS.len()..).unwrap_or_default();
        let digest = <[u8; 32]>::try_from(name)
            .map_err(|_| AccountError::Store(String::from("a session's key is malformed")))?;
        sessions.insert(digest, decode(&key, &value)?);
    }
    Ok(sessions)
}

/// The first key behind all that begin with `prefix`, which ends in a slash.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
