//! What happens in a world, told on standard error while it happens: for whoever replays a seed.

use std::sync::atomic::{AtomicBool, Ordering};

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::message::{CHUNK, Message};

static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// Tells what happens from now on. Meant for one seed.
pub fn begin() {
    IS_TOLD.store(true, Ordering::Relaxed);
}

/// Tells one thing.
pub(super) fn tell(now_ns: u64, text: impl FnOnce() -> String) {
    if IS_TOLD.load(Ordering::Relaxed) {
        eprintln!("{:>13.6} s  {}", now_ns as f64 / 1e9, text());
    }
}

/// Tells the frames in `bytes`; what is not a whole frame is told as so many bytes.
pub(super) fn tell_frames(now_ns: u64, way: impl Fn() -> String, bytes: &[u8]) {
    if !IS_TOLD.load(Ordering::Relaxed) {
        return;
    }
    let mut buffer = vec![0; 16_640];
    let mut deframer = Deframer::new(&mut buffer);
    let mut fed = 0;
    loop {
        fed += deframer.feed(&bytes[fed..]);
        let Ok(Some(frame)) = deframer.next_frame() else { break };
        tell(now_ns, || match (Message::decode(&frame), Chunk::decode(frame.body)) {
            (Ok(Some(Message::Chunk(_))), Ok(chunk)) if frame.kind == CHUNK => {
                let header = chunk.header;
                let (lane, flags) = (header.flags.lane(), header.flags.0);
                let (seq, first, count) = (header.seq, header.first_index, header.count);
                format!("{}: {lane:?} chunk {seq}, flags {flags:x}, facts {first}+{count}", way())
            }
            (Ok(Some(message)), _) => format!("{}: {message:?}", way()),
            (other, _) => format!("{}: {other:?}", way()),
        });
    }
}
