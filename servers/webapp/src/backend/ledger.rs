//! The ledger of every Detection server, as it is kept or by reading their journals.
//!
//! Not here: merging (view/ledger.rs). Invariant: a server that does not answer is named; its facts
//! are never taken as missing.

use lapwing_protocol::call::Method;
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::ledger::{LedgerPage, LedgerRequest, LedgerVerified, LedgerVerify};
use serde::Serialize;

use super::detection::no_server;
use super::{Backend, BackendError, Peer, join_all};
use crate::limits::QUERY_TIME;
use crate::view::{LedgerAnswer, LedgerLine, ledger_lines};

/// A place in a server's ledger.
type RowPlace = (SensorId, Lane, LogId);

/// How far one server's scan is.
#[derive(Debug, Serialize)]
pub(crate) struct ScanLine {
    pub(crate) server: String,
    pub(crate) scanned: u64,
    pub(crate) of: u64,
    pub(crate) ended: bool,
    /// Why it is not the whole answer; empty when it is.
    pub(crate) partial: String,
}

/// How far a verification is, and what it came to once it ended.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    /// Names the scans, to ask for them again.
    pub(crate) scan: String,
    pub(crate) ended: bool,
    /// Why it is not the whole answer; empty when it is.
    pub(crate) partial: String,
    pub(crate) servers: Vec<ScanLine>,
    pub(crate) rows: Vec<LedgerLine>,
}

/// One server's scan, as asked for and as answered.
struct ScanAnswer {
    number: usize,
    scan: u64,
    line: ScanLine,
    answer: LedgerAnswer,
}

impl Backend {
    /// The ledger as the servers keep it, and what is missing of it.
    pub(crate) async fn ledger(
        &self,
        sensor: Option<SensorId>,
    ) -> Result<(Vec<LedgerLine>, Vec<BackendError>), BackendError> {
        let servers = self.detections();
        let asking = servers.iter().map(|(number, name)| self.ledger_of(*number, name, sensor));
        let (mut answers, mut failures) = (Vec::new(), Vec::new());
        for answer in join_all(asking).await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(failure) => failures.push(failure),
            }
        }
        if answers.is_empty() {
            return Err(failures.pop().unwrap_or_else(no_server));
        }
        Ok((ledger_lines(answers, failures.is_empty(), false), failures))
    }

    async fn ledger_of(
        &self,
        number: usize,
        name: &str,
        sensor: Option<SensorId>,
    ) -> Result<LedgerAnswer, BackendError> {
        let mut answer = LedgerAnswer::new(name);
        let mut after: Option<RowPlace> = None;
        loop {
            let request = LedgerRequest { sensor, after };
            let peer = Peer::Detection(number);
            let is_whole = self
                .ask_within(peer, Method::LEDGER, &request, QUERY_TIME, |reply| {
                    let page = from_bytes::<LedgerPage<'_>>(reply)?;
                    answer.add(page.server, &page.rows, &page.sensors)?;
                    Ok(page.at_end || page.rows.is_empty())
                })
                .await?;
            after = answer.rows.last().map(|row| (row.sensor, row.lane, row.log));
            if is_whole {
                return Ok(answer);
            }
        }
    }

    /// Has every server read its journal, or asks how far those of `scan` are; waits at most
    /// `wait_ms` for the end.
    pub(crate) async fn verify(
        &self,
        scan: &str,
        wait_ms: u32,
    ) -> Result<Verification, BackendError> {
        let servers = self.detections();
        let known = |number: usize| {
            scan.split(',').find_map(|part| {
                let (of, scan) = part.split_once(':')?;
                (of.parse() == Ok(number)).then(|| scan.parse().unwrap_or(0))
            })
        };
        let asking = servers.iter().map(|(number, name)| {
            self.scan_of((*number, name), known(*number).unwrap_or(0), wait_ms)
        });
        let (mut scans, mut missing) = (Vec::new(), Vec::new());
        for ((_, name), answer) in servers.iter().zip(join_all(asking).await) {
            match answer {
                Ok(scan) => {
                    if !scan.line.partial.is_empty() {
                        missing.push(format!("{name}: {}", scan.line.partial));
                    }
                    scans.push(scan);
                }
                Err(failure) if servers.len() == 1 => return Err(failure),
                Err(failure) => missing.push(failure.to_string()),
            }
        }
        if scans.is_empty() {
            return Err(no_server());
        }
        let scan: Vec<String> =
            scans.iter().map(|scan| format!("{}:{}", scan.number, scan.scan)).collect();
        let ended = scans.iter().all(|scan| scan.line.ended);
        let is_whole = missing.is_empty();
        let (lines, answers): (Vec<ScanLine>, Vec<LedgerAnswer>) =
            scans.into_iter().map(|scan| (scan.line, scan.answer)).unzip();
        let rows = if ended { ledger_lines(answers, is_whole, true) } else { Vec::new() };
        let (scan, partial) = (scan.join(","), missing.join("; "));
        Ok(Verification { scan, ended, partial, servers: lines, rows })
    }

    async fn scan_of(
        &self,
        (number, name): (usize, &str),
        scan: u64,
        wait_ms: u32,
    ) -> Result<ScanAnswer, BackendError> {
        let line = ScanLine {
            server: name.to_owned(),
            scanned: 0,
            of: 0,
            ended: false,
            partial: String::new(),
        };
        let answer = LedgerAnswer::new(name);
        let mut held = ScanAnswer { number, scan, line, answer };
        let mut after: Option<RowPlace> = None;
        loop {
            let request = LedgerVerify { scan: held.scan, after, wait_ms };
            let time = QUERY_TIME + std::time::Duration::from_millis(u64::from(wait_ms));
            let peer = Peer::Detection(number);
            let is_whole = self
                .ask_within(peer, Method::LEDGER_VERIFY, &request, time, |reply| held.add(reply))
                .await?;
            after = held.answer.rows.last().map(|row| (row.sensor, row.lane, row.log));
            if is_whole {
                return Ok(held);
            }
        }
    }
}

impl ScanAnswer {
    /// Adds an answer; says whether it is the last.
    fn add(&mut self, reply: &[u8]) -> Result<bool, DecodeError> {
        let page = from_bytes::<LedgerVerified<'_>>(reply)?;
        self.scan = page.scan;
        (self.line.scanned, self.line.of) = (page.scanned, page.of);
        self.line.ended = page.ended;
        page.partial.clone_into(&mut self.line.partial);
        self.answer.add(page.server, &page.rows, &page.sensors)?;
        self.answer.add_faults(&page.faults)?;
        Ok(page.at_end || page.rows.is_empty())
    }
}
