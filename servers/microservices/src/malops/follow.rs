//! Following the evidence of one Detection server.
//!
//! Invariant: an evidence is behind the cursor only when it is stored, noted, or counted as
//! unreadable; of a page that cannot be read, all but the items at fault are still taken.

use std::sync::Arc;
use std::time::Instant;

use lapwing_net::clock;
use lapwing_net::peer::{PeerClient, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::console::EvidenceView;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::ServerStatus;
use lapwing_server_core::evidence::Evidence;
use smol::Timer;

use super::limits::{
    CALL_TIME, EMPTY_PAUSE, PAGE_EVIDENCES, PAUSE, STAND_BACK, WAIT_MS, WAIT_TIME,
};
use super::state::{CursorRecord, EvidencePage, State};

/// One address of a Detection server.
pub(crate) struct Follower {
    pub(crate) state: Arc<State>,
    pub(crate) client: PeerClient,
    /// The server's name where it was found, and the address.
    pub(crate) name: String,
}

/// A server that said who it is.
struct Met {
    server: ServerId,
    name: String,
}

/// How many evidences to ask for next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// A page.
    Page,
    /// One: an item of the page cannot be read, and it is to be found.
    One,
}

impl Follower {
    /// Follows the server. Never ends.
    pub(crate) async fn run(self) {
        loop {
            let failed = match self.meet().await {
                Ok(met) => match self.state.claim(met.server, &met.name) {
                    Some(_claim) => self.read(&met).await,
                    None => {
                        // It is read at another of its addresses; should that end, this one takes
                        // over.
                        self.state.set_trouble(&self.name, None);
                        Timer::after(STAND_BACK).await;
                        continue;
                    }
                },
                Err(failed) => failed,
            };
            let trouble = format!("{failed}; its new evidence waits there");
            self.state.set_trouble(&self.name, Some(trouble));
            Timer::after(PAUSE).await;
        }
    }

    /// Asks the server who it is.
    async fn meet(&self) -> Result<Met, String> {
        let reply = self.client.call(Method::STATUS, &[], CALL_TIME).await;
        let body = reply.map_err(|error| error.to_string())?;
        let status: ServerStatus<'_> = from_body(&body).map_err(|failure| failure.to_string())?;
        Ok(Met { server: status.server, name: status.name.to_owned() })
    }

    /// Reads the feed. Ends with what failed.
    async fn read(&self, met: &Met) -> String {
        let mut asking = Asking::Page;
        loop {
            asking = match self.read_once(met, asking).await {
                Ok(asking) => asking,
                Err(failed) => return failed,
            };
            self.state.set_trouble(&self.name, None);
            self.state.counts.set_up(&met.name, true);
        }
    }

    async fn read_once(&self, met: &Met, asking: Asking) -> Result<Asking, String> {
        let cursor = self.state.cursor(met.server);
        let limit = if asking == Asking::One { 1 } else { PAGE_EVIDENCES };
        let CursorRecord { incarnation, cursor: from } = cursor;
        let request = FeedRequest { incarnation, cursor: from, limit, wait_ms: WAIT_MS };
        let request = to_body(&request).map_err(|failure| failure.to_string())?;
        let asked = Instant::now();
        let reply = self.client.call(Method::EVIDENCE, &request, WAIT_TIME).await;
        let body = reply.map_err(|error| error.to_string())?;
        let page: FeedPage<'_, EvidenceView<'_>> =
            from_body(&body).map_err(|failure| failure.to_string())?;
        let next = CursorRecord { incarnation: Some(page.incarnation), cursor: page.next_cursor };
        if incarnation.is_some_and(|before| before != page.incarnation) {
            log::info!("{}: its feed begins a new life; reading it from the beginning", self.name);
        }
        let evidences: Result<Vec<Evidence>, _> =
            page.items.iter().map(|view| Evidence::from_view(&view?)).collect();
        let evidences = match evidences {
            Ok(evidences) => evidences,
            Err(_) if asking == Asking::Page => return Ok(Asking::One),
            Err(error) => {
                log::error!(
                    "{}: the evidence before {} cannot be read ({error}) and is skipped; run the \
                     same version on both servers",
                    self.name,
                    page.next_cursor
                );
                self.state.counts.unreadable();
                Vec::new()
            }
        };
        let last_raised_ms = evidences.last().map(|evidence| evidence.raised_ms);
        if evidences.is_empty() && next == cursor {
            self.state.counts.set_lag_ms(&met.name, 0);
            if asked.elapsed() < EMPTY_PAUSE {
                Timer::after(EMPTY_PAUSE).await;
            }
            return Ok(Asking::Page);
        }
        let page = EvidencePage { server: met.server, evidences, next };
        self.state.take(page).await.map_err(|error| error.to_string())?;
        if let Some(raised_ms) = last_raised_ms {
            self.state.counts.set_lag_ms(&met.name, clock::unix_ms().saturating_sub(raised_ms));
        }
        Ok(asking)
    }
}
