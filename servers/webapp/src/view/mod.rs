//! Owned twins of the peers' messages: what pages render and the API answers, by the contract's
//! names.
//!
//! Not here: asking for them (backend/) and escaping (the templates' escaper; JSON carries strings
//! as they are). Invariant: a message that does not decode becomes an error, never half a view.

mod cell;
mod element;
mod event;
mod ledger;
mod malop;
mod reputation;
mod sensor;
mod server;
mod time;

pub(crate) use cell::{Cell, Fields, fields};
pub(crate) use element::{Element, Rows};
pub(crate) use event::Event;
pub(crate) use ledger::{LedgerAnswer, LedgerLine, lines as ledger_lines};
pub(crate) use malop::{Evidence, MalOp, MalOpDetail, parse_status, status_text};
pub(crate) use reputation::{Reputation, VerdictLine, canonical, parse_key_type};
pub(crate) use sensor::{Sensor, TagLine};
pub(crate) use server::{ServerLine, Share, UpdateLine};
pub(crate) use time::Time;

use lapwing_protocol::error::DecodeError;
use lapwing_protocol::items::Items;
use serde::Deserialize;

/// Decodes every item of a list and turns each into its owned twin.
pub(crate) fn owned<'a, T: Deserialize<'a>, V>(
    items: &Items<'a, T>,
    mut twin: impl FnMut(T) -> Result<V, DecodeError>,
) -> Result<Vec<V>, DecodeError> {
    items.iter().map(|item| item.and_then(&mut twin)).collect()
}

/// A list of texts.
pub(crate) fn texts(items: &Items<'_, &str>) -> Result<Vec<String>, DecodeError> {
    items.iter().map(|text| text.map(String::from)).collect()
}
