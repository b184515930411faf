//! What of a log may be another branch's: of a disk that was put back to an image, or was copied,
//! the sensor makes other chunks under the same numbers (HEL-023, HEL-024, HEL-038).

use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{LogId, ServerId};

use super::Outbox;

impl Outbox<'_> {
    /// A start went on with `log`: from the fact `index` on it may be another branch.
    pub(crate) fn note_continued(&mut self, log: LogId, index: u64) {
        if let Some(tail) = self.tail.filter(|tail| tail.log == log) {
            let facts = tail.made.next_index.saturating_sub(index);
            self.tail_branch = u32::try_from(facts).unwrap_or(u32::MAX);
        } else if self.current.log == log {
            self.is_continued = true;
            self.started_index = self.started_index.min(index);
        }
    }

    /// How many facts of the tail are lost when it is given up: what nobody acknowledged. A server
    /// that holds more than it has all of it, but for what may be another branch.
    pub(crate) fn lost_with_tail(&self, cause: LogCause) -> u64 {
        let Some(tail) = &self.tail else { return 0 };
        let unacked = tail.made.next_index.saturating_sub(tail.acked.next_index);
        match cause {
            LogCause::RolledBack => unacked.min(u64::from(self.tail_branch)),
            _ => unacked,
        }
    }

    /// Everything before `cursor` of the log that is sent went out, to `server` where it takes it.
    pub(crate) fn note_sent(&mut self, server: Option<ServerId>, cursor: u64) {
        self.unsent_seq = cursor;
        if self.tail.is_none()
            && let Some(server) = server
        {
            if self.sent_to != short(server) {
                self.sent_to = short(server);
                self.never_sent_elsewhere = self.never_sent;
            }
            let left = (self.current.made.seq + 1).saturating_sub(cursor);
            self.never_sent = self.never_sent.min(u32::try_from(left).unwrap_or(u32::MAX));
        }
    }

    /// The last chunk of `current` that some server may have from here.
    pub(crate) fn sent_seq(&self) -> u64 {
        self.current.made.seq.saturating_sub(self.never_sent.into())
    }

    /// Earlier starts sent nothing of `log` behind `seq`.
    pub(crate) fn note_sent_before(&mut self, log: LogId, seq: u64) {
        if self.current.log == log {
            let left = self.current.made.seq.saturating_sub(seq);
            self.never_sent = u32::try_from(left).unwrap_or(u32::MAX);
            self.never_sent_elsewhere = self.never_sent;
        }
    }

    /// Whether `server` may have the chunk `seq` of the log that is sent from here.
    pub(crate) fn may_be_sent(&self, server: ServerId, seq: u64) -> bool {
        let is_last = self.sent_to == short(server);
        let never = if is_last { self.never_sent } else { self.never_sent_elsewhere };
        self.tail.is_some() || seq <= self.current.made.seq.saturating_sub(never.into())
    }

    /// From which fact on `server` may have another branch where the log that is sent has a hole,
    /// so that nothing is left to compare; none where it has what went there from here. What was
    /// acknowledged is in no doubt.
    pub(crate) fn doubtful_from(&self, server: ServerId) -> Option<u64> {
        let index = match &self.tail {
            Some(tail) => {
                let branch = u64::from(self.tail_branch);
                (branch > 0).then(|| tail.made.next_index.saturating_sub(branch))
            }
            // In this start it took what was sent in order, behind a chain that was compared.
            None => {
                let is_doubtful = self.is_continued && self.sent_to != short(server);
                is_doubtful.then_some(self.started_index)
            }
        };
        index.map(|index| index.max(self.sending().acked.next_index))
    }
}

fn short(server: ServerId) -> u32 {
    let [a, b, c, d, ..] = server.0;
    u32::from_le_bytes([a, b, c, d])
}
