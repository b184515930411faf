//! MalOps over a store that is a map: what is handled, stored and restored, and what is not.

use std::collections::BTreeMap;
use std::convert::Infallible;

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::process;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_protocol::malop::{MalOpStatus as Status, MalOpView};

use super::limits::{BATCH_ROWS, COMMENT_BYTES_MAX, COMMENTS_MAX};
use super::*;
use crate::evidence::evidence_id;
use crate::view::OwnedCell;

const CAUSE: &str = "hash:ab";

#[test]
fn evidence_of_one_cause_groups_over_machines_and_users() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE), blocked(2, CAUSE), of_user("root", blocked(3, CAUSE))]);
    let malop = desk.only_malop();
    assert_eq!(malop.count, 3);
    let names: Vec<&str> = malop.machines.values().map(String::as_str).collect();
    assert_eq!(names, ["m1", "m2", "m3"]);
    assert_eq!(malop.users.iter().collect::<Vec<_>>(), ["root", "u1", "u2"]);
    assert_eq!((malop.first_seen_ms, malop.last_seen_ms), (1_001, 1_003));
    assert_eq!((malop.status, malop.severity()), (Status::New, Severity::High));
    assert_eq!(malop.lead.title, "m1 runs a blocklisted file");
    let other = blocked(1, "domain:bad.example");
    desk.tell(std::slice::from_ref(&other));
    assert_ne!(group_id(&other), group_id(&blocked(1, CAUSE)));
    assert_eq!(desk.malops.malops(None).count(), 2);
}

#[test]
fn a_repeat_changes_nothing_and_two_servers_that_tell_the_same_count_once() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE), blocked(1, CAUSE), blocked(2, CAUSE)]);
    let before = desk.rows.clone();
    assert_eq!(desk.only_malop().count, 2);
    let seen_by_another_server = Evidence { raised_ms: 99_999, ..blocked(1, CAUSE) };
    desk.tell(&[seen_by_another_server, blocked(2, CAUSE)]);
    assert_eq!(desk.rows, before);
    desk.restart();
    desk.tell(&[blocked(2, CAUSE), blocked(1, CAUSE)]);
    assert_eq!(desk.rows, before);
}

#[test]
fn the_order_of_arrival_makes_no_difference() {
    let mut evidences: Vec<Evidence> = (1..=5).map(|machine| blocked(machine, CAUSE)).collect();
    evidences.push(malware(6, CAUSE));
    evidences.push(suspicion(1, "unnamed_executable"));
    evidences.push(Evidence { severity: Severity::High, ..suspicion(2, "unnamed_executable") });
    let mut forward = Desk::default();
    forward.tell(&evidences);
    evidences.reverse();
    let mut backward = Desk::default();
    for evidence in evidences {
        backward.tell(&[evidence]);
    }
    let told = |desk: &Desk| {
        let mut views: Vec<Group> = desk.malops.malops(None).cloned().collect();
        views.sort_by_key(|group| group.id);
        for group in &mut views {
            group.change = 0;
            group.kept.clear();
        }
        views
    };
    assert_eq!(told(&forward), told(&backward));
    assert_eq!(forward.malops.malops(None).count(), 2);
}

#[test]
fn what_makes_a_malop_and_what_stays_a_suspicion() {
    let low_but_listed = Evidence { severity: Severity::Low, ..blocked(1, CAUSE) };
    assert_eq!(decide(&low_but_listed), Decision::MalOp);
    let high = Evidence { severity: Severity::High, ..suspicion(1, "reverse_shell") };
    assert_eq!(decide(&high), Decision::MalOp);
    assert_eq!(decide(&suspicion(1, "server_shell")), Decision::Suspicion);
    assert_eq!(decide(&Evidence { suspicious: false, ..blocked(1, CAUSE) }), Decision::Noted);
    let mut allowed = suspicion(1, "server_shell");
    allowed.reputation = verdict("allow");
    assert_eq!(decide(&allowed), Decision::Suspicion);
    assert_eq!(group_id(&malware(1, CAUSE)), group_id(&blocked(2, CAUSE)), "one cause, one MalOp");
}

#[test]
fn suspicions_are_listed_newest_first_until_their_cause_is_a_malop() {
    let mut desk = Desk::default();
    desk.tell(&[suspicion(1, "server_shell"), suspicion(3, "server_shell")]);
    desk.tell(&[suspicion(2, "shell_connection")]);
    assert_eq!(desk.malops.malops(None).count(), 0);
    assert_eq!(desk.suspicions(), ["m3", "m2", "m1"]);
    desk.restart();
    desk.tell(&[Evidence { severity: Severity::High, ..suspicion(4, "server_shell") }]);
    assert_eq!(desk.suspicions(), ["m2"]);
    assert_eq!(desk.only_malop().count, 3, "what was suspected before belongs to it");
    desk.tell(&[Evidence { suspicious: false, ..suspicion(5, "shell_connection") }]);
    assert_eq!(desk.suspicions(), ["m2"]);
}

#[test]
fn new_activity_reopens_what_was_done_with() {
    for done in [Status::Closed, Status::Remediated] {
        let mut desk = Desk::default();
        desk.tell(&[blocked(1, CAUSE)]);
        desk.set(done).unwrap();
        desk.tell(&[blocked(1, CAUSE)]);
        assert_eq!(desk.only_malop().status, done, "a repeat is no activity");
        desk.tell(&[blocked(2, CAUSE)]);
        assert_eq!(desk.only_malop().status, Status::Reopened);
    }
    for open in [Status::UnderInvestigation, Status::OnHold] {
        let mut desk = Desk::default();
        desk.tell(&[blocked(1, CAUSE)]);
        desk.set(open).unwrap();
        desk.tell(&[blocked(2, CAUSE)]);
        assert_eq!(desk.only_malop().status, open);
    }
}

#[test]
fn what_is_excluded_stays_so_and_counts() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE)]);
    desk.set(Status::Excluded).unwrap();
    desk.tell(&[blocked(2, CAUSE)]);
    desk.restart();
    let malop = desk.only_malop();
    assert_eq!((malop.status, malop.count), (Status::Excluded, 2));
    assert_eq!(malop.status_author, "anna");
}

#[test]
fn a_person_moves_a_malop_and_is_refused_what_makes_no_sense() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE)]);
    assert_eq!(desk.set(Status::Reopened), Err(WorkRefused::NotClosed));
    desk.set(Status::Closed).unwrap();
    let rows = desk.rows.clone();
    desk.set(Status::Closed).unwrap();
    assert_eq!(desk.rows, rows, "it is there already");
    desk.set(Status::Reopened).unwrap();
    let id = desk.only_malop().id;
    let refused = desk.malops.handle_status(0, (id, Status::Closed), "a\u{1b}b");
    assert_eq!(refused, Err(WorkRefused::BadAuthor));
    let unknown = (MalOpId([0; 16]), Status::Closed);
    assert_eq!(desk.malops.handle_status(0, unknown, "anna"), Err(WorkRefused::NotFound));
    desk.tell(&[suspicion(1, "server_shell")]);
    let suspected = (group_id(&suspicion(1, "server_shell")), Status::Closed);
    assert_eq!(desk.malops.handle_status(0, suspected, "anna"), Err(WorkRefused::NotFound));
}

#[test]
fn comments_are_kept_in_order_and_bounded() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE)]);
    let id = desk.only_malop().id;
    let long = "x".repeat(COMMENT_BYTES_MAX);
    for text in ["first\nline", &long] {
        desk.malops.handle_comment(7, (id, text), "anna").unwrap();
        desk.store();
    }
    desk.restart();
    let texts: Vec<String> = desk.comments(id).into_iter().map(|comment| comment.text).collect();
    assert_eq!(texts, ["first\nline", long.as_str()]);
    for bad in ["", " \n", "a\u{1b}[2J", &format!("{long}x")] {
        let refused = desk.malops.handle_comment(7, (id, bad), "anna");
        assert_eq!(refused, Err(WorkRefused::BadComment), "{bad:?}");
    }
    for _ in 2..COMMENTS_MAX {
        desk.malops.handle_comment(7, (id, "more"), "anna").unwrap();
    }
    let refused = desk.malops.handle_comment(7, (id, "more"), "anna");
    assert_eq!(refused, Err(WorkRefused::TooManyComments));
}

#[test]
fn changes_are_read_by_number_and_show_each_malop_once() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE)]);
    desk.tell(&[blocked(1, "ip:192.0.2.1")]);
    let cursor = desk.malops.last_change();
    assert_eq!(desk.malops.changes(0, cursor).count(), 2);
    assert_eq!(desk.malops.changes(cursor, cursor).count(), 0);
    desk.tell(&[blocked(2, CAUSE)]);
    let last = desk.malops.last_change();
    let changed: Vec<&str> =
        desk.malops.changes(cursor, last).map(|group| group.root_cause.as_str()).collect();
    assert_eq!(changed, [CAUSE]);
    assert_eq!(desk.malops.changes(0, cursor).count(), 1, "the other one is not durable yet");
    assert_eq!(desk.malops.changes(u64::MAX, last).count(), 0);
    desk.restart();
    assert_eq!(desk.malops.last_change(), last);
}

#[test]
fn of_many_evidences_the_newest_are_kept_and_all_are_counted() {
    let mut desk = Desk::with(MalOpLimits { evidence_kept_max: 3, ..MalOpLimits::default() });
    for machine in 1..=9 {
        desk.tell(&[blocked(machine, CAUSE)]);
    }
    desk.restart();
    let malop = desk.only_malop();
    assert_eq!((malop.count, malop.kept.len()), (9, 3));
    let kept: Vec<String> = malop.kept.iter().map(|kept| desk.body(kept.number)).collect();
    assert_eq!(kept, ["m7", "m8", "m9"]);
    let [from, to] = key::bodies(1, 7);
    assert!(desk.rows.range(from..to).all(|(_, value)| value.len() == ID_BYTES));
    desk.tell(&[blocked(1, CAUSE)]);
    assert_eq!(desk.only_malop().count, 9, "what is kept no more is still told as a repeat");
}

#[test]
fn lists_of_machines_and_users_are_bounded_and_what_is_beyond_is_counted() {
    let mut desk = Desk::with(MalOpLimits { affected_max: 2, ..MalOpLimits::default() });
    desk.tell(&[blocked(1, CAUSE), blocked(2, CAUSE), blocked(3, CAUSE), blocked(4, CAUSE)]);
    let malop = desk.only_malop();
    assert_eq!((malop.machines.len(), malop.users.len(), malop.unlisted), (2, 2, 2));
    assert_eq!(malop.count, 4);
}

#[test]
fn when_there_are_too_many_malops_those_done_with_go_first_and_excluded_ones_last() {
    let mut desk = Desk::with(MalOpLimits { malops_max: 3, ..MalOpLimits::default() });
    let [excluded, closed, low, new] = [CAUSE, "hash:b", "hash:c", "hash:d"];
    desk.tell(&[blocked(1, excluded), blocked(1, closed)]);
    desk.tell(&[Evidence { severity: Severity::Low, ..blocked(1, low) }]);
    desk.set_of(&blocked(1, excluded), Status::Excluded).unwrap();
    desk.set_of(&blocked(1, closed), Status::Closed).unwrap();
    desk.malops.handle_comment(1, (group_id(&blocked(1, closed)), "done"), "anna").unwrap();
    desk.store();
    desk.tell(&[blocked(1, new)]);
    assert_eq!(desk.causes(), [excluded, low, new]);
    assert!(desk.comments(group_id(&blocked(1, closed))).is_empty());
    desk.tell(&[blocked(1, "hash:e")]);
    assert_eq!(desk.causes(), [excluded, new, "hash:e"]);
    assert_eq!(desk.malops.removed(), [2, 0]);
    desk.restart();
    assert_eq!(desk.causes(), [excluded, new, "hash:e"]);
    desk.tell(&[blocked(1, closed)]);
    assert_eq!(desk.causes(), [excluded, new, "hash:e"], "its evidence is known, if it is gone");
}

#[test]
fn causes_under_suspicion_are_bounded_and_do_not_push_out_malops() {
    let limits = MalOpLimits { malops_max: 1, suspicious_causes_max: 2, ..MalOpLimits::default() };
    let mut desk = Desk::with(limits);
    desk.tell(&[blocked(1, CAUSE), suspicion(1, "r1"), suspicion(2, "r2"), suspicion(3, "r3")]);
    assert_eq!(desk.suspicions(), ["m3", "m2"]);
    assert_eq!((desk.causes(), desk.malops.removed()), (vec![CAUSE.to_owned()], [0, 1]));
}

#[test]
fn the_ids_of_the_oldest_evidence_are_forgotten_but_not_what_is_kept() {
    let mut desk = Desk::with(MalOpLimits {
        identities_max: 4,
        evidence_kept_max: 2,
        ..MalOpLimits::default()
    });
    desk.tell(&[blocked(1, "hash:old")]);
    for machine in 1..=6 {
        desk.tell(&[blocked(machine, CAUSE)]);
    }
    desk.forget();
    let known: Vec<u8> =
        (1..=6).filter(|machine| desk.is_known(blocked(*machine, CAUSE).evidence)).collect();
    assert_eq!(known, [3, 4, 5, 6]);
    assert!(!desk.is_known(blocked(1, "hash:old").evidence));
    desk.restart();
    assert_eq!(desk.malops.forgettable(), None);
    let old = desk.malops.malop(group_id(&blocked(1, "hash:old"))).unwrap();
    assert_eq!(desk.body(old.kept[0].number), "m1");
    let [from, to] = key::bodies(2, 4);
    assert_eq!(desk.rows.range(from..to).count(), 0, "nothing is left of what is not kept");
}

#[test]
fn a_flood_of_causes_is_cut_into_batches() {
    let mut desk = Desk::default();
    let mut batches = 0;
    for number in 0..200_u32 {
        desk.malops.handle_evidence(0, &blocked(1, &format!("hash:{number}")));
        if desk.malops.is_batch_full() {
            let rows = desk.malops.poll_rows();
            assert!(rows.len() < BATCH_ROWS);
            desk.apply(rows);
            batches += 1;
        }
    }
    desk.store();
    assert!(batches >= 10, "{batches}");
    desk.restart();
    assert_eq!(desk.malops.malops(None).count(), 200);
    assert!(desk.malops.poll_rows().is_empty());
}

#[test]
fn long_texts_are_cut_and_long_evidence_is_kept_without_its_details() {
    let mut desk = Desk::default();
    let mut long = blocked(1, &"r".repeat(5_000));
    long.title = "\u{e9}".repeat(5_000);
    long.fields = vec![("name".to_owned(), OwnedCell::Text("f".repeat(70_000)))];
    desk.tell(&[long]);
    let malop = desk.only_malop();
    assert!(malop.lead.title.len() <= limits::TEXT_BYTES_MAX && malop.lead.title.ends_with("..."));
    assert!(malop.root_cause.len() <= limits::TEXT_BYTES_MAX);
    assert_eq!(desk.body(malop.kept[0].number), "m1");
}

#[test]
fn a_score_is_the_sum_of_its_reasons() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE)]);
    let alone = Score::of(desk.only_malop());
    assert_eq!(alone.to_string(), "65: high severity 60, a listed indicator 5");
    desk.tell(&(2..=12).map(|machine| blocked(machine, CAUSE)).collect::<Vec<_>>());
    let everywhere = Score::of(desk.only_malop());
    let sum: u32 = everywhere.reasons().iter().map(|(points, _)| points).sum();
    assert_eq!(everywhere.points(), 95);
    assert_eq!(everywhere.points(), sum);
    assert!(everywhere.to_string().contains("on 12 machines 20"), "{everywhere}");
}

#[test]
fn a_view_tells_what_the_group_says() {
    let mut desk = Desk::default();
    desk.tell(&[blocked(1, CAUSE), blocked(2, CAUSE)]);
    let mut list = Vec::new();
    desk.only_malop().push_to(&mut list);
    let view: MalOpView<'_> = from_bytes(&list).unwrap();
    assert_eq!((view.root_cause, view.rule, view.count), (CAUSE, "blocklisted_hash", 2));
    let machines: Vec<&str> = view.machines.iter().map(|machine| machine.unwrap().name).collect();
    assert_eq!(machines, ["m1", "m2"]);
    let techniques: Vec<&str> = view.techniques.iter().map(Result::unwrap).collect();
    assert_eq!(techniques, ["T1204.002"]);
}

/// MalOps over a store.
struct Desk {
    limits: MalOpLimits,
    malops: MalOps,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self::with(MalOpLimits::default())
    }
}

impl Desk {
    fn with(limits: MalOpLimits) -> Self {
        Self { limits, malops: MalOps::new(limits), rows: BTreeMap::new() }
    }

    /// A page of a feed.
    fn tell(&mut self, evidences: &[Evidence]) {
        let is_stored = |id| Ok::<_, Infallible>(self.is_known(id));
        for evidence in fresh(evidences.to_vec(), is_stored).unwrap() {
            self.malops.handle_evidence(5_000, &evidence);
        }
        self.store();
    }

    fn is_known(&self, id: EvidenceId) -> bool {
        self.rows.contains_key(&key::identity(id))
    }

    fn store(&mut self) {
        let rows = self.malops.poll_rows();
        self.apply(rows);
    }

    fn apply(&mut self, rows: Vec<Row>) {
        for row in rows {
            match row.value {
                Some(value) => self.rows.insert(row.key, value),
                None => self.rows.remove(&row.key),
            };
        }
    }

    fn scan(&self, [from, to]: [Vec<u8>; 2]) -> Vec<StoredRow> {
        self.rows.range(from..to).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn forget(&mut self) {
        while let Some((from, to)) = self.malops.forgettable() {
            let entries = self.scan(key::bodies(from, to));
            self.malops.handle_forgotten(to, entries);
            self.store();
        }
    }

    fn restart(&mut self) {
        let groups = self.scan(key::GROUPS.map(<[u8]>::to_vec));
        let numbers = self.rows.get(key::NUMBERS).map(Vec::as_slice);
        self.malops = MalOps::restore(self.limits, groups, numbers).unwrap();
    }

    fn only_malop(&self) -> &Group {
        let all: Vec<&Group> = self.malops.malops(None).collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> =
            self.malops.malops(None).map(|group| group.root_cause.clone()).collect();
        causes.sort();
        causes
    }

    fn set(&mut self, status: Status) -> Result<(), WorkRefused> {
        self.set_of(&blocked(1, CAUSE), status)
    }

    fn set_of(&mut self, evidence: &Evidence, status: Status) -> Result<(), WorkRefused> {
        self.malops.handle_status(6_000, (group_id(evidence), status), "anna")?;
        self.store();
        Ok(())
    }

    fn comments(&self, id: MalOpId) -> Vec<Comment> {
        let records = key::join_parts(self.scan(key::comments(id)));
        records.iter().map(|(_, bytes)| rows::read(bytes).unwrap()).collect()
    }

    /// The machine of a kept evidence.
    fn body(&self, number: u64) -> String {
        let records = key::join_parts(self.scan(key::bodies(number, number + 1)));
        Evidence::from_bytes(stored_evidence(&records[0].1).unwrap()).unwrap().machine
    }

    /// The machines of the suspicions, as listed.
    fn suspicions(&self) -> Vec<String> {
        self.malops.suspicions().map(|number| self.body(number)).collect()
    }
}

fn verdict(verdict: &str) -> Vec<(String, OwnedCell)> {
    vec![("verdict".to_owned(), OwnedCell::Text(verdict.to_owned()))]
}

/// A process of a blocked cause on a machine.
fn blocked(machine: u8, cause: &str) -> Evidence {
    let element = ElementGuid([machine; 16]);
    Evidence {
        evidence: evidence_id("blocklisted_hash", element, cause),
        rule: "blocklisted_hash".to_owned(),
        title: format!("m{machine} runs a blocklisted file"),
        sensor: SensorId([machine; 16]),
        machine: format!("m{machine}"),
        user: format!("u{machine}"),
        element,
        kind: process::KIND,
        label: "sleep (7)".to_owned(),
        root_cause: cause.to_owned(),
        happened_ms: 1_000 + u64::from(machine),
        raised_ms: 2_000 + u64::from(machine),
        severity: Severity::High,
        activity: ActivityType::MaliciousInfection,
        suspicious: true,
        techniques: vec!["T1204.002".to_owned()],
        reputation: verdict("block"),
        fields: Vec::new(),
        processes: Vec::new(),
    }
}

fn malware(machine: u8, cause: &str) -> Evidence {
    let rule = "malware_by_hash".to_owned();
    Evidence {
        rule,
        severity: Severity::Medium,
        reputation: verdict("malware"),
        ..blocked(machine, cause)
    }
}

/// A behaviour that is no MalOp by itself.
fn suspicion(machine: u8, rule: &str) -> Evidence {
    Evidence {
        evidence: evidence_id(rule, ElementGuid([machine; 16]), ""),
        rule: rule.to_owned(),
        severity: Severity::Medium,
        reputation: Vec::new(),
        ..blocked(machine, "hash:cd")
    }
}

fn of_user(user: &str, evidence: Evidence) -> Evidence {
    Evidence { user: user.to_owned(), ..evidence }
}
