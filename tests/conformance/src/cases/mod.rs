//! The cases: what each does, which requirements it looks at, and how it says what it saw.
//!
//! Not here: who runs them (`run.rs`) and what the requirements say (`requirements`).

pub mod sensor;
pub mod server;

use std::fmt;

/// When a case may run beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Beside any other.
    Together,
    /// Beside any other, and longer than ten seconds.
    Slow,
    /// Alone: it kills or fills the peer.
    Alone,
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, in the report and for `--only`.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub says: &'static str,
    /// The requirements that it looks at.
    pub requirements: &'static [&'static str],
    /// When it may run.
    pub phase: Phase,
    /// The case itself.
    pub run: Run,
}

/// How a case is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// Against a server.
    Server(fn(&mut server::context::Context<'_>) -> Checked),
    /// Against a sensor.
    Sensor(fn(&mut sensor::context::Context) -> Checked),
}

/// What a case comes to: `Ok`, or why it stops. What is only weak is told to the context.
pub type Checked = Result<(), Stop>;

/// Why a case stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The peer does not keep the requirement.
    Fail(String),
    /// It cannot be looked at here.
    Skip(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Fail(text)
    }
}

impl From<&str> for Stop {
    fn from(text: &str) -> Self {
        Self::Fail(text.into())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(text) | Self::Skip(text) => f.write_str(text),
        }
    }
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::cases::Stop::Fail(format!($($text)+)));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! equal {
    ($found:expr, $expected:expr, $($text:tt)+) => {{
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            let what = format!($($text)+);
            return Err($crate::cases::Stop::Fail(format!(
                "{what}: {found:?} came, {expected:?} was expected"
            )));
        }
    }};
}

pub(crate) use {ensure, equal};

/// The cases of a role: `server` or `sensor`.
#[must_use]
pub fn of_role(role: &str) -> Vec<Case> {
    match role {
        "server" => server::cases(),
        "sensor" => sensor::cases(),
        _ => Vec::new(),
    }
}
