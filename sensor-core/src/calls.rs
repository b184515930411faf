//! The one call or reply that waits for the shell.
//!
//! Its body is copied out of the receive buffer; until the shell has seen it no further frame is
//! looked at, so a peer can make nobody hold more than one.

use lapwing_protocol::call::{Call, Method, Reply};
use lapwing_protocol::code::Code;

use crate::event::Event;

#[derive(Clone, Copy, Debug)]
enum Head {
    Call { call: u32, method: Method },
    Reply { call: u32, more: bool, code: Code },
}

#[derive(Debug)]
pub(crate) struct CallSlot<'a> {
    buffer: &'a mut [u8],
    waiting: Option<(Head, usize)>,
    /// A call that was too large, to be answered so.
    refused: Option<u32>,
}

impl<'a> CallSlot<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, waiting: None, refused: None }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.waiting.is_none() && self.refused.is_none()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting = None;
        self.refused = None;
    }

    pub(crate) fn handle_call(&mut self, call: &Call<'_>) {
        let head = Head::Call { call: call.call, method: call.method };
        match self.copy(call.body) {
            Some(length) => self.waiting = Some((head, length)),
            None => self.refused = Some(call.call),
        }
    }

    pub(crate) fn handle_reply(&mut self, reply: &Reply<'_>) {
        let Reply { call, more, code, body } = *reply;
        self.waiting = Some(match self.copy(body) {
            Some(length) => (Head::Reply { call, more, code }, length),
            None => (Head::Reply { call, more, code: Code::TOO_LARGE }, 0),
        });
    }

    fn copy(&mut self, body: &[u8]) -> Option<usize> {
        self.buffer.get_mut(..body.len())?.copy_from_slice(body);
        Some(body.len())
    }

    /// The answer to a call that was too large.
    pub(crate) fn refusal(&self) -> Option<Reply<'static>> {
        let call = self.refused?;
        Some(Reply { call, more: false, code: Code::TOO_LARGE, body: &[] })
    }

    /// The refusal was sent.
    pub(crate) fn sent_refusal(&mut self) {
        self.refused = None;
    }

    /// Hands out what waits.
    pub(crate) fn poll(&mut self) -> Option<Event<'_>> {
        let (head, length) = self.waiting.take()?;
        let body = self.buffer.get(..length)?;
        Some(match head {
            Head::Call { call, method } => Event::Call { call, method, body },
            Head::Reply { call, more, code } => Event::Reply { call, more, code, body },
        })
    }
}
