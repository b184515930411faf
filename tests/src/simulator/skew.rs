//! Peers of another version: what a newer sensor would say, made from what ours says.

use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::{Capability, Hello, PROTOCOL_VERSION};
use lapwing_protocol::message::Message;

/// How a connection's sensor differs from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    /// It speaks newer versions too, and lists capabilities that no server knows.
    Newer,
    /// It speaks newer versions alone.
    TooNew,
}

/// A kind of frame that nobody knows.
const UNKNOWN_KIND: u16 = 0x0ee;
/// The flag that lets a receiver go on.
const MAY_SKIP: u16 = 0x8000;

/// A frame of an unknown kind.
pub(crate) fn unknown_frame(may_skip: bool) -> Vec<u8> {
    let kind = if may_skip { UNKNOWN_KIND | MAY_SKIP } else { UNKNOWN_KIND };
    let body = b"of another time";
    let mut frame = (body.len() as u16).to_le_bytes().to_vec();
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// The frames as a sensor of the other version would send them.
pub(crate) fn rewrite(skew: Option<Skew>, bytes: Vec<u8>) -> Vec<u8> {
    let Some(skew) = skew else { return bytes };
    let mut buffer = vec![0; 16_640];
    let mut deframer = Deframer::new(&mut buffer);
    let (mut fed, mut rewritten) = (0, Vec::new());
    loop {
        fed += deframer.feed(&bytes[fed..]);
        let Ok(Some(frame)) = deframer.next_frame() else { return rewritten };
        let Ok(Some(Message::Hello(hello))) = Message::decode(&frame) else {
            rewritten.extend_from_slice(&(frame.body.len() as u16).to_le_bytes());
            rewritten.extend_from_slice(&frame.kind.0.to_le_bytes());
            rewritten.extend_from_slice(frame.body);
            continue;
        };
        let version_min = match skew {
            Skew::Newer => hello.version_min,
            Skew::TooNew => PROTOCOL_VERSION + 1,
        };
        let mut capabilities = hello.capabilities.clone();
        let _ = capabilities.push(Capability(77));
        let version_max = PROTOCOL_VERSION + 2;
        let hello = Hello { version_min, version_max, capabilities, ..hello };
        let mut frame = vec![0; 4_096];
        let length = Message::Hello(hello).encode(&mut frame).unwrap_or_default();
        rewritten.extend_from_slice(&frame[..length]);
    }
}
