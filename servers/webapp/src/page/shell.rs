//! The frame of every page: navigation, who is logged in, and the banner of what a sensor lacks.

use crate::accounts::SessionView;
use crate::view::{Sensor, Time};
use crate::web::App;

/// An entry of the navigation.
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) is_active: bool,
}

/// What a sensor lacks, and the one command that mends it.
pub(crate) struct Banner {
    pub(crate) machine: String,
    pub(crate) others: usize,
    pub(crate) lacks: Vec<String>,
    pub(crate) remedy: String,
    pub(crate) sensor: String,
}

/// The frame.
pub(crate) struct Shell {
    pub(crate) title: String,
    pub(crate) user: String,
    pub(crate) request_token: String,
    pub(crate) links: Vec<Link>,
    pub(crate) banner: Option<Banner>,
    pub(crate) version: &'static str,
    /// The page's moment, milliseconds since 1970.
    pub(crate) now_ms: u64,
}

const LINKS: [(&str, &str); 5] = [
    ("MalOps", "/malops"),
    ("Sensors", "/sensors"),
    ("Investigate", "/investigate"),
    ("Reputations", "/reputations"),
    ("System", "/system"),
];

impl Shell {
    /// The frame without navigation: login, password, errors.
    pub(crate) fn bare(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            user: String::new(),
            request_token: String::new(),
            links: Vec::new(),
            banner: None,
            version: env!("CARGO_PKG_VERSION"),
            now_ms: lapwing_net::clock::unix_ms(),
        }
    }

    /// The frame for a user, with `active` as the present place.
    pub(crate) fn new(app: &App, session: &SessionView, active: &str, title: &str) -> Self {
        let links = LINKS.into_iter();
        Self {
            user: session.user.clone(),
            request_token: session.request_token.clone(),
            links: links
                .map(|(name, path)| Link { name, path, is_active: path == active })
                .collect(),
            banner: banner(app),
            ..Self::bare(title)
        }
    }

    /// How long ago a moment was, as of this page.
    pub(crate) fn age(&self, time: &Time) -> String {
        time.age(self.now_ms)
    }
}

/// The parts that the command mends.
fn lacks(sensor: &Sensor) -> Vec<String> {
    let lacking = sensor.lacking().into_iter().filter(|health| !health.command().is_empty());
    lacking.map(|health| health.component.clone()).collect()
}

fn banner(app: &App) -> Option<Banner> {
    let sensors = app.live.sensors()?;
    let online = || sensors.iter().filter(|sensor| sensor.status == "Online");
    let mut lacking = online().filter(|sensor| !sensor.command().is_empty());
    let first = lacking.next()?;
    Some(Banner {
        machine: first.name.clone(),
        others: lacking.count(),
        lacks: lacks(first),
        remedy: first.command().to_owned(),
        sensor: first.id.clone(),
    })
}
