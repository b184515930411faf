//! What is wrong with one entry, whatever the others say.

use lapwing_protocol::digest::Chain;

use super::{StoredEntry, StoredWhat};

/// What is wrong with an entry by itself; `chain` is what its bytes come to, where that is known.
pub(super) fn wrong(
    entry: &StoredEntry<'_>,
    chain: Option<Chain>,
    next_index: u64,
    follows: bool,
) -> Option<String> {
    match entry.what {
        StoredWhat::Unreadable => return Some("its bytes are no chunk and no Jump".to_owned()),
        StoredWhat::Chunk(_, seq, _) if seq != entry.seq => {
            return Some(format!("its bytes say that they are chunk {seq}"));
        }
        StoredWhat::Chunk(..) | StoredWhat::Jump(_) => {}
    }
    let differs = chain.zip(entry.kept).is_some_and(|(chain, kept)| chain != kept);
    if differs {
        return Some(
            "its bytes are not those that were acknowledged: the chain recomputed from them is \
             not the one that was kept"
                .to_owned(),
        );
    }
    let is_dense = !follows || entry.first_index == next_index;
    (!is_dense).then(|| {
        format!("it begins at index {}, where {next_index} was expected", entry.first_index)
    })
}
