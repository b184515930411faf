//! Bringing commands to Detection servers, side by side for different sensors.

use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::peer::{CallError, to_body};
use lapwing_net::runtime::Executor;
use lapwing_protocol::call::Method;
use lapwing_server_core::fleet::{Put, PutAnswer};
use smol::Timer;
use smol::lock::Semaphore;

use super::state::State;

/// Puts under way at once, over all servers: half of what one connection takes.
const PUTS_MAX: usize = 32;
/// How long a put may take.
const PUT_TIME: Duration = Duration::from_secs(5);
/// How often times are looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;

/// Puts what is due, and ends what is over. Never ends.
pub(crate) async fn run(executor: Executor, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(PUTS_MAX));
    let mut looked_ms = None;
    loop {
        let now_ms = clock::monotonic_ms();
        if looked_ms.is_none_or(|at_ms| now_ms >= at_ms + LOOK_EVERY_MS) {
            looked_ms = Some(now_ms);
            expire(&state).await;
            count(&state);
        }
        loop {
            let place = places.acquire_arc().await;
            let (now_ms, unix_ms) = (clock::monotonic_ms(), clock::unix_ms());
            let Some(put) = state.touch(|fleet| fleet.poll_put(now_ms, unix_ms)) else { break };
            let state = Arc::clone(&state);
            let task = async move {
                put_one(&state, put).await;
                drop(place);
                state.wake();
            };
            executor.spawn(task).detach();
        }
        smol::future::or(state.woken(), async {
            Timer::after(Duration::from_millis(LOOK_EVERY_MS)).await;
        })
        .await;
    }
}

async fn expire(state: &State) {
    let unix_ms = clock::unix_ms();
    let changed = state.change_many(|fleet| ((), fleet.handle_time(unix_ms))).await;
    if let Err(error) = changed {
        log::error!("expired actions cannot be stored: {error}");
    }
}

fn count(state: &State) {
    let (now_ms, unix_ms) = (clock::monotonic_ms(), clock::unix_ms());
    state.look(|fleet| {
        let statuses = fleet.views(now_ms, unix_ms).map(|view| view.status);
        state.counts.set(fleet.open_actions(), statuses);
    });
}

async fn put_one(state: &State, put: Put) {
    let answer = ask(state, &put).await;
    state.counts.put(match &answer {
        PutAnswer::Queued => "queued",
        PutAnswer::Refused { .. } => "refused",
        PutAnswer::Failed { .. } => "failed",
    });
    let (now_ms, unix_ms) = (clock::monotonic_ms(), clock::unix_ms());
    let changed = state.change(|fleet| {
        let row = fleet.handle_put(now_ms, unix_ms, &put, &answer);
        ((), row.into_iter().collect())
    });
    let durable = match changed {
        Ok(((), committing)) => committing.durable().await,
        Err(error) => Err(error),
    };
    if let Err(error) = durable {
        // The command keeps its number and is put again after a restart; the server tells repeats.
        log::error!("that a command is queued cannot be stored: {error}");
    }
}

async fn ask(state: &State, put: &Put) -> PutAnswer {
    let Some(client) = state.link(put.server) else {
        let text = String::from("the sensor's Detection server does not answer");
        return PutAnswer::Failed { text };
    };
    let body = match to_body(&put.command) {
        Ok(body) => body,
        Err(failure) => return PutAnswer::Failed { text: failure.text },
    };
    match client.call(Method::COMMAND, &body, PUT_TIME).await {
        Ok(_) => PutAnswer::Queued,
        Err(CallError::Remote(failure)) => {
            PutAnswer::Refused { code: failure.code, text: failure.text }
        }
        Err(error) => PutAnswer::Failed { text: error.to_string() },
    }
}
