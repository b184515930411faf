//! The work of people on MalOps: status and comments.
//!
//! Invariant: who did what is written; only this service says that a MalOp is reopened by new
//! activity, a person reopens what was done with.

use std::fmt;

use lapwing_protocol::id::MalOpId;
use lapwing_protocol::limits::NAME_BYTES_MAX;
use lapwing_protocol::malop::MalOpStatus;

use super::limits::{COMMENT_BYTES_MAX, COMMENTS_MAX, PART_BYTES_MAX};
use super::record::Comment;
use super::{Held, MalOps, key};
use crate::view::message_bytes;

/// Parts of a comment at the most: text, author and a few numbers.
pub(super) const COMMENT_PARTS: u16 = 2;
const _: () = assert!(COMMENT_BYTES_MAX + NAME_BYTES_MAX + 32 <= 2 * PART_BYTES_MAX);

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkRefused {
    /// There is no such MalOp.
    NotFound,
    /// The author is not one.
    BadAuthor,
    /// The comment is not one.
    BadComment,
    /// The MalOp has as many comments as it may.
    TooManyComments,
    /// It is open: there is nothing to reopen.
    NotClosed,
}

impl fmt::Display for WorkRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => {
                f.write_str("there is no such MalOp; `malops list` shows those there are")
            }
            Self::BadAuthor => write!(
                f,
                "the author must have 1 to {NAME_BYTES_MAX} bytes without control characters"
            ),
            Self::BadComment => write!(
                f,
                "a comment has 1 to {COMMENT_BYTES_MAX} bytes and no control characters but new \
                 lines and tabs"
            ),
            Self::TooManyComments => {
                write!(f, "the MalOp has {COMMENTS_MAX} comments, which is as many as it may")
            }
            Self::NotClosed => f.write_str("the MalOp is open already; give another status"),
        }
    }
}

impl std::error::Error for WorkRefused {}

impl MalOps {
    /// Moves a MalOp to a status; where it is there already, nothing changes.
    ///
    /// # Errors
    /// The change is refused; nothing has changed.
    pub fn handle_status(
        &mut self,
        now_ms: u64,
        (id, status): (MalOpId, MalOpStatus),
        author: &str,
    ) -> Result<(), WorkRefused> {
        check_author(author)?;
        let before = self.malop(id).ok_or(WorkRefused::NotFound)?.status;
        if before == status {
            return Ok(());
        }
        let is_done =
            matches!(before, MalOpStatus::Closed | MalOpStatus::Remediated | MalOpStatus::Excluded);
        if status == MalOpStatus::Reopened && !is_done {
            return Err(WorkRefused::NotClosed);
        }
        self.change(now_ms, id, |held| {
            held.group.status = status;
            author.clone_into(&mut held.group.status_author);
        });
        Ok(())
    }

    /// Adds a comment to a MalOp.
    ///
    /// # Errors
    /// The comment is refused; nothing has changed.
    pub fn handle_comment(
        &mut self,
        now_ms: u64,
        (id, text): (MalOpId, &str),
        author: &str,
    ) -> Result<(), WorkRefused> {
        check_author(author)?;
        let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
        let is_comment = !text.trim().is_empty() && text.len() <= COMMENT_BYTES_MAX;
        if !is_comment || text.chars().any(is_control) {
            return Err(WorkRefused::BadComment);
        }
        let number = self.malop(id).ok_or(WorkRefused::NotFound)?.comments;
        if number >= COMMENTS_MAX {
            return Err(WorkRefused::TooManyComments);
        }
        let (author, text) = (author.to_owned(), text.to_owned());
        let comment = message_bytes(&Comment { author, written_ms: now_ms, text });
        key::put_parts(&mut self.rows, &key::comment(id, number), (0, &comment));
        self.change(now_ms, id, |held| held.group.comments += 1);
        Ok(())
    }

    fn change(&mut self, now_ms: u64, id: MalOpId, change: impl FnOnce(&mut Held)) {
        if let Some(mut held) = self.groups.remove(&id) {
            self.unindex(&held.group);
            change(&mut held);
            self.put_back(now_ms, held);
        }
    }
}

fn check_author(author: &str) -> Result<(), WorkRefused> {
    let is_author =
        (1..=NAME_BYTES_MAX).contains(&author.len()) && !author.chars().any(char::is_control);
    if is_author { Ok(()) } else { Err(WorkRefused::BadAuthor) }
}
