//! The server's end of delivery: what a sensor sends is taken exactly once, and acknowledged only
//! when it is durable.
//!
//! [`Receiver`] holds where a sensor's two lanes stand and outlives connections; [`Session`] is one
//! connection of that sensor. The shell feeds bytes to the session, writes the [`Entry`]s it gives
//! out to the journal, in order, and tells the receiver when they are durable. Only then does
//! [`Receiver::poll_message`] give an Ack.
//!
//! What the bulk lanes of all sensors share of the way to the disk is dealt by [`FairShare`].
//!
//! Not here: decoding ([`crate::decode`]), storing, TLS. Nothing here panics on what a peer sends.
//!
//! Invariants, per lane:
//! * `stored_seq < next_seq`; everything below `next_seq` was given out as an entry, once;
//! * an Ack's `stored_seq` never exceeds what [`Receiver::handle_stored`] was told;
//! * credit never shrinks within a session;
//! * a session whose epoch is not the receiver's newest changes nothing.

mod again;
mod fair_share;
mod head;
mod lane;
pub mod limits;
mod pace;
mod receiver;
mod session;

pub use fair_share::{FairShare, Raise};
pub use head::{HeadRecord, RetiredLog};
pub use receiver::{Entry, EntryKind, Offer, PeerFault, Receiver, Standing};
pub use session::{GreetedLog, Greeting, Offerings, Patience, Rest, Session, SessionEvent};
