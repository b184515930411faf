//! The tasks that ask the peers what changed.

use lapwing_net::runtime::Executor;
use lapwing_protocol::limits::FEED_PAGE_MAX;
use smol::Timer;

use crate::backend::{EventCursor, MalOpCursor, Peer};
use crate::limits::{LONG_POLL_MS, POLL_PAUSE, SENSORS_POLL, SENSORS_POLL_IDLE};
use crate::web::App;

/// Starts one task for each peer that tells of changes. They end with the executor.
pub(crate) fn start(app: &App, executor: &Executor) {
    executor.spawn(sensors(app.clone())).detach();
    if app.backend.has(Peer::MalOps) {
        executor.spawn(malops(app.clone())).detach();
    }
    for (number, _) in app.backend.detections() {
        executor.spawn(facts(app.clone(), number)).detach();
    }
}

async fn sensors(app: App) {
    loop {
        if let Ok(sensors) = app.backend.sensors().await {
            app.live.set_sensors(sensors);
        }
        let mut waited = SENSORS_POLL;
        Timer::after(SENSORS_POLL).await;
        while waited < SENSORS_POLL_IDLE && !app.live.is_heard() {
            Timer::after(SENSORS_POLL).await;
            waited += SENSORS_POLL;
        }
    }
}

async fn malops(app: App) {
    // From the end on: what is there already is shown by the page itself.
    let mut from = MalOpCursor { incarnation: None, cursor: u64::MAX };
    loop {
        match app.backend.malop_changes(from, FEED_PAGE_MAX, LONG_POLL_MS).await {
            Ok((changes, next)) => {
                if !changes.is_empty() {
                    app.live.malops_changed();
                }
                // A service that answers at once without news must not make us spin.
                if changes.is_empty() && next == from {
                    Timer::after(POLL_PAUSE / 4).await;
                }
                from = next;
            }
            Err(_) => {
                Timer::after(POLL_PAUSE).await;
            }
        }
    }
}

async fn facts(app: App, number: usize) {
    let mut from = EventCursor { incarnation: None, cursor: u64::MAX };
    loop {
        match app.backend.events(number, from, FEED_PAGE_MAX, LONG_POLL_MS).await {
            Ok(run) => {
                let is_idle = run.events.is_empty() && run.next == from;
                from = run.next;
                app.live.add_facts(run.events);
                if is_idle || run.at_end {
                    Timer::after(POLL_PAUSE / 4).await;
                }
            }
            Err(_) => {
                Timer::after(POLL_PAUSE).await;
            }
        }
    }
}
