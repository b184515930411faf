//! Keeps the journal within its time: partitions older than `journal.keep` are dropped whole.
//!
//! Not here: what may be dropped (the journal decides; a live segment keeps its partition). A
//! sensor whose segment holds an old partition back is asked for a new one, so that the next look
//! can drop it. Invariant: what is dropped is logged with its range.

use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_protocol::delivery::ResyncReason;
use lapwing_protocol::id::SensorId;
use lapwing_store::journal::{Journal, Kept, Retention, RetentionReport};
use smol::Timer;

use crate::ledger::Book;
use crate::roster::{Roster, lane_of};

/// How often it is looked for: partitions are a day or 100 MB long.
const EVERY: Duration = Duration::from_secs(600);

/// Drops what is too old, again and again.
pub(crate) async fn run(
    journal: Arc<Journal>,
    roster: Arc<Roster>,
    book: Arc<Book>,
    keep: Duration,
) {
    loop {
        // What the analyst has not taken is neither judged nor counted.
        let unread_from = book.counted_to() + 1;
        look((&journal, &roster), (clock::unix_ms(), unread_from), keep).await;
        Timer::after(EVERY).await;
    }
}

async fn look(
    (journal, roster): (&Arc<Journal>, &Roster),
    (now_ms, unread_from): (u64, u64),
    keep: Duration,
) {
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let retention = Retention {
        before_wall_ms: Some(now_ms.saturating_sub(keep_ms)),
        unread_from: Some(unread_from),
        ..Retention::default()
    };
    let retaining = Arc::clone(journal);
    match smol::unblock(move || retaining.retain(retention)).await {
        Ok(report) => tell(&report, roster),
        Err(error) => log::error!("old facts cannot be dropped: {error}"),
    }
}

fn tell(report: &RetentionReport, roster: &Roster) {
    for partition in &report.dropped {
        let end = partition.end.unwrap_or(partition.first);
        log::info!(
            "facts of commits {} to {} are older than journal.keep: {} bytes given back",
            partition.first,
            end.saturating_sub(1),
            partition.bytes
        );
    }
    for (_, kept) in &report.kept {
        if let Kept::Unread { from } = kept {
            log::error!(
                "facts from commit {from} on are older than journal.keep and are kept: the analyst \
                 has not taken them yet; restart the server if it does not go on"
            );
            break;
        }
        let Kept::LiveSegment { lane, .. } = kept else { continue };
        let (sensor, Some(of)) = (SensorId(lane.sensor), lane_of(lane.lane)) else { continue };
        let Some(member) = roster.find(sensor) else { continue };
        let standing = member.standings().into_iter().find(|standing| standing.lane == of);
        let at_seq = standing.map_or(0, |standing| standing.next_seq.saturating_sub(1));
        let now_ms = clock::monotonic_ms();
        member.receiver().handle_divergent(now_ms, of, at_seq, ResyncReason::Retention);
        member.wake.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::id::{DeploymentId, ServerId};
    use lapwing_store::journal::{
        Append, Incarnation, JournalOptions, LaneKey, LogKey, MemoryPartitions,
    };
    use lapwing_store::{MemoryDisk, RowStore};

    const DAY_MS: u64 = 86_400_000;

    fn append(received_wall_ms: u64, segment: u64) -> Append {
        let lane = LaneKey { sensor: [7; 16], lane: 0 };
        Append {
            log: LogKey { lane, log: [1; 16] },
            segment,
            received_wall_ms,
            header: vec![0; 8],
            body: vec![0; 256],
            head: vec![0; 8],
        }
    }

    #[test]
    fn what_is_older_than_it_is_kept_for_goes_and_what_a_segment_needs_stays() {
        let mut options = JournalOptions::new(Incarnation::Keep([1; 16]), 0);
        options.partition_bytes_max = 1_024;
        let journal = Journal::open(Arc::new(MemoryPartitions::new("journal")), &options).unwrap();
        let journal = Arc::new(journal);
        // Ten days of one segment, then a new one.
        for day in 1..=10 {
            journal.append(append(day * DAY_MS, 1)).unwrap().wait().unwrap();
            journal.append(append(day * DAY_MS, 1)).unwrap().wait().unwrap();
        }
        let state = RowStore::over(Arc::new(MemoryDisk::new("state").open().unwrap())).unwrap();
        let owner = (DeploymentId([1; 16]), ServerId([2; 16]));
        let roster = Roster::load(owner, &journal, &state).unwrap();
        let keep = Duration::from_millis(3 * DAY_MS);
        let before = journal.partitions().unwrap().len();
        smol::block_on(look((&journal, &roster), (11 * DAY_MS, u64::MAX), keep));
        assert_eq!(journal.partitions().unwrap().len(), before, "the segment began on day one");

        journal.append(append(11 * DAY_MS, 2)).unwrap().wait().unwrap();
        // An analyst that stopped long ago has taken nothing: everything waits for it.
        smol::block_on(look((&journal, &roster), (11 * DAY_MS, 1), keep));
        assert_eq!(journal.partitions().unwrap().first().map(|it| it.first), Some(1));
        smol::block_on(look((&journal, &roster), (11 * DAY_MS, u64::MAX), keep));
        let left = journal.partitions().unwrap();
        assert!(left.len() < before, "{before} partitions, {} left", left.len());
        assert!(journal.entry(1).unwrap().is_none() && journal.durable() == 21);
    }
}
