//! All sensors of a run: enrolled, spread over one executor a processor, led through the phases.
//!
//! ```text
//! enrol -> (offline events) -> connect, all of them -> events -> all acknowledged -> idle -> end
//! ```
//!
//! Not here: what a sensor does (`machine`). Invariants: a phase begins when every sensor has ended
//! the one before; a run that makes no progress ends with what it has, and says what is missing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_protocol::limits::CHUNK_BYTES_MAX;
use lapwing_sensor_core::{LaneSizes, Sizes};
use lapwing_sensor_os::parts::{self, Application, Member};
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::lock::Semaphore;

use super::arguments::Arguments;
use super::corpus::Corpus;
use super::facts::Timeline;
use super::machine::{self, Setup, Tally};
use super::malops::{self, Appeared};
use super::meter::Meter;
use super::report::{Measured, Report};
use super::target::Target;
use super::wait;

/// Enrolments under way at once: each is a handshake and a signature.
const ENROLMENTS_MAX: usize = 32;
/// How often an enrolment is tried, a second apart.
const ENROLMENT_ATTEMPTS: u32 = 30;
/// How often processes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(2);
/// The bound of a spool on disk where none is named.
const SPOOL_BYTES: u64 = 256 << 20;
/// Sensors up to which each has the memory of a desktop.
const DESKTOPS_MAX: u32 = 200;
/// One day: no corpus spans more on a machine that was just started.
const CLOCK_AHEAD_NS: u64 = 86_400_000_000_000;

/// Memory of one of many sensors.
const SMALL: Sizes = Sizes {
    rows: 1_024,
    index: 2_048,
    row_bytes: 256 << 10,
    strings: 1_024,
    definitions: 0,
    bulk: LaneSizes {
        open: CHUNK_BYTES_MAX,
        window: 4 * (CHUNK_BYTES_MAX + 64),
        flight: 64,
        holes: 8,
        stored: 8,
    },
    urgent: LaneSizes { open: 1_024, window: 4 << 10, flight: 8, holes: 8, stored: 8 },
    receive: 8 << 10,
    fetch: CHUNK_BYTES_MAX,
    call: 4 << 10,
};

/// What a sensor is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Connect.
    Connect,
    /// Events happen.
    Go,
    /// End in good order.
    End,
}

/// What a sensor tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Its offline events have happened.
    Filled,
    /// It was greeted for the first time.
    Connected,
    /// Everything it made is acknowledged.
    Done,
}

/// Counts for progress, from all threads.
#[derive(Debug, Default)]
pub(super) struct Counted {
    handed: AtomicU64,
    acked: AtomicU64,
    /// The last trouble that a sensor had.
    trouble: Mutex<String>,
}

impl Counted {
    pub(super) fn handed(&self, events: u64) {
        if events > 0 {
            self.handed.fetch_add(events, Relaxed);
        }
    }

    pub(super) fn acked(&self, facts: u64) {
        self.acked.fetch_add(facts, Relaxed);
    }

    pub(super) fn trouble(&self, sensor: &str, why: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = format!("{sensor}: {why}");
    }

    fn last_trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How many events of the corpus may happen: lets a test lead a load step by step.
#[derive(Clone, Debug)]
pub struct Gate(Arc<AtomicU64>);

impl Gate {
    /// The first `events` may happen.
    #[must_use]
    pub fn at(events: u64) -> Self {
        Self(Arc::new(AtomicU64::new(events)))
    }

    /// So many may happen from now on.
    pub fn raise(&self, events: u64) {
        self.0.fetch_max(events, Relaxed);
    }

    /// Whether the event at `place` may happen.
    pub(super) fn lets(&self, place: u64) -> bool {
        place < self.0.load(Relaxed)
    }
}

/// Runs a load and gives its figures.
///
/// # Errors
/// The corpus, the ready file, the enrolment or a sensor is not as it should be.
pub fn run(arguments: &Arguments) -> Result<Report, String> {
    run_gated(arguments, &Gate::at(u64::MAX))
}

/// As [`run`], with no more events than `gate` lets happen at any moment.
///
/// # Errors
/// As [`run`].
pub fn run_gated(arguments: &Arguments, gate: &Gate) -> Result<Report, String> {
    arguments.check()?;
    let target = Target::read(&arguments.ready_file)?;
    let corpus = Corpus::read(&arguments.corpus, arguments.sensors, arguments.events, |events| {
        eprintln!("lapwing-load: {events} events read");
    })?;
    eprintln!("lapwing-load: {} events for {} sensors", corpus.events, arguments.sensors);
    let members = smol::block_on(enrol(&target, arguments.sensors))?;
    let folder = spool_folder(arguments)?;
    let made = (corpus, members);
    let report = Run::new(arguments, &target, made, folder.as_ref(), gate).run();
    if let Some(folder) = folder {
        // What is left of a spool is of no use to anybody: the keys of its sensors are gone.
        let _ = std::fs::remove_dir_all(folder);
    }
    report
}

fn spool_folder(arguments: &Arguments) -> Result<Option<PathBuf>, String> {
    let Some(folder) = &arguments.spool_dir else { return Ok(None) };
    let folder = folder.join(format!("lapwing-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| {
        format!("--spool-dir: {}: {error}; name a folder to write in", folder.display())
    })?;
    Ok(Some(folder))
}

fn name_of(at: usize) -> String {
    format!("load-{at:05}")
}

/// Enrols every sensor.
async fn enrol(target: &Target, sensors: u32) -> Result<Vec<Member>, String> {
    let executor = smol::LocalExecutor::new();
    let slots = Arc::new(Semaphore::new(ENROLMENTS_MAX));
    let tasks: Vec<_> = (0..sensors as usize)
        .map(|at| {
            let slots = Arc::clone(&slots);
            executor.spawn(async move {
                let _slot = slots.acquire().await;
                enrol_one(target, &name_of(at)).await
            })
        })
        .collect();
    let all = async {
        let (mut members, mut told) = (Vec::with_capacity(tasks.len()), Instant::now());
        for task in tasks {
            members.push(task.await?);
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!("lapwing-load: {} of {sensors} sensors enrolled", members.len());
            }
        }
        Ok(members)
    };
    executor.run(all).await
}

async fn enrol_one(target: &Target, name: &str) -> Result<Member, String> {
    let application = Application {
        address: target.enroller(),
        ca_file: &target.ca_file,
        token: &target.enrolment_token,
        name,
    };
    let mut last = String::new();
    for attempt in 0..ENROLMENT_ATTEMPTS {
        if attempt > 0 {
            wait::pause(Duration::from_secs(1)).await;
        }
        match Member::enrol(&application).await {
            Ok(member) => return Ok(member),
            Err(error) => last = error.text,
        }
    }
    Err(format!("{name} does not enrol: {last}"))
}

/// One run, its sensors made.
struct Run<'r> {
    arguments: &'r Arguments,
    target: &'r Target,
    setups: Vec<Setup>,
    events: u64,
    counted: Arc<Counted>,
}

/// One thread's sensors: how each is made and by which channel it is led.
type Share = Vec<(Setup, Receiver<Signal>)>;
/// What became of each sensor: its id, and what it counted.
type Ended = Result<Vec<(String, Tally)>, String>;

impl<'r> Run<'r> {
    fn new(
        arguments: &'r Arguments,
        target: &'r Target,
        (corpus, members): (Corpus, Vec<Member>),
        folder: Option<&PathBuf>,
        gate: &Gate,
    ) -> Self {
        let now_ns = parts::now().monotonic_ns + CLOCK_AHEAD_NS;
        let timeline = Timeline::ending_at(now_ns, &corpus);
        let (events, texts) = (corpus.events, Arc::new(corpus.texts));
        let bytes_max = arguments.spool_max.unwrap_or(SPOOL_BYTES);
        let sizes = if arguments.sensors > DESKTOPS_MAX { &SMALL } else { &Sizes::DESKTOP };
        let setups = members.into_iter().zip(corpus.by_sensor).enumerate();
        let setups = setups
            .map(|(at, (member, events))| Setup {
                name: name_of(at),
                member,
                registration: target.registration.clone(),
                detection: target.detection.clone(),
                events,
                texts: Arc::clone(&texts),
                timeline,
                sizes,
                spool: folder.map(|folder| (folder.join(name_of(at)), bytes_max)),
                offline_events: arguments.offline_events,
                rate: arguments.rate,
                chunk_events: arguments.chunk_events,
                gate: gate.clone(),
                clock_ahead_ns: CLOCK_AHEAD_NS,
            })
            .collect();
        Self { arguments, target, setups, events, counted: Arc::default() }
    }

    fn run(mut self) -> Result<Report, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (notices, told) = unbounded();
        let (mut signals, mut shares) = (Vec::new(), Vec::<Share>::new());
        shares.resize_with(threads, Share::new);
        for (at, setup) in std::mem::take(&mut self.setups).into_iter().enumerate() {
            let (signal, signalled) = bounded(4);
            signals.push(signal);
            shares[at % threads].push((setup, signalled));
        }
        let (stop, stopped) = bounded::<()>(1);
        let (watching, is_watching) = bounded(1);
        std::thread::scope(|scope| {
            let watcher = scope
                .spawn(|| smol::block_on(malops::watch(self.target.clone(), watching, stopped)));
            let workers: Vec<_> = shares
                .into_iter()
                .map(|share| {
                    let telling = (notices.clone(), Arc::clone(&self.counted));
                    scope.spawn(move || work(share, &telling))
                })
                .collect();
            let measured = smol::block_on(self.lead(&signals, &told, &is_watching));
            drop((signals, stop));
            let mut tallies = Vec::new();
            for worker in workers {
                tallies.extend(worker.join().map_err(|_| "a thread of sensors panicked")??);
            }
            let appeared = watcher.join().map_err(|_| "the thread of MalOps panicked")??;
            Ok(report(tallies, measured?, &appeared))
        })
    }

    /// Leads all sensors through the phases.
    async fn lead(
        &self,
        signals: &[Sender<Signal>],
        told: &Receiver<Notice>,
        watching: &Receiver<()>,
    ) -> Result<Measured, String> {
        let sensors = signals.len() as u64;
        let mut meter = Meter::new(&self.arguments.ready_file);
        let before = meter.rss_bytes;
        if self.arguments.offline_events > 0 {
            eprintln!("lapwing-load: {} events happen offline", self.arguments.offline_events);
            self.await_all(told, Notice::Filled, &mut meter).await;
        }
        if wait::within(Duration::from_secs(30), watching.recv()).await.is_none() {
            return Err("the WebApp does not answer; see its log in the data folder".into());
        }
        meter.restart();
        give(signals, Signal::Connect).await;
        let connected = self.await_all(told, Notice::Connected, &mut meter).await;
        if connected < sensors {
            give(signals, Signal::End).await;
            return Err(format!(
                "{} of {sensors} sensors were not greeted: {}",
                sensors - connected,
                self.counted.last_trouble()
            ));
        }
        eprintln!("lapwing-load: {connected} sensors are connected");
        if self.arguments.offline_events == 0 {
            meter.restart();
        }
        give(signals, Signal::Go).await;
        let done = self.await_all(told, Notice::Done, &mut meter).await;
        let (sensor_cpu_s, server_cpu_s) = (meter.own_seconds(), meter.server_seconds());
        if self.arguments.idle > 0 {
            eprintln!("lapwing-load: idle for {} s", self.arguments.idle);
            let until = Instant::now() + Duration::from_secs(self.arguments.idle);
            while Instant::now() < until {
                wait::pause(LOOK).await;
                meter.sample();
            }
        }
        meter.sample();
        give(signals, Signal::End).await;
        Ok(Measured {
            sensors,
            connections: connected,
            sensor_cpu_s,
            server_cpu_s,
            server_rss_bytes: meter.rss_bytes,
            server_rss_before_bytes: before,
            server_rss_max_bytes: meter.rss_bytes_max,
            malops: Vec::new(),
            idle_seconds: self.arguments.idle,
            unfinished: sensors - done,
        })
    }

    /// Waits until every sensor told `notice`, or nothing has moved for too long; gives how many
    /// did.
    async fn await_all(&self, told: &Receiver<Notice>, notice: Notice, meter: &mut Meter) -> u64 {
        let sensors = u64::from(self.arguments.sensors);
        let patience = Duration::from_secs(self.arguments.patience);
        let (mut count, mut last, mut moved) = (0, (0, 0), Instant::now());
        let (mut looked, mut printed) = (Instant::now(), Instant::now());
        while count < sensors {
            if let Some(Ok(heard)) = wait::within(LOOK, told.recv()).await
                && heard == notice
            {
                count += 1;
                moved = Instant::now();
            }
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            meter.sample();
            let now = (self.counted.handed.load(Relaxed), self.counted.acked.load(Relaxed));
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if printed.elapsed() >= PROGRESS {
                printed = Instant::now();
                self.print(notice, count, now);
            }
            if moved.elapsed() >= patience {
                eprintln!("lapwing-load: nothing moved for {} s", patience.as_secs());
                break;
            }
        }
        count
    }

    fn print(&self, notice: Notice, count: u64, (handed, acked): (u64, u64)) {
        let of = self.arguments.sensors;
        let trouble = self.counted.last_trouble();
        match notice {
            Notice::Filled => eprintln!("lapwing-load: {handed} events have happened"),
            Notice::Connected => eprintln!("lapwing-load: {count} of {of} connected {trouble}"),
            Notice::Done => eprintln!(
                "lapwing-load: {handed} of {} events, {acked} facts acknowledged, {count} of {of} \
                 sensors done {trouble}",
                self.events
            ),
        }
    }
}

async fn give(signals: &[Sender<Signal>], signal: Signal) {
    for sensor in signals {
        // A sensor that failed does not listen any more; its thread tells why.
        let _ = sensor.send(signal).await;
    }
}

/// Runs one thread's sensors to their end.
fn work(share: Share, telling: &(Sender<Notice>, Arc<Counted>)) -> Ended {
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = share
        .into_iter()
        .map(|(setup, signals)| {
            let id = setup.member.ids().1.to_string();
            (id, executor.spawn(machine::run(setup, signals, telling.clone())))
        })
        .collect();
    let all = async {
        let mut tallies = Vec::with_capacity(tasks.len());
        for (id, task) in tasks {
            tallies.push((id, task.await?));
        }
        Ok(tallies)
    };
    smol::block_on(executor.run(all))
}

fn report(tallies: Vec<(String, Tally)>, mut measured: Measured, appeared: &[Appeared]) -> Report {
    let by_sensor: BTreeMap<String, &Tally> =
        tallies.iter().map(|(id, tally)| (id.clone(), tally)).collect();
    measured.malops = malops::delays(appeared, &by_sensor);
    Report::new(tallies.into_iter().map(|(_, tally)| tally).collect(), &measured)
}
