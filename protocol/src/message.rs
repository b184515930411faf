//! The table of messages: every kind of frame, who sends it, and its body.
//!
//! | kind | message | plane | from |
//! | --- | --- | --- | --- |
//! | 1 | Hello | sensor | sensor |
//! | 2 | HelloAck | sensor | server |
//! | 3 | Chunk | sensor | sensor |
//! | 4 | Ack | sensor | server |
//! | 5 | Nack | sensor | server |
//! | 6 | Jump | sensor | sensor |
//! | 7 | Resync | sensor | server |
//! | 8 | ChainMark | sensor | sensor |
//! | 9 | Ping | all | both |
//! | 10 | Pong | all | both |
//! | 11 | Draining | sensor | server |
//! | 12 | Refused | all | server |
//! | 13 | Command | sensor | server |
//! | 14 | Call | all | both |
//! | 15 | Reply | all | both |
//! | 16 | Auth | sensor (one-way mode) | sensor |

use crate::call::{Call, Reply};
use crate::chunk::Chunk;
use crate::command::Command;
use crate::delivery::{Ack, ChainMark, Draining, Jump, Nack, Ping, Pong, Refused, Resync};
use crate::error::{BufferFull, DecodeError, from_bytes};
use crate::frame::{Frame, FrameKind, encode};
use crate::hello::{Auth, Hello, HelloAck};

macro_rules! messages {
    ($($name:ident $(<$life:lifetime>)? = $number:literal;)*) => {
        /// A message of a frame.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the message of its name")]
        #[expect(
            clippy::large_enum_variant,
            reason = "it lives on the stack between one frame and its handler"
        )]
        pub enum Message<'a> {
            $($name($name $(<$life>)?),)*
        }

        impl<'a> Message<'a> {
            /// Every kind of frame with its name.
            pub const KINDS: &'static [(FrameKind, &'static str)] =
                &[$((FrameKind($number), stringify!($name)),)*];

            /// The message's kind of frame.
            #[must_use]
            pub const fn kind(&self) -> FrameKind {
                match self {
                    $(Self::$name(_) => FrameKind($number),)*
                }
            }

            /// Reads the body of a frame; `None` when its kind is unknown and may be skipped.
            ///
            /// # Errors
            /// [`DecodeError::UnknownKind`] when the kind is unknown and may not be skipped, else
            /// what is wrong with the body.
            pub fn decode(frame: &Frame<'a>) -> Result<Option<Self>, DecodeError> {
                if frame.kind == CHUNK {
                    return Chunk::decode(frame.body).map(|chunk| Some(Self::Chunk(chunk)));
                }
                match frame.kind.0 {
                    $($number => from_bytes(frame.body).map(|body| Some(Self::$name(body))),)*
                    _ if frame.skippable && !cfg!(mutant = "skippable_kind_fatal") => Ok(None),
                    _ if cfg!(mutant = "unknown_kind_skipped") => Ok(None),
                    _ => Err(DecodeError::UnknownKind),
                }
            }

            /// Writes the message as a whole frame and returns its length.
            ///
            /// # Errors
            /// [`BufferFull`] when `buffer` or the frame bound is too small.
            pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferFull> {
                match self {
                    $(Self::$name(body) => encode(FrameKind($number), body, buffer),)*
                }
            }
        }
    };
}

messages! {
    Hello<'a> = 1;
    HelloAck<'a> = 2;
    Chunk<'a> = 3;
    Ack = 4;
    Nack = 5;
    Jump = 6;
    Resync = 7;
    ChainMark = 8;
    Ping = 9;
    Pong = 10;
    Draining = 11;
    Refused<'a> = 12;
    Command = 13;
    Call<'a> = 14;
    Reply<'a> = 15;
    Auth = 16;
}

/// The kind of frame a chunk travels in; its body is the chunk as spooled.
pub const CHUNK: FrameKind = FrameKind(3);
/// The kind of frame a call travels in.
pub const CALL: FrameKind = FrameKind(14);
/// The kind of frame a reply travels in.
pub const REPLY: FrameKind = FrameKind(15);
