//! Feeds and pages: how one server reads what another has, in order, losing and doubling nothing.
//!
//! A feed is append-only and read by cursor. Its incarnation changes when its store is made or
//! restored; a reader that sees a new one starts again from 0 and tells repeats by the items' ids.

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;
use crate::items::Items;

/// Read a feed from a cursor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRequest {
    /// The incarnation the cursor is of; `None` at first.
    pub incarnation: Option<Incarnation>,
    /// Where to go on; 0 is the beginning.
    pub cursor: u64,
    /// Items at the most; the server may give fewer.
    pub limit: u32,
    /// How long to wait for the first item, in milliseconds.
    pub wait_ms: u32,
}

/// A run of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage<'a, T> {
    /// The feed's incarnation; when it is not the one asked for, the run starts at 0.
    pub incarnation: Incarnation,
    /// The cursor behind this run.
    pub next_cursor: u64,
    /// Whether the run reaches the feed's present end.
    pub at_end: bool,
    /// The items.
    #[serde(borrow)]
    pub items: Items<'a, T>,
}

/// Read a list in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// Items to skip.
    pub offset: u32,
    /// Items at the most.
    pub limit: u32,
}

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<'a, T> {
    /// Items in the whole list.
    pub total: u32,
    /// The items of this page.
    #[serde(borrow)]
    pub items: Items<'a, T>,
}
