//! Tests of the mark beside a journal.

use std::sync::Arc;

use lapwing_store::journal::{Append, Incarnation, JournalOptions, LaneKey, LogKey};
use lapwing_store::journal::{MemoryPartitions, Partitions};

use super::*;

fn journal(entries: u64) -> Journal {
    let partitions = Arc::new(MemoryPartitions::new("mark")) as Arc<dyn Partitions>;
    let options = JournalOptions::new(Incarnation::Keep([9; 16]), 1);
    let journal = Journal::open(partitions, &options).unwrap();
    for _ in 0..entries {
        let ticket = journal.append(Append {
            log: LogKey { lane: LaneKey { sensor: [1; 16], lane: 0 }, log: [2; 16] },
            segment: 1,
            received_wall_ms: 1,
            header: vec![],
            body: vec![7],
            head: vec![],
        });
        ticket.unwrap().wait().unwrap();
    }
    journal
}

#[test]
fn the_end_is_known_again_and_a_mark_that_is_none_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let notice = Notice::default();
    let mark = Mark::open(folder.path(), &notice);
    assert_eq!(mark.known(), 0);
    mark.write(&journal(5));
    assert_eq!(Mark::open(folder.path(), &notice).known(), 5);
    mark.write(&journal(2));
    assert_eq!(Mark::open(folder.path(), &notice).known(), 2, "as it is, not as it was once");

    for text in ["", "lapwing journal mark 1\n5\n", "lapwing journal mark 2\n5\nend\n"] {
        std::fs::write(folder.path().join(MARK), text).unwrap();
        assert_eq!(Mark::open(folder.path(), &notice).known(), 0, "{text:?}");
    }
}

#[test]
fn a_loss_is_said_until_its_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let notice = Notice::default();
    let mark = Mark::open(folder.path(), &notice);
    mark.say();
    assert_eq!(notice.text(), "");
    mark.write_loss(20, 30).unwrap();
    mark.say();
    let text = notice.text();
    assert!(text.contains("ends with entry 20") && text.contains("up to 30"), "{text}");
    let again = Notice::default();
    let mark = Mark::open(folder.path(), &again);
    mark.say();
    assert_eq!(again.text(), text, "over restarts too");
    mark.write_loss(7, 9).unwrap();
    mark.say();
    assert!(again.text().contains("up to 9"), "{}", again.text());
    let lines = std::fs::read_to_string(folder.path().join(LOST)).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");

    std::fs::remove_file(folder.path().join(LOST)).unwrap();
    mark.say();
    assert_eq!(again.text(), "");
}
