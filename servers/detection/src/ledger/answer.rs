//! Accounts as rows of an answer, a page at a time.

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{
    LedgerAnchor, LedgerFault, LedgerPage, LedgerRequest, LedgerRow, LedgerVerified, LedgerVerify,
};
use lapwing_server_core::ledger::{Account, Fault, LogPlace, Verified};
use lapwing_server_core::view::{message_bytes, push_item};
use lapwing_store::journal::Journal;

use super::{Book, Scan};
use crate::roster::Roster;

/// Bytes of rows at which a page is full: a quarter of a reply.
const PAGE_BYTES: usize = 2 << 20;

/// Rows, and the sensors they are of.
#[derive(Default)]
struct Rows {
    rows: Vec<u8>,
    of: BTreeSet<SensorId>,
}

impl Rows {
    fn is_full(&self) -> bool {
        self.rows.len() >= PAGE_BYTES
    }

    fn push(
        &mut self,
        roster: &Roster,
        (place, account): (&LogPlace, &Account),
        anchors: &[LedgerAnchor],
    ) {
        let (mut runs, mut chains) = (Vec::new(), Vec::new());
        account.runs().iter().for_each(|run| push_item(&mut runs, run));
        anchors.iter().for_each(|anchor| push_item(&mut chains, anchor));
        let member = roster.find(place.sensor);
        let told = member.and_then(|member| member.about().told.get(place.lane(), place.log));
        let row = LedgerRow {
            sensor: place.sensor,
            lane: place.lane(),
            log: place.log,
            runs: Items::from_bytes(&runs),
            lost_unknown: account.lost_unknown,
            undecoded: account.undecoded,
            next_seq: account.next_seq,
            anchors: Items::from_bytes(&chains),
            told,
        };
        push_item(&mut self.rows, &row);
        self.of.insert(place.sensor);
    }

    /// `Items<LedgerSensor>` of the sensors in these rows.
    fn sensors(&self, roster: &Roster) -> Vec<u8> {
        let mut items = Vec::new();
        for member in self.of.iter().filter_map(|sensor| roster.find(*sensor)) {
            let about = member.about();
            about.collected.push_to(&mut items, member.sensor, about.session.is_some());
        }
        items
    }
}

/// A page of the accounts as they are kept.
pub(crate) fn page(
    server: ServerId,
    (book, roster, journal): (&Book, &Roster, &Journal),
    request: LedgerRequest,
) -> Vec<u8> {
    let after = request.after.map(|(sensor, lane, log)| LogPlace::new(sensor, lane, log));
    let mut rows = Rows::default();
    let at_end = book.each(request.sensor, after, |place, account| {
        rows.push(roster, (place, account), &[]);
        !rows.is_full()
    });
    let behind = journal.durable().saturating_sub(book.counted_to());
    message_bytes(&LedgerPage {
        server,
        behind,
        at_end,
        rows: Items::from_bytes(&rows.rows),
        sensors: Items::from_bytes(&rows.sensors(roster)),
    })
}

/// How far a scan is, and a page of what it came to.
pub(crate) fn verified(
    server: ServerId,
    roster: &Roster,
    scan: &Scan,
    request: LedgerVerify,
) -> Vec<u8> {
    let (scanned, of) = scan.progress();
    let result = scan.result();
    let mut answer = LedgerVerified {
        server,
        scan: scan.number,
        scanned,
        of,
        ended: result.is_some(),
        partial: "",
        at_end: true,
        rows: Items::EMPTY,
        sensors: Items::EMPTY,
        faults: Items::EMPTY,
    };
    let Some(result) = result else { return message_bytes(&answer) };
    let after = request.after.map(|(sensor, lane, log)| LogPlace::new(sensor, lane, log));
    let mut rows = Rows::default();
    for (place, log) in behind(&result.logs, after) {
        if rows.is_full() {
            answer.at_end = false;
            break;
        }
        rows.push(roster, (place, &log.account), &log.anchors);
    }
    let mut faults = Vec::new();
    if request.after.is_none() {
        result.faults.iter().for_each(|fault| push_fault(&mut faults, fault));
    }
    let sensors = rows.sensors(roster);
    answer.partial = &result.partial;
    answer.rows = Items::from_bytes(&rows.rows);
    answer.sensors = Items::from_bytes(&sensors);
    answer.faults = Items::from_bytes(&faults);
    message_bytes(&answer)
}

fn behind(
    logs: &BTreeMap<LogPlace, Verified>,
    after: Option<LogPlace>,
) -> impl Iterator<Item = (&LogPlace, &Verified)> {
    use std::ops::Bound;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    logs.range((from, Bound::Unbounded))
}

fn push_fault(faults: &mut Vec<u8>, fault: &Fault) {
    let hidden = LogPlace::new(
        SensorId([0; 16]),
        lapwing_protocol::id::Lane::Bulk,
        lapwing_protocol::id::LogId([0; 16]),
    );
    let place = fault.place.unwrap_or(hidden);
    push_item(
        faults,
        &LedgerFault {
            sensor: place.sensor,
            lane: place.lane(),
            log: place.log,
            seq: fault.seq,
            commit: fault.commit,
            what: &fault.what,
        },
    );
}
