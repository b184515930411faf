//! From a configuration to a running core: identity, trust, spool, logs, memory.
//!
//! Invariants: the identity comes first, since logs and chains are bound to it; after an unclean
//! stop every lane gets a new log whose parent is the old one.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use lapwing_protocol::hello::{LogCause, Memory as Kept};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_sensor_core::{Config as CoreConfig, Installation, LogPositions, Sensor, Sizes};
use smol::Timer;
use smol::channel::Receiver;

use super::Runner;
use super::ask::Credentials;
use super::chunks::{Losses, remind};
use super::limits::{DAY_MS, DISK_RETRY_MS, ENROL_RETRY_FIRST, ENROL_RETRY_MAX};
use super::memory::Memory;
use crate::agent::{AgentError, Ended, Parts};
use crate::collect::{CollectedFact, CollectorConfig, Collectors, Source, fact_queue};
use crate::config::{Config, Mode};
use crate::enrol::{EnrolError, Enrolment, enrol};
use crate::identity::{Identity, StateFolder};
use crate::own::OwnKind;
use crate::spool::{LogState, Spool, SpoolOptions};
use crate::status::{State, Status};
use crate::tls::{Roots, RootsError};
use crate::{clock, durable_file, machine, random, sys};

/// A token of some 64 characters.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Who the sensor is and whom it trusts; enrols where it must. `None` when it was stopped first.
pub(super) async fn credentials(parts: Parts) -> Result<Option<(Credentials, Parts)>, AgentError> {
    let trusted = Roots::load(&parts.config.servers.ca_file);
    let identity = match parts.state.identity()? {
        Some(identity) => identity,
        None => {
            let roots = trusted.as_ref().map_err(|error| ca_error(&parts.config, error))?;
            let stop = async {
                if parts.stops.recv().await.is_err() {
                    std::future::pending::<()>().await;
                }
                Ok(None)
            };
            let enrolled = async { keep_enrolling(&parts, roots).await.map(Some) };
            match smol::future::or(stop, enrolled).await? {
                Some(identity) => identity,
                None => return Ok(None),
            }
        }
    };
    let roots = match trusted {
        Ok(roots) => roots,
        Err(RootsError::Missing) => {
            log::warn!(
                "{}: there is no such file; the CA that signed this sensor is trusted instead",
                parts.config.servers.ca_file.display()
            );
            Roots::of(&identity).map_err(|error| ca_error(&parts.config, &error))?
        }
        Err(error) => return Err(ca_error(&parts.config, &error)),
    };
    Ok(Some((Credentials { identity, roots }, parts)))
}

fn ca_error(config: &Config, error: &RootsError) -> AgentError {
    let file = config.servers.ca_file.display();
    AgentError::File { key: "servers.ca_file", problem: format!("{file}: {error}") }
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "{error}; let this process' user read it"),
            Self::Missing => {
                f.write_str("there is no such file; name the organisation's CA certificate")
            }
            Self::NotPem => f.write_str(
                "this is not a certificate in PEM; name the organisation's CA certificate",
            ),
        }
    }
}

/// Enrols at the first server that answers, again and again until one does.
async fn keep_enrolling(parts: &Parts, roots: &Roots) -> Result<Identity, AgentError> {
    let Some(token_file) = &parts.config.enrolment.token_file else {
        return Err(AgentError::NotEnrolled);
    };
    let name = machine::name(parts.config.name.as_deref());
    let mut pause = ENROL_RETRY_FIRST;
    loop {
        // Read each time, so that a token that is used up can be replaced while the sensor waits.
        let trouble = match read_token(token_file) {
            Ok(token) => match enrol_anywhere(parts, roots, &token, &name).await {
                Ok(identity) => {
                    log::info!("enrolled as {} of {}", identity.sensor, identity.deployment);
                    return Ok(identity);
                }
                Err((_, EnrolError::State(error))) => return Err(error.into()),
                Err((address, error)) => format!("not enrolled yet: server {address}: {error}"),
            },
            Err(problem) => format!("not enrolled yet: {problem}"),
        };
        log::warn!("{trouble}");
        unenrolled_status(parts, &name, trouble);
        Timer::after(pause).await;
        pause = (pause * 2).min(ENROL_RETRY_MAX);
    }
}

fn read_token(file: &std::path::Path) -> Result<String, String> {
    let bytes = durable_file::read(file, TOKEN_BYTES_MAX)
        .map_err(|error| format!("{}: {error}", file.display()))?
        .ok_or_else(|| {
            format!("{}: there is no such file; write an enrolment token there", file.display())
        })?;
    let text = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        return Err(format!("{}: there is no token in it", file.display()));
    }
    Ok(text)
}

/// Tries the servers in order, and goes on to the next where one does not answer.
async fn enrol_anywhere(
    parts: &Parts,
    roots: &Roots,
    token: &str,
    name: &str,
) -> Result<Identity, (String, EnrolError)> {
    let servers = &parts.config.servers;
    let mut last = None;
    for address in servers.registration.iter().chain(&servers.detection) {
        let enrolment = Enrolment { address, roots, token, name };
        match enrol(&parts.state, &enrolment).await {
            Ok(identity) => return Ok(identity),
            Err(error) if error.is_unreachable() => {
                // The first server's trouble is the one to mend.
                last.get_or_insert((address.clone(), error));
            }
            Err(error) => return Err((address.clone(), error)),
        }
    }
    let none = || (String::new(), EnrolError::BadAnswer("no server is named"));
    Err(last.unwrap_or_else(none))
}

fn unenrolled_status(parts: &Parts, name: &str, reason: String) {
    save_status(&parts.state, &Status { reason, ..bare_status(&parts.config, name) });
}

/// The status of a sensor that does not run yet.
fn bare_status(config: &Config, name: &str) -> Status {
    Status {
        name: name.to_owned(),
        state: State::Unassigned,
        registration: config.servers.registration.first().cloned(),
        collection: "disabled".into(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        updated_ms: clock::unix_ms(),
        ..Status::default()
    }
}

fn save_status(state: &StateFolder, status: &Status) {
    if let Err(error) = status.save(state.path()) {
        log::error!("{}: {error}", state.path().display());
    }
}

/// Opens the spool, makes the core over its memory, and lends the runner to `run`.
pub(super) async fn with_runner(
    parts: Parts,
    credentials: Credentials,
    run: impl AsyncFnOnce(Runner<'_>) -> Result<Ended, AgentError>,
) -> Result<Ended, AgentError> {
    let Parts { config, kinds, agent, state, own_facts, stops } = parts;
    let owner = (credentials.identity.deployment, credentials.identity.sensor);
    let Some((spool, logs)) = keep_opening(&config, &state, &stops, owner).await? else {
        return Ok(Ended::Stopped);
    };
    let (name, os) = (machine::name(config.name.as_deref()), machine::os());
    let core = core_config(&config, &state, owner, [&agent, &name, &os])?;
    let mut memory = Memory::new(&sizes(&config));
    let mut sensor = Sensor::new(core, memory.lend(), logs.map(LogPositions::from))
        .map_err(|error| AgentError::Machine(error.to_string()))?;
    define(&mut sensor, &kinds)?;
    let now = clock::now();
    for state in &logs {
        remind(&mut sensor, now, &spool, (state.lane, state.log));
    }
    let (collectors, facts) = collectors(&config);
    run(Runner {
        is_collecting: !state.is_collection_stopped(),
        assignment: state.assignment(),
        frames: vec![0; sensor.transmit_bytes_min()],
        config,
        state,
        credentials,
        sensor,
        spool,
        collectors,
        facts,
        own_facts,
        stops,
        link: None,
        dialing: None,
        asking: None,
        dialed: String::new(),
        trouble: String::new(),
        ended: None,
        unreported: [None; 2],
        losses: Losses::default(),
        receipts: Vec::new(),
        retries: Vec::new(),
        retry_due_ns: None,
        tend_due_ns: 0,
        progress_due_ns: None,
        command: None,
        fetched: Vec::new(),
        traffic: (0, 0),
        sessions: 0,
        questions: 0,
        status: Status::default(),
        status_told_ns: 0,
        is_news: true,
    })
    .await
}

fn core_config<'a>(
    config: &Config,
    state: &StateFolder,
    (deployment, sensor): (DeploymentId, SensorId),
    [agent, name, os]: [&'a str; 3],
) -> Result<CoreConfig<'a>, AgentError> {
    let boot = sys::clock::boot_id().or_else(|_| random::bytes()).map_err(machine_error)?;
    let chance = random::bytes().map_err(machine_error)?;
    let seed = chance.iter().fold(0_u64, |seed, byte| seed << 8 ^ seed >> 56 ^ u64::from(*byte));
    Ok(CoreConfig {
        deployment,
        sensor,
        boot: BootId(boot),
        memory: match config.spool.mode {
            Mode::Disk => Kept::Disk,
            Mode::Memory => Kept::RamOnly,
        },
        agent,
        name,
        os,
        installation: Installation {
            has_registration: !config.servers.registration.is_empty(),
            has_detection: !config.servers.detection.is_empty(),
            assigned: state.assignment().map(|assignment| assignment.server),
        },
        last_command: state.command().map(|command| command.number),
        hash_key: random::bytes().map_err(machine_error)?,
        seed,
    })
}

fn define(sensor: &mut Sensor<'_>, kinds: &[OwnKind]) -> Result<(), AgentError> {
    for kind in kinds {
        let problem = |problem: String| AgentError::Kind { name: kind.name().into(), problem };
        kind.with_definition(|definition| sensor.define(definition))
            .map_err(|error| problem(error.to_string()))?
            .map_err(|error| problem(error.to_string()))?;
    }
    Ok(())
}

/// The collectors that the configuration wants, none started, and where their facts come out.
fn collectors(config: &Config) -> (Option<Collectors>, Receiver<CollectedFact>) {
    let (sender, facts) = fact_queue();
    let sources: BTreeSet<Source> =
        Source::ALL.into_iter().filter(|source| config.collect.has(*source)).collect();
    let collectors = (!sources.is_empty()).then(|| {
        let watched_folders = config.collect.watched_folders.clone();
        let unit_source = config.collect.unit_source.clone();
        Collectors::new(CollectorConfig { sources, watched_folders, unit_source }, sender)
    });
    (collectors, facts)
}

fn machine_error(error: std::io::Error) -> AgentError {
    AgentError::Machine(error.to_string())
}

/// Memory for the core: without a spool, what no server has is kept in its windows.
fn sizes(config: &Config) -> Sizes {
    let mut sizes = Sizes::DESKTOP;
    if config.spool.mode == Mode::Memory {
        let bytes = usize::try_from(config.spool.memory_max.0).unwrap_or(usize::MAX);
        sizes.bulk.window = sizes.bulk.window.max(bytes);
    }
    sizes
}

/// Opens the spool and the log of each lane; a disk that refuses is asked again until it does not,
/// or the sensor is stopped.
async fn keep_opening(
    config: &Config,
    state: &StateFolder,
    stops: &Receiver<()>,
    owner: (DeploymentId, SensorId),
) -> Result<Option<(Spool, [LogState; 2])>, AgentError> {
    let name = machine::name(config.name.as_deref());
    loop {
        let error = match open_logs(config, state, owner) {
            Err(AgentError::Spool(error)) if error.is_refusal() => error,
            opened => return opened.map(Some),
        };
        log::error!("{error}; it is tried again");
        let status = Status { spool_trouble: error.to_string(), ..bare_status(config, &name) };
        save_status(state, &Status { reason: format!("the spool: {error}"), ..status });
        let stop = async {
            if stops.recv().await.is_err() {
                std::future::pending::<()>().await;
            }
            true
        };
        let again = async {
            Timer::after(Duration::from_millis(DISK_RETRY_MS)).await;
            false
        };
        if smol::future::or(stop, again).await {
            return Ok(None);
        }
    }
}

fn open_logs(
    config: &Config,
    state: &StateFolder,
    owner: (DeploymentId, SensorId),
) -> Result<(Spool, [LogState; 2]), AgentError> {
    let folder = state.path().join("spool");
    let mut spool = match config.spool.mode {
        Mode::Disk => {
            let config = &config.spool;
            let (bytes_max, sync) = (config.max.0, config.sync);
            let age_ms_max = u64::from(config.max_age_days) * DAY_MS;
            let options = SpoolOptions { bytes_max, age_ms_max, sync };
            Spool::open(&folder, owner, options)?
        }
        Mode::Memory => {
            if folder.exists() {
                log::warn!(
                    "{}: what is there is not sent with `spool.mode` memory",
                    folder.display()
                );
            }
            Spool::without_disk(owner)?
        }
    };
    let first = match config.spool.mode {
        Mode::Disk => LogCause::First,
        Mode::Memory => LogCause::Started,
    };
    let logs = [Lane::Bulk, Lane::Urgent];
    let [bulk, urgent] = logs.map(|lane| current_log(&mut spool, lane, first));
    Ok((spool, [bulk?, urgent?]))
}

/// The log to go on with; a new one at the first start and after an unclean stop.
fn current_log(spool: &mut Spool, lane: Lane, first: LogCause) -> Result<LogState, AgentError> {
    if let Some(log) = spool.current(lane) {
        return Ok(log);
    }
    let old = spool.newest_old(lane);
    let cause = match &old {
        _ if spool.is_newest_damaged(lane) => LogCause::SpoolLost,
        Some(_) => LogCause::Unclean,
        None => first,
    };
    if cause != first {
        log::warn!("the last stop was not clean: a new log is opened on the {lane:?} lane");
    }
    let log = LogId(random::bytes().map_err(machine_error)?);
    Ok(spool.open_log(lane, log, cause, old.map(|old| old.as_parent()))?)
}
