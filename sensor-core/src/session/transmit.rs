//! What goes out, in order: answers to pings, a Hello, the urgent lane, the bulk lane, a ping.
//!
//! A frame is written whole or not at all; when the buffer is too small for it nothing of the
//! session has changed.

use lapwing_protocol::buggify;
use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::{Ping, Pong};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::frame::encode_body;
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::PING_MS;
use lapwing_protocol::message::{CHUNK, Message};

use super::greeting::Standing;
use super::{Session, Stage};
use crate::lane::{Next, jump};
use crate::position::Position;
use crate::time::Now;

impl Session<'_> {
    /// Writes the next frame into `buffer` and returns its length; 0 when there is none.
    pub(crate) fn transmit(
        &mut self,
        now: Now,
        standing: &Standing<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, BufferFull> {
        let Some(connection) = self.connection_mut() else { return Ok(0) };
        if let Some(nonce) = connection.pong {
            let length = Message::Pong(Pong { nonce }).encode(buffer)?;
            connection.pong = None;
            return Ok(length);
        }
        if self.is_hello_ready() {
            return self.write_hello(now, standing, buffer);
        }
        if self.connection().is_some_and(|open| open.stage == Stage::Live) {
            for lane in self.lanes() {
                if lane == Lane::Urgent && buggify!("sensor.delay_urgent") {
                    continue;
                }
                let length = self.transmit_lane(now, lane, buffer)?;
                if length > 0 {
                    return Ok(length);
                }
            }
        }
        self.transmit_ping(now, buffer)
    }

    fn transmit_lane(
        &mut self,
        now: Now,
        lane: Lane,
        buffer: &mut [u8],
    ) -> Result<usize, BufferFull> {
        let index = lane.index();
        let length = match self.links[index].next(now, &self.outboxes[index]) {
            Next::Nothing => 0,
            Next::Mark(mark) => {
                let length = Message::ChainMark(mark).encode(buffer)?;
                self.links[index].sent_mark();
                length
            }
            Next::Jump(hole) => {
                let length = Message::Jump(jump(lane, &hole)).encode(buffer)?;
                self.links[index].sent_jump(now, &hole);
                length
            }
            Next::Chunk(seq) => self.transmit_chunk(now, lane, seq, buffer)?,
        };
        let link = &self.links[index];
        let server = self.server().filter(|_| link.is_granted());
        self.outboxes[index].note_sent(server, link.cursor());
        Ok(length)
    }

    fn transmit_chunk(
        &mut self,
        now: Now,
        lane: Lane,
        seq: u64,
        buffer: &mut [u8],
    ) -> Result<usize, BufferFull> {
        let index = lane.index();
        let Self { outboxes, links, fetch, .. } = self;
        let (outbox, link) = (&mut outboxes[index], &mut links[index]);
        let (log, has_spool) = (outbox.sending().log, outbox.has_spool());
        let key = (lane, log, seq);
        let (bytes, chain) = match outbox.find(seq) {
            Some(held) => (held.bytes, Some(held.chain)),
            None if has_spool => match fetch.get(key) {
                Some(bytes) => (bytes, None),
                None => return Ok(0),
            },
            None => return Ok(0),
        };
        if !link.permits(bytes.len()) {
            return Ok(0);
        }
        let length = encode_body(CHUNK, bytes, buffer)?;
        let next_index = Chunk::decode(bytes).map_or(0, |chunk| chunk.next_index());
        let chain = chain.unwrap_or_else(|| link.tip_chain().next(bytes));
        link.sent_chunk(now, lane, Position { seq, next_index, chain }, bytes.len());
        fetch.release(key);
        Ok(length)
    }

    fn transmit_ping(&mut self, now: Now, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let is_live = self.is_live();
        let Some(connection) = self.connection_mut().filter(|_| is_live) else { return Ok(0) };
        let quiet_since_ns = connection.heard_ns.max(connection.pinged_ns);
        if !now.is_past(quiet_since_ns, PING_MS) {
            return Ok(0);
        }
        let length = Message::Ping(Ping { nonce: now.monotonic_ns }).encode(buffer)?;
        connection.pinged_ns = now.monotonic_ns;
        Ok(length)
    }
}
