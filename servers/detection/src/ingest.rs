//! Puts entries into the journal and says when they are durable.
//!
//! Not here: what an entry means. Invariants: entries of one lane are submitted in order; a
//! receiver hears of an entry only after the journal's ticket resolved.

use std::sync::Arc;

use lapwing_protocol::digest::Chain;
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_server_core::delivery::{Entry, EntryKind};
use lapwing_server_core::view::message_bytes;
use lapwing_store::journal::{Append, Journal, LogKey};
use lapwing_store::{Refusal, Ticket};
use serde::{Deserialize, Serialize};

use crate::roster::{Member, lane_key};
use crate::sharing::Charge;

/// What the journal keeps beside an entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryHeader {
    /// Whether the bytes are a chunk or a Jump.
    pub(crate) form: EntryForm,
    /// Its sequence; a Jump's last.
    pub(crate) seq: u64,
    /// Index of its first fact.
    pub(crate) first_index: u64,
    /// The chain of its log behind it; none in entries of older versions. So a scan of the journal
    /// can name the first chunk that is not as it was, and verify what is left after retention.
    pub(crate) chain: Option<Chain>,
}

/// What an entry's header was before it had a chain.
#[derive(Deserialize)]
struct OldHeader {
    form: EntryForm,
    seq: u64,
    first_index: u64,
}

/// Whether an entry's bytes are a chunk or a Jump. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryForm {
    /// A chunk as received.
    Chunk,
    /// A Jump as received.
    Jump,
}

impl EntryHeader {
    /// Reads a stored header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        from_bytes(bytes).or_else(|error| {
            let OldHeader { form, seq, first_index } = from_bytes(bytes).map_err(|_| error)?;
            Ok(Self { form, seq, first_index, chain: None })
        })
    }
}

/// An entry on its way to the disk.
#[derive(Debug)]
pub(crate) struct Storing {
    /// Its lane.
    pub(crate) lane: Lane,
    log: LogId,
    seq: u64,
    ticket: Ticket<u64>,
    charge: Option<Charge>,
}

impl Storing {
    /// The same entry, with what it takes of the budget until it is durable.
    pub(crate) fn charged(self, charge: Charge) -> Self {
        Self { charge: Some(charge), ..self }
    }

    /// Waits until the entry is durable, then tells the receiver.
    pub(crate) async fn finish(&mut self, member: &Member) {
        match (&mut self.ticket).await {
            Ok(_) => member.receiver().handle_stored(self.lane, self.log, self.seq),
            Err(error) => {
                log::error!("the journal takes nothing more: {error}");
                member.receiver().handle_store_failed();
            }
        }
        self.charge = None;
    }
}

/// Submits `entry`; waits while the journal's queue is full, so that its sensor waits as well.
///
/// # Errors
/// The journal stopped; nothing more is stored or acknowledged.
pub(crate) async fn submit(
    journal: &Arc<Journal>,
    sensor: SensorId,
    received_ms: u64,
    entry: Entry,
) -> Result<Storing, Refusal> {
    let (lane, log, seq) = (entry.lane, entry.log, entry.seq);
    let mut append = append_of(sensor, received_ms, entry);
    loop {
        match journal.append(append) {
            Ok(ticket) => return Ok(Storing { lane, log, seq, ticket, charge: None }),
            Err(refused) => match refused.why {
                Refusal::Full => {
                    append = refused.item;
                    journal.room().await;
                }
                why => return Err(why),
            },
        }
    }
}

fn append_of(sensor: SensorId, received_ms: u64, entry: Entry) -> Append {
    let (form, first_index) = match entry.kind {
        EntryKind::Chunk { first_index, .. } => (EntryForm::Chunk, first_index),
        EntryKind::Jump { first_index, .. } => (EntryForm::Jump, first_index),
    };
    let header =
        EntryHeader { form, seq: entry.seq, first_index, chain: Some(entry.head.current.chain) };
    Append {
        log: LogKey { lane: lane_key(sensor, entry.lane), log: entry.log.0 },
        segment: entry.head.current.segment_seq,
        received_wall_ms: received_ms,
        header: message_bytes(&header),
        body: entry.bytes,
        head: entry.head.to_bytes().unwrap_or_default(),
    }
}
