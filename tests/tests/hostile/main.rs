//! A Detection server among hostile connections of every sort at once, over real TLS: it stays
//! small, an honest sensor is acknowledged, and a new one still gets in.
//!
//! Some hundreds of connections, or as many as `LAPWING_HOSTILE` says; then for a minute, and the
//! times are held too, for the figures of `docs/benchmarks.md`:
//! `LAPWING_HOSTILE=10000 cargo test --release -p lapwing-tests --test hostile -- --nocapture`
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

mod attack;
mod frames;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lapwing_net::authority::Authority;
use lapwing_tests::load::{self, Arguments, Report, sample};
use lapwing_tests::platform::Platform;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use attack::{Attack, Sort};

/// Hostile connections in each test run.
const COUNT: usize = 260;
/// What the server may have resident, whatever is done to it.
const RSS_BYTES_MAX: u64 = 512 << 20;
/// Within which the honest sensor's 99th of 100 chunks is acknowledged, in milliseconds.
const ACK_MS_MAX: f64 = 1_000.0;
/// Within which a sensor that was never here is greeted.
const NEWCOMER_MAX: Duration = Duration::from_secs(10);
/// How long it may take until every hostile connection was there once: a bound for failing.
const BEGUN: Duration = Duration::from_secs(300);
/// Files that this process and the server may have open besides one for each connection.
const SPARE_FILES: u64 = 2_000;
/// Events a second of the honest sensor, each a chunk of its own.
const RATE: u64 = 50;

#[test]
fn among_hostile_connections_the_server_stays_small_and_an_honest_sensor_is_served() {
    let asked = std::env::var("LAPWING_HOSTILE").ok().and_then(|text| text.parse().ok());
    let figures = run(asked.unwrap_or(COUNT), if asked.is_some() { 60 } else { 5 });
    assert!(figures.rss_max_bytes <= RSS_BYTES_MAX, "{figures:?}");
    if asked.is_some() {
        // Times are held only where somebody asks for figures, on a machine left alone.
        assert!(figures.among_p99_ms < ACK_MS_MAX, "{figures:?}");
        assert!(figures.newcomer < NEWCOMER_MAX, "{figures:?}");
    }
}

/// What was seen.
#[derive(Debug)]
struct Figures {
    rss_before_bytes: u64,
    rss_max_bytes: u64,
    alone_p99_ms: f64,
    among_p99_ms: f64,
    newcomer: Duration,
}

/// Runs `count` hostile connections, and an honest sensor for `seconds` among them.
fn run(count: usize, seconds: u64) -> Figures {
    allow_files(count as u64 + SPARE_FILES);
    let platform = Platform::start(&["--no-sensor"]);
    let pid = pid_of_detection(&platform);
    let alone = honest(&platform, 5 * RATE);
    let rss = Rss::of(pid);
    let rss_before_bytes = rss.largest();

    let attack = Arc::new(attack_on(&platform));
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let newcomer = std::thread::scope(|scope| {
        for share in 0..2 {
            let (attack, stopped) = (Arc::clone(&attack), stopped.clone());
            scope.spawn(move || {
                let executor = smol::LocalExecutor::new();
                for number in (share..count).step_by(2) {
                    let attack = Arc::clone(&attack);
                    executor.spawn(async move { attack.misbehave(number).await }).detach();
                }
                let _ = smol::block_on(executor.run(stopped.recv()));
            });
        }
        lapwing_tests::wait::until("every hostile peer was there", BEGUN, || {
            (attack.begun.load(Ordering::Relaxed) >= count).then_some(())
        });
        let newcomer = smol::block_on(attack::newcomer(&attack));
        let among = honest(&platform, seconds * RATE);
        let standing = attack.standing.load(Ordering::Relaxed);
        drop(stop);
        (newcomer, among, standing)
    });
    let (newcomer, among, standing) = newcomer;
    assert_eq!(pid_of_detection(&platform), pid, "it is the same process");
    let figures = Figures {
        rss_before_bytes,
        rss_max_bytes: rss.largest(),
        alone_p99_ms: p99_ms(&alone),
        among_p99_ms: p99_ms(&among),
        newcomer,
    };
    let seen = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    println!(
        "{count} hostile peers of {} sorts: {} connections opened, {} handshakes, {} greeted, \
         {standing} standing at the end; server {} MiB at the most (before {}), honest p99 {} ms \
         (alone {}), p50 {} ms, newcomer greeted after {} ms, {} sessions of the honest one",
        Sort::ALL.len(),
        seen(&attack.opened),
        seen(&attack.shaken),
        seen(&attack.greeted),
        figures.rss_max_bytes >> 20,
        figures.rss_before_bytes >> 20,
        figures.among_p99_ms,
        figures.alone_p99_ms,
        among.value("ack_ms")["p50"],
        figures.newcomer.as_millis(),
        among.value("sessions"),
    );
    drop(platform.stop());
    figures
}

/// This process may have so many files open, and so may what it starts.
fn allow_files(count: u64) {
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.map(|maximum| maximum.max(count));
    let wanted = Rlimit { current: Some(count.max(now.current.unwrap_or(count))), maximum };
    setrlimit(Resource::Nofile, wanted).expect("root may, and others up to their hard limit");
}

fn attack_on(platform: &Platform) -> Attack {
    let folder = platform.folder().join("data");
    let file = |name: &str| folder.join("authority").join(name);
    let authority = Authority::load(&file("organisation.pem"), &file("organisation-key.pem"));
    let plan = std::fs::read_to_string(folder.join("up.toml")).expect("a plan");
    let plan: toml::Table = toml::from_str(&plan).expect("TOML");
    let at = platform.ready()["detection"][0]["sensor"].as_str().expect("a port").parse();
    Attack {
        authority: authority.expect("the organisation's authority"),
        deployment: plan["deployment"].as_str().and_then(|id| id.parse().ok()).expect("an id"),
        at: attack::v4(at.expect("an address")),
        opened: AtomicUsize::new(0),
        shaken: AtomicUsize::new(0),
        greeted: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        standing: AtomicUsize::new(0),
    }
}

fn pid_of_detection(platform: &Platform) -> u64 {
    platform.ready()["detection"][0]["pid"].as_u64().expect("a process")
}

/// One honest sensor tells `events` events, and each is acknowledged.
fn honest(platform: &Platform, events: u64) -> Report {
    let corpus = platform.folder().join("corpus.jsonl");
    std::fs::write(&corpus, sample::corpus(events, 0)).expect("a corpus");
    let ready_file = platform.ready_file();
    let rate = RATE.to_string();
    let arguments = [
        ["--ready-file", ready_file.to_str().expect("a plain path")],
        ["--corpus", corpus.to_str().expect("a plain path")],
        ["--sensors", "1"],
        ["--rate", &rate],
        ["--chunk-events", "1"],
    ];
    let arguments: Arguments =
        argh::FromArgs::from_args(&["lapwing-load"], &arguments.concat()).expect("arguments");
    let report = load::run(&arguments).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((report.missing(), report.unfinished()), (0, 0), "{}", report.json());
    report
}

fn p99_ms(report: &Report) -> f64 {
    report.value("ack_ms")["p99"].as_f64().expect("chunks were acknowledged")
}

/// The largest resident memory of a process, looked at all the time.
struct Rss {
    largest: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Rss {
    fn of(pid: u64) -> Self {
        let now = resident_bytes(pid).expect("it runs");
        let (largest, is_over) = (Arc::new(AtomicU64::new(now)), Arc::new(AtomicBool::new(false)));
        let this = Self { largest: Arc::clone(&largest), is_over: Arc::clone(&is_over) };
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                largest.fetch_max(resident_bytes(pid).unwrap_or(0), Ordering::Relaxed);
                lapwing_tests::wait::a_moment();
            }
        });
        this
    }

    fn largest(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }
}

impl Drop for Rss {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// `VmRSS` of a process.
fn resident_bytes(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}
