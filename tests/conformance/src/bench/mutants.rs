//! The faults that can be built into a server (`LAPWING_MUTANT=name`), each of which the cases must
//! find.
//!
//! Not here: the faults themselves; each is an `if cfg!(mutant = "name")` where it belongs. A test
//! holds that the two agree.

/// Name, and what the server with it does wrong.
pub const MUTANTS: &[(&str, &str)] = &[
    ("ack_before_flush", "acknowledges a chunk when it is taken, not when it is durable"),
    ("any_plane_accepted", "speaks its first plane with whoever offers an unknown one"),
    ("any_role_accepted", "lets any certificate of the CA onto the sensor plane"),
    ("chain_over_body", "chains the body of a chunk without its header"),
    ("chain_unchecked", "does not compare a ChainMark"),
    ("command_sent_again", "sends a command again that it sent before"),
    ("count_unchecked", "decodes a chunk whose count is not what its ops stand for"),
    ("credit_off_by_one", "takes one chunk beyond the credit"),
    ("credit_shrinks", "lowers the credit within a session"),
    ("digest_ignored", "does not compare the state digest"),
    ("duplicate_stored", "stores a repeat as if it were new"),
    ("encoding_ignored", "decodes a chunk of an unknown encoding as if it were encoding 1"),
    ("epoch_constant", "gives every session the same number"),
    ("expired_sent", "sends a command whose time is over"),
    ("fork_unnoticed", "does not compare the chain at Hello"),
    ("gap_accepted", "takes a chunk beyond the next one"),
    ("head_unchecked", "takes a Hello whose acknowledged sequence cannot be"),
    ("hello_ahead_of_store", "counts at Hello what is on its way to the disk as stored"),
    ("hello_not_first", "takes what comes before Hello"),
    ("idle_kept", "keeps a connection on which nothing comes"),
    ("index_unchecked", "takes a chunk whose first index does not follow"),
    ("jump_backward", "takes a Jump that ends before it begins"),
    ("jump_index_unchecked", "takes a Jump that takes facts back"),
    ("jump_keeps_chain", "goes on with its own chain behind a Jump"),
    ("jump_out_of_range", "takes a Jump that begins beyond the next sequence"),
    ("jump_repeat_silent", "does not acknowledge a Jump said again"),
    ("jump_then_anything", "takes a chunk that does not open behind a Jump"),
    ("lane_twice_accepted", "takes a Hello with two logs of one lane"),
    ("nack_storm", "sends a Nack for every chunk that is out of order"),
    ("no_fence", "lets an older session go on beside a newer one"),
    ("old_epoch_accepted", "takes what an older session sends until it tells it"),
    ("opening_unchecked", "takes a chunk that does not open where one must"),
    ("own_runs_count", "takes its own lost run for one that another server holds"),
    ("oversize_frame_read", "reads the body of a frame beyond the bound"),
    ("pong_without_nonce", "answers a Ping without its nonce"),
    ("repeat_silent", "does not acknowledge a repeat"),
    ("request_unchecked", "enrols a key whose request is not signed with it"),
    ("reserved_flags_ignored", "takes a frame with a flag that means nothing"),
    ("resync_loop", "asks for a keyframe as often as it likes"),
    ("rollback_unnoticed", "resumes with a sensor that made less than is stored"),
    ("safe_ahead_of_stored", "says that more is safe than is stored"),
    ("sessions_resumed", "lets a TLS session be resumed"),
    ("skippable_kind_fatal", "refuses an unknown kind that may be skipped"),
    ("strings_kept", "keeps the string slots over the beginning of a segment"),
    ("text_unchecked", "takes texts in Hello beyond their bound"),
    ("throttled_stored", "stores a chunk that it refuses as Throttled"),
    ("token_unchecked", "enrols with any token"),
    ("trailing_bytes_accepted", "takes bytes behind a message"),
    ("undecodable_unsaid", "asks for nothing when a chunk does not decode"),
    ("unknown_kind_skipped", "skips an unknown kind that may not be skipped"),
    ("urgent_starved", "answers the urgent lane only when the bulk lane is at rest"),
    ("version_unchecked", "speaks version 1 with a sensor that does not"),
    ("watermark_ahead", "stores that a lane stands one chunk further than it does"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every `mutant = "name"` in the source of the product.
    fn built_in() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders = vec![root.join("protocol/src"), root.join("servers")];
        let mut found = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let parts = text.split("(mutant = \"").chain(text.split(", mutant = \""));
                    let names = parts.filter_map(|part| part.split_once('"'));
                    found.extend(names.map(|(name, _)| name.to_owned()).filter(|name| {
                        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                    }));
                }
            }
        }
        found
    }

    #[test]
    fn the_list_is_what_is_built_in() {
        let mut built_in = built_in();
        built_in.retain(|name| !name.is_empty() && name != "name");
        let listed: BTreeSet<String> = MUTANTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed.len(), MUTANTS.len(), "a name is listed twice");
        let unlisted: Vec<_> = built_in.difference(&listed).collect();
        let absent: Vec<_> = listed.difference(&built_in).collect();
        assert!(unlisted.is_empty(), "in the source, and not in MUTANTS: {unlisted:?}");
        assert!(absent.is_empty(), "in MUTANTS, and not in the source: {absent:?}");
    }
}
