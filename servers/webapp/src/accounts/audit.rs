//! Who did what: append-only, each record chained to the one before by its SHA-256.
//!
//! Invariant: records are numbered densely from 1 and never changed; a record that was taken away
//! or changed breaks the chain at the one behind it.

use std::net::IpAddr;

use lapwing_net::clock;
use lapwing_net::hexadecimal::encode;
use lapwing_store::{Batch, Scan, Store};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::records::{self, AUDIT};
use super::{AccountError, Accounts};
use crate::limits::AUDIT_PAGE_MAX;
use crate::view::Time;

/// Where the chain stands.
#[derive(Default, Clone, Copy)]
pub(super) struct Chain {
    last: u64,
    head: [u8; 32],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    time_ms: u64,
    actor: String,
    source: String,
    action: String,
    target: String,
    outcome: String,
    before: [u8; 32],
}

/// A record in a list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditLine {
    pub(crate) number: u64,
    pub(crate) time: Time,
    pub(crate) actor: String,
    pub(crate) source: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) outcome: String,
    /// The SHA-256 of the record before it.
    pub(crate) before: String,
}

impl Chain {
    /// Reads where the chain stands.
    pub(super) fn open(store: &dyn Store) -> Result<Self, AccountError> {
        let end = records::end_of(AUDIT);
        let newest = store.scan(&Scan::range(AUDIT, &end, 1).descending())?;
        let Some((key, value)) = newest.first() else { return Ok(Self::default()) };
        Ok(Self { last: number_of(key)?, head: Sha256::digest(value).into() })
    }
}

impl Accounts {
    /// Notes that `actor` did `action` to `target`; durable when it returns.
    pub(crate) async fn audit(
        &self,
        actor: &str,
        source: IpAddr,
        action: &str,
        target: &str,
        outcome: &str,
    ) -> Result<(), AccountError> {
        let _writing = self.writing.lock().await;
        let chain = self.state().audit;
        let record = Record {
            time_ms: clock::unix_ms(),
            actor: cut(actor),
            source: source.to_string(),
            action: cut(action),
            target: cut(target),
            outcome: cut(outcome),
            before: chain.head,
        };
        let number = chain.last + 1;
        let mut batch = Batch::new();
        records::put(&mut batch, AUDIT, &number.to_be_bytes(), &record)?;
        self.write(batch).await?;
        let key = records::key(AUDIT, &number.to_be_bytes());
        let value = self.store.get(&key)?.unwrap_or_default();
        self.state().audit = Chain { last: number, head: Sha256::digest(&value).into() };
        Ok(())
    }

    /// The newest records, newest first. Blocks.
    pub(crate) fn audit_lines(&self, limit: usize) -> Result<Vec<AuditLine>, AccountError> {
        let end = records::end_of(AUDIT);
        let scan = Scan::range(AUDIT, &end, limit.min(AUDIT_PAGE_MAX)).descending();
        let entries = self.store.scan(&scan)?;
        entries
            .iter()
            .map(|(key, value)| {
                let record: Record = records::decode(key, value)?;
                Ok(AuditLine {
                    number: number_of(key)?,
                    time: Time::from_ms(record.time_ms),
                    actor: record.actor,
                    source: record.source,
                    action: record.action,
                    target: record.target,
                    outcome: record.outcome,
                    before: encode(&record.before),
                })
            })
            .collect()
    }
}

fn number_of(key: &[u8]) -> Result<u64, AccountError> {
    let number = key.get(AUDIT.len()..).and_then(|bytes| bytes.try_into().ok());
    number
        .map(u64::from_be_bytes)
        .ok_or_else(|| AccountError::Store(String::from("an audit record's key is malformed")))
}

/// At most 512 bytes of a text: six of them must fit one value of the store.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(512)).unwrap_or_default().to_owned()
}
