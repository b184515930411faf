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
    ("clone_unnoticed", "says nothing when a boot comes back after another one"),
    ("command_sent_again", "sends a command again that it sent before"),
    ("count_unchecked", "decodes a chunk whose count is not what its ops stand for"),
    ("credit_bytes_kept", "counts the bytes of an earlier session against the next one's credit"),
    ("credit_off_by_one", "takes one chunk beyond the credit"),
    ("credit_shrinks", "lowers the credit within a session"),
    ("digest_ignored", "does not compare the state digest"),
    ("divergence_unsaid", "says nothing of a state that differs in one segment after the other"),
    ("duplicate_stored", "stores a repeat as if it were new"),
    ("encoding_ignored", "decodes a chunk of an unknown encoding as if it were encoding 1"),
    ("epoch_constant", "gives every session the same number"),
    ("expired_sent", "sends a command whose time is over"),
    ("feed_waits_on", "lets a feed wait as long as it is asked to"),
    ("fork_unnoticed", "does not compare the chain at Hello"),
    ("gap_accepted", "takes a chunk beyond the next one"),
    ("half_a_digest_compared", "compares the lower half of a keyframe's digest"),
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
    ("jump_unthrottled", "takes a Jump however overloaded it is"),
    ("key_forgotten", "forgets at a restart whose key an id is"),
    ("lane_twice_accepted", "takes a Hello with two logs of one lane"),
    ("loss_counted_as_dropped", "counts in the ledger what was lost as what was dropped"),
    ("nack_storm", "sends a Nack for every chunk that is out of order"),
    ("no_fence", "lets an older session go on beside a newer one"),
    ("old_epoch_accepted", "takes what an older session sends until it tells it"),
    ("old_log_forgotten", "forgets an old log for which a lane's head has no room"),
    ("opening_unchecked", "takes a chunk that does not open where one must"),
    (
        "other_branch_swallowed",
        "takes another branch's chunk for a repeat of one that is on its way",
    ),
    ("other_key_unsaid", "refuses another key for an id, and tells nobody"),
    ("oversize_frame_read", "reads the body of a frame beyond the bound"),
    ("own_runs_count", "takes its own lost run for one that another server holds"),
    ("page_skips_one", "leaves out an entry where a page ends and the next begins"),
    ("pong_without_nonce", "answers a Ping without its nonce"),
    ("repeat_silent", "does not acknowledge a repeat"),
    ("request_unchecked", "enrols a key whose request is not signed with it"),
    ("reserved_flags_ignored", "takes a frame with a flag that means nothing"),
    ("resync_each_session", "forgets at the end of a session when it asked for a keyframe"),
    ("resync_loop", "asks for a keyframe as often as it likes"),
    ("rollback_unnoticed", "resumes with a sensor that made less than is stored"),
    ("safe_ahead_of_backup", "says that what is stored is safe, although no backup holds it"),
    ("safe_ahead_of_stored", "says that more is safe than is stored"),
    ("safe_left_behind", "never says that something is safe, although there are no backups"),
    ("scan_counts_no_jumps", "counts no Jump when it scans the journal"),
    ("sessions_resumed", "lets a TLS session be resumed"),
    ("skew_unnoticed", "does not compare a sensor's clock with its own"),
    ("skippable_kind_fatal", "refuses an unknown kind that may be skipped"),
    ("strings_kept", "keeps the string slots over the beginning of a segment"),
    ("text_unchecked", "takes texts in Hello beyond their bound"),
    ("throttled_stored", "stores a chunk that it refuses as Throttled"),
    ("token_unchecked", "enrols with any token"),
    ("trailing_bytes_accepted", "takes bytes behind a message"),
    ("undecodable_no_finding", "tells nobody but the sensor of a chunk that does not decode"),
    ("undecodable_unsaid", "asks for nothing when a chunk does not decode"),
    ("unknown_kind_skipped", "skips an unknown kind that may not be skipped"),
    ("unknown_loss_uncounted", "counts no hole whose size is not known"),
    ("urgent_starved", "answers the urgent lane only when the bulk lane is at rest"),
    ("urgent_throttled", "throttles the urgent lane as well"),
    ("version_unchecked", "speaks version 1 with a sensor that does not"),
    ("watermark_ahead", "stores that a lane stands one chunk further than it does"),
];

/// Those that show only in cases that wait for more than ten seconds.
pub const SLOW_MUTANTS: &[&str] =
    &["feed_waits_on", "idle_kept", "progress_unwatched", "resync_dropped"];

/// The same of a sensor; those of the codec, which both ends use, stand in both lists.
pub const SENSOR_MUTANTS: &[(&str, &str)] = &[
    ("any_server_accepted", "speaks with any server of the CA, whatever its role and id"),
    ("bulk_lane_first", "serves the bulk lane before the urgent one"),
    ("command_number_reset", "accepts a command with a lower number than the last"),
    ("command_run_twice", "runs a command again that comes again"),
    ("credit_of_bytes_ignored", "counts no bytes"),
    ("credit_taken_back", "lets an Ack lower its credit"),
    ("digest_wrong", "says another digest than its rows have"),
    ("draining_ignored", "stays with a server that is going away"),
    ("drop_cause_wrong", "says another cause than that the spool was full"),
    ("elsewhere_beyond", "says of what nobody acknowledged that another server has it"),
    ("expired_command_run", "runs a command whose time is over"),
    ("facts_lost_unsaid", "says nothing of facts that went with a log it gave up"),
    ("false_ack_accepted", "believes an Ack of what it did not send"),
    ("fenced_back_at_once", "comes back at once when it is fenced"),
    ("fenced_moves", "asks Registration for another server when it is fenced"),
    ("hole_counts_short", "says of a hole one fact less than it dropped"),
    ("interrupted_unsaid", "says nothing of a command that an earlier process did not finish"),
    ("log_reused", "goes on with a log after an unclean stop"),
    ("mark_unsaid", "sends no ChainMark"),
    ("memory_needs_table", "sends chunks that do not stand alone although it has no spool"),
    ("nack_ignored", "does not send again what was not taken"),
    ("newest_dropped_first", "drops of a full spool the newest"),
    ("number_after_action", "makes a command's number durable after it acted"),
    ("old_episode_accepted", "goes back for a Nack of an old episode"),
    ("oldest_run_forgotten", "forgets who has the beginning of a log, and does not merge it"),
    ("oversize_frame_read", "reads the body of a frame beyond the bound"),
    ("package_unused", "does not go where its package says when Registration does not answer"),
    ("progress_unwatched", "stays with a server that acknowledges nothing"),
    ("refusal_ignored", "comes back sooner than a refusal allows"),
    ("registration_asked_when_well", "asks Registration whenever a session is lost"),
    ("reserved_flags_ignored", "takes a frame with a flag that means nothing"),
    ("resync_dropped", "forgets a wish for a segment that comes within a minute of the last"),
    ("resync_each_time", "begins a segment for every Resync"),
    ("resync_ignored", "begins no segment for a Resync"),
    ("retry_after_ignored", "sends again at once after a Nack"),
    ("segment_goes_on", "begins no segment after a lost session"),
    ("sensor_chain_over_body", "chains a chunk without its first bytes"),
    ("sensor_credit_off_by_one", "sends one chunk beyond the credit"),
    ("sensor_fork_unnoticed", "does not compare the server's chain with its own"),
    ("skippable_kind_fatal", "ends the session at an unknown kind that may be skipped"),
    ("tail_forgotten", "does not send what an unclean stop left"),
    ("trailing_bytes_accepted", "takes bytes behind a message"),
    ("trimmed_before_acked", "frees what nobody acknowledged"),
    ("turned_away_overtaken", "takes a later command after it turned one away"),
    ("unknown_kind_skipped", "skips an unknown kind that may not be skipped"),
    ("urgent_dropped_first", "drops of a full spool what is urgent, and keeps the bulk lane"),
    ("verdicts_ignored", "goes on with a log that the server gave up"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every `mutant = "name"` in the source of the product.
    fn built_in() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders = ["protocol/src", "servers", "sensor-core/src", "sensor-os/src"]
            .map(|name| root.join(name))
            .to_vec();
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
        let both = || MUTANTS.iter().chain(SENSOR_MUTANTS);
        let listed: BTreeSet<String> = both().map(|(name, _)| (*name).to_owned()).collect();
        let unlisted: Vec<_> = built_in.difference(&listed).collect();
        let absent: Vec<_> = listed.difference(&built_in).collect();
        assert!(unlisted.is_empty(), "in the source, and not in a list: {unlisted:?}");
        assert!(absent.is_empty(), "in a list, and not in the source: {absent:?}");
    }

    #[test]
    fn what_shows_slowly_is_listed() {
        let listed = || MUTANTS.iter().chain(SENSOR_MUTANTS);
        let is_listed = |slow: &&&str| listed().any(|(name, _)| *name == **slow);
        assert_eq!(SLOW_MUTANTS.iter().filter(is_listed).count(), SLOW_MUTANTS.len());
    }

    #[test]
    fn no_list_has_a_name_twice() {
        for list in [MUTANTS, SENSOR_MUTANTS] {
            let names: BTreeSet<&str> = list.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), list.len(), "a name is listed twice");
        }
    }
}
