//! What goes with a greeting: whose key it is, old logs that come back, what must be durable before
//! the answer, and the report that the sensor is asked for.

use lapwing_net::clock;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::console::SensorReport;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::frame::Frame;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::Greeting;
use lapwing_server_core::rows::Row;
use lapwing_store::StoreError;

use super::{Link, Sessions};
use crate::roster::{Member, collecting_row, record_row};
use crate::watch::{self, Findings};

/// Bytes of a sensor's report; a longer one is not read.
const REPORT_BYTES_MAX: usize = 64 << 10;

impl Sessions {
    /// Whether the key of the certificate is the sensor's own: that of its first session here.
    ///
    /// # Errors
    /// It is another one; what to say.
    pub(super) async fn admit(
        &self,
        member: &Member,
        digest: Option<[u8; 32]>,
    ) -> Result<(), &'static str> {
        let admitted = member.about().watch.admit(digest);
        let Err(suspicion) = admitted else { return Ok(()) };
        let machine = member.about().record.name.clone();
        let now_ms = clock::unix_ms();
        let found = self.findings.evidence(now_ms, (member.sensor, &machine), &[suspicion]);
        if !cfg!(mutant = "other_key_unsaid") {
            self.findings.report(found).await;
        }
        Err("this identity belongs to another key; enrol again")
    }

    /// Makes what the sensor said of itself durable, and what it gives cause for, and drops the
    /// commands it has accepted.
    ///
    /// # Errors
    /// It is not durable: the greeting must not be answered.
    pub(super) async fn greet(
        &self,
        member: &Member,
        greeting: &Greeting,
    ) -> Result<(), StoreError> {
        let now_ms = clock::unix_ms();
        let record = member.greet(now_ms, greeting);
        let retired = member.receiver().take_retired();
        let (mut rows, found) = {
            let mut about = member.about();
            let suspicions = about.watch.handle_greeting(now_ms, greeting);
            let of = (member.sensor, record.name.as_str());
            let found = self.findings.evidence(now_ms, of, &suspicions);
            let told = about.told.row(member.sensor);
            let watch = watch::watch_row(member.sensor, &about.watch);
            let collecting = collecting_row(member.sensor, about.collects());
            (vec![record_row(member.sensor, &record), collecting, told, watch], found)
        };
        if cfg!(mutant = "key_forgotten") {
            rows.pop();
        }
        rows.extend(Findings::rows(&found));
        self.write(member, (now_ms, rows), retired).await?;
        self.findings.tell(found);
        let accepted = greeting.last_command;
        let is_over = |number| Some(number) <= accepted;
        self.commands.settle(now_ms, member.sensor, is_over).await?;
        if greeting.memory == Memory::RamOnly {
            self.commands.forget_unsure(member.sensor).await?;
        }
        self.metrics.hellos.inc();
        self.changed.notify(usize::MAX);
        Ok(())
    }

    async fn write(
        &self,
        member: &Member,
        (now_ms, mut rows): (u64, Vec<Row>),
        retired: Vec<(lapwing_protocol::id::Lane, lapwing_server_core::delivery::RetiredLog)>,
    ) -> Result<(), StoreError> {
        if !retired.is_empty() {
            let (state, sensor) = (self.state.clone(), member.sensor);
            let old = move || watch::old_log_rows(&state, (now_ms, sensor), &retired);
            rows.extend(smol::unblock(old).await?);
        }
        self.state.submit(rows)?.durable().await
    }
}

impl Link<'_> {
    /// Before a Hello is taken: looks up old logs that it names and the heads have no room for, so
    /// that one that comes back late is no loss. Whatever the sensor says of it: an image of its
    /// disk may be older than the first acknowledgement, or than the first chunk.
    pub(super) async fn recall(&self, frame: &Frame<'_>) {
        let Ok(Some(Message::Hello(hello))) = Message::decode(frame) else { return };
        for head in &hello.logs {
            if self.member.receiver().knows(head.lane, head.log) {
                continue;
            }
            let state = self.shared.state.clone();
            let (sensor, lane, log) = (self.member.sensor, head.lane, head.log);
            match smol::unblock(move || watch::old_log(&state, (sensor, lane, log))).await {
                Ok(Some(_)) if cfg!(mutant = "old_log_forgotten") => {}
                Ok(Some(old)) => self.member.receiver().recall(lane, old),
                Ok(None) => {}
                Err(error) => log::error!("an old log of sensor {sensor}: {error}"),
            }
        }
    }

    /// Asks for a report, where one is wanted and none is under way.
    pub(super) fn ask_for_report(&mut self) {
        if self.reporting.is_none() && std::mem::take(&mut self.member.about().report_due) {
            self.reporting = Some((self.session.call(Method::REPORT, &[]), Vec::new()));
        }
    }

    /// Takes a part of a report. Only the ledger and the look at the clock rest on it: a bad one is
    /// no fault.
    pub(super) async fn handle_reply(
        &mut self,
        call: u32,
        (more, code): (bool, Code),
        body: &[u8],
    ) {
        let Some((_, held)) = self.reporting.as_mut().filter(|(asked, _)| *asked == call) else {
            return;
        };
        if held.len() + body.len() <= REPORT_BYTES_MAX {
            held.extend_from_slice(body);
        }
        if more {
            return;
        }
        let Some((_, body)) = self.reporting.take() else { return };
        let found = self.handle_report(code, &body);
        self.shared.reported.notify(usize::MAX);
        self.shared.findings.report(found).await;
    }

    fn handle_report(
        &self,
        code: Code,
        body: &[u8],
    ) -> Vec<lapwing_server_core::evidence::Evidence> {
        let mut about = self.member.about();
        about.reported_ms = Some(clock::monotonic_ms());
        let Ok(report) = from_bytes::<SensorReport<'_>>(body) else { return Vec::new() };
        if code != Code::OK {
            return Vec::new();
        }
        let now_ms = clock::unix_ms();
        about.handle_report(now_ms, &report);
        let skew = about.watch.handle_clock(now_ms, report.wall_ms);
        let of = (self.member.sensor, about.record.name.as_str());
        self.shared.findings.evidence(now_ms, of, skew.as_slice())
    }
}
