//! The ledger: rows, pages, a scan and what it found.

use lapwing_protocol::delivery::LossReason;
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{
    CollectorCount, LedgerAnchor, LedgerFault, LedgerPage, LedgerRequest, LedgerRow, LedgerRun,
    LedgerSensor, LedgerTold, LedgerVerified, LedgerVerify, RunKind,
};
use lapwing_protocol::op::DropReason;

use crate::book::{Book, hold, items};
use crate::names::*;

/// A row with a run of every kind.
fn row() -> LedgerRow<'static> {
    let kinds = [
        RunKind::Stored,
        RunKind::Undecoded,
        RunKind::Expired,
        RunKind::Dropped(DropReason::SpoolFull),
        RunKind::Lost(LossReason::ServerRolledBack),
        RunKind::Elsewhere(OTHER_SERVER),
        RunKind::Missing,
    ];
    let runs = (1..).zip(kinds).map(|(number, kind)| LedgerRun { kind, to_index: number * 100 });
    let buffer: &'static mut [u8] = Box::leak(vec![0; 256].into_boxed_slice());
    LedgerRow {
        sensor: SENSOR,
        lane: Lane::Bulk,
        log: BULK_LOG,
        runs: Items::encode(runs, buffer).unwrap(),
        lost_unknown: 1,
        undecoded: 2,
        next_seq: 301,
        anchors: items![LedgerAnchor; LedgerAnchor { seq: 300, chain: CHAIN }],
        told: Some(LedgerTold { produced: 712, held: 12, at_ms: WALL_MS }),
    }
}

fn sensor() -> LedgerSensor<'static> {
    LedgerSensor {
        sensor: SENSOR,
        connected: true,
        told_ms: WALL_MS,
        unchanged: 77,
        collected: items![CollectorCount<'static>;
            CollectorCount { component: "processes", seen: 790, refused: 1, overflowed: 0 },
        ],
    }
}

#[test]
fn ledger() {
    let mut book = Book::new("ledger");
    let place = Some((SENSOR, Lane::Bulk, BULK_LOG));
    let all = LedgerRequest { sensor: None, after: None };
    hold!(book, "ledger_request_first", LedgerRequest, all);
    let next = LedgerRequest { sensor: Some(SENSOR), after: place };
    hold!(book, "ledger_request_next", LedgerRequest, next);
    hold!(book, "ledger_row", LedgerRow<'_>, row());
    let silent = LedgerRow { runs: Items::EMPTY, anchors: Items::EMPTY, told: None, ..row() };
    hold!(book, "ledger_row_silent", LedgerRow<'_>, silent);
    let page = LedgerPage {
        server: SERVER,
        behind: 3,
        at_end: true,
        rows: items![LedgerRow<'static>; row()],
        sensors: items![LedgerSensor<'static>; sensor()],
    };
    hold!(book, "ledger_page", LedgerPage<'_>, page);
    let verify = LedgerVerify { scan: 0, after: place, wait_ms: 2_000 };
    hold!(book, "ledger_verify", LedgerVerify, verify);
    let fault = LedgerFault {
        sensor: SENSOR,
        lane: Lane::Bulk,
        log: BULK_LOG,
        seq: 17,
        commit: 4_711,
        what: "the chain differs",
    };
    let hidden = LedgerFault { sensor: SensorId([0; 16]), log: LogId([0; 16]), seq: 0, ..fault };
    let verified = LedgerVerified {
        server: SERVER,
        scan: 5,
        scanned: 9_000,
        of: 9_000,
        ended: true,
        partial: "",
        at_end: true,
        rows: items![LedgerRow<'static>; row()],
        sensors: items![LedgerSensor<'static>; sensor()],
        faults: items![LedgerFault<'static>; fault, hidden],
    };
    hold!(book, "ledger_verified", LedgerVerified<'_>, verified);
    book.close();
}
