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
/// Bytes of one call's body, below what a frame holds.
const CALL_BYTES_MAX: usize = 60_000;

/// Asks Global about `keys`, at most [`CLASSIFY_KEYS_MAX`].
///
/// # Errors
/// Global cannot be reached or does not answer well.
pub(crate) async fn ask(
    global: &PeerClient,
    keys: &[IndicatorKey],
) -> Result<Vec<OwnedVerdict>, CallError> {
    debug_assert!(keys.len() <= CLASSIFY_KEYS_MAX);
    let mut verdicts = Vec::new();
    for keys in calls(keys) {
        let reply = global.call(Method::CLASSIFY, &request(keys), TIME).await?;
        let answer = Items::<Verdict<'_>>::from_bytes(&reply);
        let sound = answer.iter().map_while(Result::ok);
        verdicts.extend(sound.filter_map(|it| OwnedVerdict::from_wire(&it)));
    }
    Ok(verdicts)
}

/// The keys of one question, so cut that each part fits a call: the longest domains do not all
/// fit one.
fn calls(keys: &[IndicatorKey]) -> impl Iterator<Item = &[IndicatorKey]> {
    let is_short = request(keys).len() <= CALL_BYTES_MAX;
    keys.chunks(if is_short { CLASSIFY_KEYS_MAX } else { CLASSIFY_KEYS_MAX / 2 })
}

fn request(keys: &[IndicatorKey]) -> Vec<u8> {
    let mut items = Vec::new();
    for key in keys {
        let text = key.to_string();
        push_item(&mut items, &Indicator { key_type: key.key_type(), key: &text });
    }
    // Only a serializer that does not know its length fails, and this one does.
    to_body(&ClassifyRequest { indicators: Items::from_bytes(&items) }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_the_longest_domains_fits_its_calls() {
        let long = |number: usize| {
            let label = "a".repeat(61);
            IndicatorKey::domain(&format!("{label}.{label}.{label}.{number:061}.com")).unwrap()
        };
        let keys: Vec<_> = (0..CLASSIFY_KEYS_MAX).map(long).collect();
        assert!(request(&keys).len() > CALL_BYTES_MAX);
        assert!(calls(&keys).all(|keys| request(keys).len() <= CALL_BYTES_MAX));
        assert_eq!(calls(&keys).map(<[_]>::len).sum::<usize>(), keys.len());
    }
}
