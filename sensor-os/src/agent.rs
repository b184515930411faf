//! The sensor as a library: another program configures one, runs it, and sends facts of its own.
//!
//! ```no_run
//! use lapwing_sensor_os::{Agent, Config, OwnFact, OwnKind};
//! use lapwing_protocol::element::Type;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load("sensor.toml".as_ref())?;
//! let agent = Agent::builder(config)
//!     .define(OwnKind::event(0x8001, "door").feature(3, "name", Type::Text))
//!     .build()?;
//! let handle = agent.handle();
//! let runs = std::thread::spawn(move || smol::block_on(agent.run()));
//! handle.send(OwnFact::event(0x8001).text(3, "front"))?.wait()?;
//! handle.stop();
//! # let _ = runs.join();
//! # Ok(())
//! # }
//! ```
//!
//! Not here: how it runs (`runner`). Invariant: nothing starts before [`Agent::run`], and
//! what it started is stopped when that ends: collectors, files and one connection, no thread of
//! its own beside the collectors'.

use std::fmt;

use lapwing_protocol::op::DropReason;
use smol::channel::{Receiver, Sender, bounded};

use crate::config::{Collect, Config};
use crate::identity::{StateError, StateFolder};
use crate::own::{OwnFact, OwnKind};
use crate::runner;
use crate::runner::limits::OWN_FACTS_WAITING_MAX;
use crate::spool::SpoolError;

/// How a sensor's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It was commanded to start again: run it again.
    Restart,
}

/// Why a sensor does not run.
#[derive(Debug)]
pub enum AgentError {
    /// The state folder cannot be used.
    State(StateError),
    /// The spool cannot be used.
    Spool(SpoolError),
    /// There is no identity, and no token to get one.
    NotEnrolled,
    /// A file that the configuration names cannot be used.
    File {
        /// Which key names it.
        key: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A kind of the agent's own is not well formed.
    Kind {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The machine gives no randomness, or not enough memory.
    Machine(String),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(error) => error.fmt(f),
            Self::Spool(error) => error.fmt(f),
            Self::NotEnrolled => f.write_str(
                "this sensor has not enrolled; run `lapwing-sensor enrol`, or name a token in \
                 `enrolment.token_file`",
            ),
            Self::File { key, problem } => write!(f, "`{key}`: {problem}"),
            Self::Kind { name, problem } => write!(f, "the kind `{name}`: {problem}"),
            Self::Machine(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for AgentError {}

impl From<StateError> for AgentError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<SpoolError> for AgentError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

/// What became of a fact of the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A Detection server has it on its disk.
    Stored,
    /// It said nothing new.
    Unchanged,
    /// It was dropped by rule, and the server is told so.
    Dropped(DropReason),
    /// Its log was given up before a server had it, or the sensor ended.
    Lost,
}

/// The sensor ended, or its fact did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The sensor does not run any more.
    Ended,
    /// What became of the fact instead of being stored.
    NotStored(Stored),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the sensor does not run any more"),
            Self::NotStored(Stored::Dropped(reason)) => {
                write!(f, "the fact was dropped: {reason:?}")
            }
            Self::NotStored(stored) => write!(f, "the fact was not stored: {stored:?}"),
        }
    }
}

impl std::error::Error for SendError {}

/// A fact on its way.
#[derive(Debug)]
pub(crate) struct OwnRequest {
    pub(crate) fact: OwnFact,
    pub(crate) tell: Sender<Stored>,
}

/// Waits for the storing of one fact.
#[derive(Debug)]
pub struct Receipt(Receiver<Stored>);

impl Receipt {
    /// Waits until a Detection server has the fact on its disk, or it is known that none will.
    pub async fn stored(self) -> Stored {
        self.0.recv().await.unwrap_or(Stored::Lost)
    }

    /// As [`Self::stored`], blocking the thread.
    ///
    /// # Errors
    /// What became of the fact instead. One that said nothing new is as good as stored.
    pub fn wait(self) -> Result<(), SendError> {
        match self.0.recv_blocking().unwrap_or(Stored::Lost) {
            Stored::Stored | Stored::Unchanged => Ok(()),
            stored => Err(SendError::NotStored(stored)),
        }
    }
}

/// Speaks to a running sensor from any thread. Clone it freely.
#[derive(Clone, Debug)]
pub struct Handle {
    own: Sender<OwnRequest>,
    stop: Sender<()>,
}

impl Handle {
    /// Sends a fact of the agent's own; waits while too many of them wait already.
    ///
    /// # Errors
    /// [`SendError::Ended`].
    pub fn send(&self, fact: OwnFact) -> Result<Receipt, SendError> {
        let (tell, receipt) = bounded(1);
        self.own.send_blocking(OwnRequest { fact, tell }).map_err(|_| SendError::Ended)?;
        Ok(Receipt(receipt))
    }

    /// As [`Self::send`], without blocking the thread.
    ///
    /// # Errors
    /// [`SendError::Ended`].
    pub async fn send_async(&self, fact: OwnFact) -> Result<Receipt, SendError> {
        let (tell, receipt) = bounded(1);
        self.own.send(OwnRequest { fact, tell }).await.map_err(|_| SendError::Ended)?;
        Ok(Receipt(receipt))
    }

    /// Asks the sensor to stop in good order; again does nothing.
    pub fn stop(&self) {
        // Full means that it is asked already.
        let _ = self.stop.try_send(());
    }
}

/// Puts a sensor together.
#[derive(Debug)]
pub struct AgentBuilder {
    config: Config,
    kinds: Vec<OwnKind>,
    agent: String,
}

impl AgentBuilder {
    /// Adds a kind of the agent's own.
    #[must_use]
    pub fn define(mut self, kind: OwnKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Chooses which collectors run, in place of the configuration.
    #[must_use]
    pub fn collect(mut self, collect: Collect) -> Self {
        self.config.collect = collect;
        self
    }

    /// Names the agent to servers, such as `my-agent/1.2`; at most 255 bytes.
    #[must_use]
    pub fn agent(mut self, name: &str) -> Self {
        self.agent = name[..name.floor_char_boundary(name.len().min(255))].to_owned();
        self
    }

    /// Takes the state folder. Nothing runs yet.
    ///
    /// # Errors
    /// The state folder cannot be used, or another sensor runs on it.
    pub fn build(self) -> Result<Agent, AgentError> {
        let state = StateFolder::open(&self.config.state_dir)?;
        let (own, own_facts) = bounded(OWN_FACTS_WAITING_MAX);
        let (stop, stops) = bounded(1);
        let Self { mut config, kinds, agent } = self;
        // The configuration goes before what was said at the enrolment.
        config.name = config.name.or_else(|| state.name());
        let parts = Parts { config, kinds, agent, state, own_facts, stops };
        Ok(Agent { parts, handle: Handle { own, stop } })
    }
}

/// What the runner is given.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) kinds: Vec<OwnKind>,
    pub(crate) agent: String,
    pub(crate) state: StateFolder,
    pub(crate) own_facts: Receiver<OwnRequest>,
    pub(crate) stops: Receiver<()>,
}

/// A sensor that can be run.
#[derive(Debug)]
pub struct Agent {
    parts: Parts,
    handle: Handle,
}

impl Agent {
    /// Begins to put a sensor together.
    #[must_use]
    pub fn builder(config: Config) -> AgentBuilder {
        let agent = concat!("lapwing-sensor/", env!("CARGO_PKG_VERSION")).to_owned();
        AgentBuilder { config, kinds: Vec::new(), agent }
    }

    /// Speaks to it while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs the sensor until it is stopped, commanded to start again, or cannot go on. It enrols
    /// first where it has no identity and the configuration names a token.
    ///
    /// # Errors
    /// Why it does not run. A server that cannot be reached is no error: it is waited for.
    pub async fn run(self) -> Result<Ended, AgentError> {
        let Self { parts, handle } = self;
        // Whoever else holds a handle keeps the channels open; without one, nothing is awaited.
        let ended = runner::run(parts).await;
        drop(handle);
        ended
    }
}
