//! Following one Detection server: who its sensors are, and what became of their commands.

use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::peer::{PeerClient, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::console::{OutcomeView, SensorView};
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::ServerId;
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::FEED_PAGE_MAX;
use lapwing_protocol::registration::ServerStatus;
use lapwing_server_core::fleet::record::CursorRecord;
use smol::Timer;

use super::state::State;

/// How long an answer may take.
const CALL_TIME: Duration = Duration::from_secs(5);
/// How long the server holds a question for outcomes of which it has none.
const WAIT_MS: u32 = 10_000;
/// How long such an answer may take.
const WAIT_TIME: Duration = Duration::from_secs(20);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// One Detection server.
pub(crate) struct Follower {
    pub(crate) state: Arc<State>,
    pub(crate) client: PeerClient,
    /// Its name where it was found.
    pub(crate) name: String,
    pub(crate) poll_every: Duration,
}

impl Follower {
    /// Follows the server. Never ends.
    pub(crate) async fn run(self) {
        loop {
            let failed = match self.meet().await {
                Ok(server) => {
                    self.state.set_link(server, &self.client);
                    // Whichever fails first: then the server is met again, for it may be another.
                    smol::future::or(self.poll(server), self.listen(server)).await
                }
                Err(failed) => failed,
            };
            self.state.set_trouble(&self.name, Some(failed));
            Timer::after(PAUSE).await;
        }
    }

    /// Asks the server who it is.
    async fn meet(&self) -> Result<ServerId, String> {
        let body = self.call(Method::STATUS, &[], CALL_TIME).await?;
        let status: ServerStatus<'_> = from_body(&body).map_err(|failure| failure.to_string())?;
        self.state.touch(|fleet| fleet.name_server(status.server, status.name));
        Ok(status.server)
    }

    /// Asks for the sensors again and again. Ends with what failed.
    async fn poll(&self, server: ServerId) -> String {
        loop {
            if let Err(failed) = self.poll_once(server).await {
                return failed;
            }
            self.state.set_trouble(&self.name, None);
            Timer::after(self.poll_every).await;
        }
    }

    async fn poll_once(&self, server: ServerId) -> Result<(), String> {
        let body = self.call(Method::SENSORS, &[], CALL_TIME).await?;
        let views = Items::<SensorView<'_>>::from_bytes(&body);
        let views: Vec<SensorView<'_>> = views
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| format!("its list of sensors is malformed: {error}"))?;
        let now_ms = clock::monotonic_ms();
        let changed = self.state.change_many(|fleet| {
            let (rows, without_room) =
                fleet.handle_sensors(now_ms, server, &self.name, views.into_iter());
            (without_room, rows)
        });
        let without_room = changed.await.map_err(|error| error.to_string())?;
        self.state.counts.set_without_room(without_room);
        if without_room > 0 {
            log::warn!("{}: {without_room} sensors are beyond the bound and not shown", self.name);
        }
        self.state.wake();
        Ok(())
    }

    /// Reads the feed of outcomes. Ends with what failed.
    async fn listen(&self, server: ServerId) -> String {
        loop {
            if let Err(failed) = self.listen_once(server).await {
                return failed;
            }
        }
    }

    async fn listen_once(&self, server: ServerId) -> Result<(), String> {
        let cursor = self.state.look(|fleet| fleet.cursor(server));
        let request = FeedRequest {
            incarnation: cursor.incarnation,
            cursor: cursor.cursor,
            limit: FEED_PAGE_MAX,
            wait_ms: WAIT_MS,
        };
        let request = to_body(&request).map_err(|failure| failure.to_string())?;
        let body = self.call(Method::OUTCOMES, &request, WAIT_TIME).await?;
        let page: FeedPage<'_, OutcomeView<'_>> =
            from_body(&body).map_err(|failure| failure.to_string())?;
        let outcomes: Vec<OutcomeView<'_>> = page
            .items
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| format!("its feed of outcomes is malformed: {error}"))?;
        let is_empty = outcomes.is_empty() && page.next_cursor == cursor.cursor;
        let next = CursorRecord { incarnation: Some(page.incarnation), cursor: page.next_cursor };
        let changed = self.state.change(|fleet| {
            let judged = fleet.handle_outcomes(server, next, outcomes.into_iter());
            // Under the fleet's lock: whoever sees an action closed sees it counted.
            self.state.counts.judged(judged.closed, judged.ignored);
            ((), judged.rows)
        });
        let ((), committing) = changed.map_err(|error| error.to_string())?;
        committing.durable().await.map_err(|error| error.to_string())?;
        if is_empty && page.at_end && next.incarnation == cursor.incarnation {
            // A server that does not hold the question must not be asked without a pause.
            Timer::after(Duration::from_millis(50)).await;
        }
        self.state.wake();
        Ok(())
    }

    async fn call(&self, method: Method, body: &[u8], time: Duration) -> Result<Vec<u8>, String> {
        self.client.call(method, body, time).await.map_err(|error| error.to_string())
    }
}
