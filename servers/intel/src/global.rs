//! Asking Global, in batches.
//!
//! Not here: what must be asked (`reputation::Consultation`).

use std::time::Duration;

use lapwing_net::peer::{CallError, PeerClient, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::intel::{ClassifyRequest, Indicator, Verdict};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::CLASSIFY_KEYS_MAX;
use lapwing_server_core::intel_cache::{IndicatorKey, OwnedVerdict};
use lapwing_server_core::view::push_item;

/// How long Global may take: a person waits for what hangs on it.
const TIME: Duration = Duration::from_secs(3);

/// Asks Global about `keys`, at most [`CLASSIFY_KEYS_MAX`].
///
/// # Errors
/// Global cannot be reached or does not answer well.
pub(crate) async fn ask(
    global: &PeerClient,
    keys: &[IndicatorKey],
) -> Result<Vec<OwnedVerdict>, CallError> {
    debug_assert!(keys.len() <= CLASSIFY_KEYS_MAX);
    let body = request(keys);
    let reply = global.call(Method::CLASSIFY, &body, TIME).await?;
    let verdicts = Items::<Verdict<'_>>::from_bytes(&reply);
    Ok(verdicts
        .iter()
        .map_while(Result::ok)
        .filter_map(|it| OwnedVerdict::from_wire(&it))
        .collect())
}

fn request(keys: &[IndicatorKey]) -> Vec<u8> {
    let mut items = Vec::new();
    for key in keys {
        let text = key.to_string();
        push_item(&mut items, &Indicator { key_type: key.key_type(), key: &text });
    }
    // A request of this bound always fits a frame; an empty one would be answered as malformed.
    to_body(&ClassifyRequest { indicators: Items::from_bytes(&items) }).unwrap_or_default()
}
