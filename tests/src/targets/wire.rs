//! Frames, messages and rows: whatever the bytes are, they are refused or mean one thing.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::console::{
    CommandPut, ElementQuery, ElementRows, ElementView, EventView, EvidenceView, OutcomeView,
    ProcessTreeRequest, SensorReport, SensorView,
};
use lapwing_protocol::element::MODEL;
use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::error::{DecodeError, from_bytes, to_slice};
use lapwing_protocol::feed::{FeedPage, FeedRequest, Page, PageRequest};
use lapwing_protocol::fleet::{BatchQuery, BatchResult, FleetAction, FleetBatch, FleetSensor};
use lapwing_protocol::frame::{Deframer, FLAG_SKIPPABLE, Frame, FrameKind};
use lapwing_protocol::hello::StoredRange;
use lapwing_protocol::intel::{
    ClassifyRequest, Indicator, ReputationChange, ReputationPut, ReputationRemove, ReputationView,
    Verdict,
};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{
    LedgerFault, LedgerPage, LedgerRequest, LedgerRow, LedgerSensor, LedgerVerified, LedgerVerify,
};
use lapwing_protocol::limits::{
    FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX, FRAME_HEADER_BYTES,
};
use lapwing_protocol::malop::{
    MalOpAddComment, MalOpDetail, MalOpFilter, MalOpSetStatus, MalOpShow, MalOpView,
};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::{Op, OpReader};
use lapwing_protocol::registration::{
    AssignRequest, Assignment, AssignmentView, Heartbeat, HeartbeatReply, ServerChange,
    ServerStatus, ServerView,
};
use lapwing_protocol::row::Fields;
use lapwing_protocol::tagging::{TagQuery, TagSet, TagView};
use lapwing_protocol::update::{Part, PartRequest, SignedManifest};

/// How many bytes at the front of `frame`'s input say how the rest is cut.
pub const CUT_BYTES: usize = 4;

/// What came out of a deframer.
#[derive(Debug, Eq, PartialEq)]
struct Deframed {
    frames: Vec<(FrameKind, bool, Vec<u8>)>,
    error: Option<DecodeError>,
}

/// The deframer over `data`: what it gives out does not depend on how the stream was cut, and is
/// what was sent, byte for byte.
///
/// The first [`CUT_BYTES`] bytes say how long the pieces are, the rest is the stream.
pub fn frame(data: &[u8]) {
    let Some((cuts, stream)) = data.split_first_chunk::<CUT_BYTES>() else { return };
    for frame_bytes_max in [FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX] {
        let whole = deframe(stream, &[usize::MAX], frame_bytes_max);
        let pieces = cuts.map(|cut| usize::from(cut) + 1);
        assert_eq!(whole, deframe(stream, &pieces, frame_bytes_max), "cut into {pieces:?}");
        assert_eq!(whole, deframe(stream, &[1], frame_bytes_max), "cut into single bytes");
        hold_as_sent(stream, &whole.frames);
    }
}

fn deframe(stream: &[u8], pieces: &[usize], frame_bytes_max: usize) -> Deframed {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut deframer = Deframer::new(&mut buffer);
    deframer.limit_frames(frame_bytes_max);
    let mut found = Deframed { frames: Vec::new(), error: None };
    let mut rest = stream;
    for piece in pieces.iter().cycle() {
        let (mut now, later) = rest.split_at((*piece).min(rest.len()));
        rest = later;
        while !now.is_empty() {
            let taken = deframer.feed(now);
            assert!(taken > 0, "the deframer waits for more but has no space for it");
            now = &now[taken..];
            found.error = drain(&mut deframer, &mut found.frames).err();
            if found.error.is_some() {
                return found;
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    found
}

fn drain(
    deframer: &mut Deframer<'_>,
    frames: &mut Vec<(FrameKind, bool, Vec<u8>)>,
) -> Result<(), DecodeError> {
    while let Some(frame) = deframer.next_frame()? {
        frames.push((frame.kind, frame.skippable, frame.body.to_vec()));
    }
    Ok(())
}

/// The frames that came out are those that went in, in order and complete.
fn hold_as_sent(stream: &[u8], frames: &[(FrameKind, bool, Vec<u8>)]) {
    let mut rest = stream;
    for (kind, skippable, body) in frames {
        let (head, behind) = rest.split_at(FRAME_HEADER_BYTES);
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let number = u16::from_le_bytes([head[2], head[3]]);
        assert_eq!(length, body.len());
        assert_eq!(number & 0x0fff, kind.0);
        assert_eq!(number & FLAG_SKIPPABLE != 0, *skippable);
        assert_eq!(&behind[..length], body);
        rest = &behind[length..];
    }
}

/// Reads a value and holds the laws of every message: it is written back as the bytes it came from,
/// or as fewer (an integer was not in its shortest form), and these read as the same value.
macro_rules! hold_as {
    ($type:ty, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        if let Ok(value) = from_bytes::<$type>(bytes) {
            let mut buffer = vec![0; bytes.len()];
            let written = to_slice(&value, &mut buffer).expect("no longer than what was read");
            let is_same = written == bytes || written.len() < bytes.len();
            assert!(is_same, "{} is written as other bytes: {value:?}", stringify!($type));
            assert_eq!(Ok(&value), from_bytes::<$type>(written).as_ref());
        }
    }};
}

/// Walks a list to its end: it is finite, whatever its bytes are.
macro_rules! walk_as {
    ($type:ty, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        let count = Items::<$type>::from_bytes(bytes).iter().count();
        assert!(count <= bytes.len(), "a list has more items than bytes");
    }};
}

/// Makes `body`, which reads its bytes as one type of the table, chosen by number.
macro_rules! bodies {
    ($($type:ty),* ; $($item:ty),*) => {
        /// How many types [`message`] can choose from, beside the kinds of frame.
        pub const BODIES: usize = [$(stringify!($type)),*].len() + [$(stringify!($item)),*].len();

        fn body(number: usize, bytes: &[u8]) {
            let mut at = 0;
            $(
                if at == number { hold_as!($type, bytes) }
                at += 1;
            )*
            $(
                if at == number { walk_as!($item, bytes) }
                at += 1;
            )*
            debug_assert_eq!(at, BODIES);
        }
    };
}

bodies! {
    EnrolRequest<'_>, Enrolled<'_>, AssignRequest, Assignment<'_>, Heartbeat<'_>, HeartbeatReply,
    ServerChange<'_>, ServerStatus<'_>, SensorReport<'_>, ElementQuery<'_>, ElementRows<'_>,
    ProcessTreeRequest, CommandPut, FeedRequest, PageRequest, FeedPage<'_, EvidenceView<'_>>,
    Page<'_, ReputationView<'_>>, ClassifyRequest<'_>, ReputationPut<'_>, ReputationRemove<'_>,
    MalOpFilter, MalOpShow, MalOpDetail<'_>, MalOpSetStatus<'_>, MalOpAddComment<'_>, TagSet<'_>,
    TagQuery, FleetAction<'_>, FleetBatch, BatchQuery, SignedManifest<'_>, PartRequest<'_>,
    Part<'_>;
    SensorView<'_>, ServerView<'_>, AssignmentView<'_>, ElementView<'_>, EvidenceView<'_>,
    EventView<'_>, OutcomeView<'_>, LedgerRow<'_>, Verdict<'_>, Indicator<'_>, ReputationView<'_>,
    ReputationChange<'_>, MalOpView<'_>, TagView<'_>, FleetSensor<'_>, BatchResult<'_>, StoredRange,
    LedgerSensor<'_>, LedgerFault<'_>, LedgerRequest, LedgerPage<'_>, LedgerVerify,
    LedgerVerified<'_>
}

/// Any bytes as any message: a frame's, a call's body, a list or a row.
///
/// The first byte chooses which; the rest are the message's bytes.
pub fn message(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let choice = usize::from(*choice);
    match Message::KINDS.get(choice) {
        Some((kind, _)) => framed(*kind, bytes),
        None if choice < Message::KINDS.len() + BODIES => {
            body(choice - Message::KINDS.len(), bytes)
        }
        None => row(choice, bytes),
    }
}

fn framed(kind: FrameKind, body: &[u8]) {
    let Ok(Some(message)) = Message::decode(&Frame { kind, skippable: false, body }) else {
        return;
    };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let Ok(length) = message.encode(&mut buffer) else {
        assert!(
            body.len() + FRAME_HEADER_BYTES > FRAME_BYTES_MAX,
            "{message:?} fits a frame and is refused"
        );
        return;
    };
    let written = &buffer[FRAME_HEADER_BYTES..length];
    let is_same = written == body || written.len() < body.len();
    assert!(is_same, "{message:?} is written as other bytes");
    let again = Message::decode(&Frame { kind, skippable: false, body: written });
    assert_eq!(again.as_ref(), Ok(&Some(message.clone())));
    if let Message::Chunk(chunk) = message {
        ops(&chunk);
    }
}

/// Reads a chunk's ops as far as they can be read without the tables of a log.
fn ops(chunk: &Chunk<'_>) {
    let mut reader = OpReader::new(chunk.body, chunk.header.time_base_ns);
    while let Ok(Some(op)) = reader.op() {
        let (Op::Row { kind, .. } | Op::Event { kind, .. }) = op else { continue };
        let Some(spec) = MODEL.iter().find(|spec| spec.kind == kind) else { return };
        while let Ok(Some(_)) = reader.field(spec) {}
    }
}

fn row(choice: usize, bytes: &[u8]) {
    let spec = &MODEL[choice % MODEL.len()];
    let Ok(fields) = Fields::new(bytes, spec) else { return };
    let count = fields.count();
    assert!(count <= spec.features.len() + 4, "a row has more fields than its kind has features");
}
