//! The other end of the example: it takes what comes next and says so.

use std::error::Error;

use lapwing_protocol::delivery::{Ack, Credit};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::{HelloAck, LogGrant, LogVerdict};
use lapwing_protocol::id::{DeploymentId, SensorId, ServerId};
use lapwing_protocol::message::Message;

/// A server of one sensor, without a store.
pub(crate) struct Server {
    ids: (DeploymentId, SensorId),
    next_seq: u64,
}

impl Server {
    pub(crate) fn new(ids: (DeploymentId, SensorId)) -> Self {
        Self { ids, next_seq: 1 }
    }

    /// Handles whole frames and gives back the answers.
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut memory = [0; 4_096];
        let mut deframer = Deframer::new(&mut memory);
        deframer.feed(bytes);
        let mut output = Vec::new();
        while let Some(frame) = deframer.next_frame()? {
            let Some(message) = Message::decode(&frame)? else { continue };
            let Some(answer) = self.answer(&message) else { continue };
            let mut buffer = [0; 512];
            let length = answer.encode(&mut buffer)?;
            output.extend(&buffer[..length]);
        }
        Ok(output)
    }

    fn answer(&mut self, message: &Message<'_>) -> Option<Message<'static>> {
        let credit = Credit { limit_seq: self.next_seq + 8, limit_bytes: self.next_seq * 4_096 };
        match message {
            Message::Hello(hello) => {
                println!("server: {} ({}) says hello", hello.name, hello.agent);
                let grants = hello.logs.iter().map(|head| LogGrant {
                    lane: head.lane,
                    log: head.log,
                    verdict: LogVerdict::New,
                    next_seq: self.next_seq,
                    next_index: 1,
                    chain: Chain::start(self.ids.0, self.ids.1, head.lane, head.log),
                    credit,
                });
                Some(Message::HelloAck(HelloAck {
                    version: 1,
                    capabilities: heapless::Vec::new(),
                    server: ServerId([8; 16]),
                    name: "loopback",
                    session_epoch: 1,
                    server_ms: 0,
                    receive_bytes_max: 4_096,
                    rows_max: 100,
                    logs: grants.collect(),
                }))
            }
            Message::Chunk(chunk) if chunk.header.seq == self.next_seq => {
                println!("server: chunk {}, {} bytes", chunk.header.seq, chunk.body.len());
                let (lane, stored_seq) = (chunk.header.flags.lane(), self.next_seq);
                self.next_seq += 1;
                Some(Message::Ack(Ack { lane, stored_seq, safe_seq: stored_seq, credit }))
            }
            other => {
                println!("server: {other:?}");
                None
            }
        }
    }
}
