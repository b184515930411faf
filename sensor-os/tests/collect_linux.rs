//! The collectors over the real kernel: what really happens on this machine becomes facts.
//!
//! Needs root. Without it each test says SKIPPED and returns, unless `LAPWING_REQUIRE=all`. Nothing
//! leaves the machine: addresses are 127.66.6.x. Tests wait for conditions, with a deadline.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapwing_protocol::element::{
    Change, Feature, Value, collector_count, connection, dns, file_event, health, machine, process,
    service, user, write_key,
};
use lapwing_sensor_os::collect::{
    CollectedFact, CollectorConfig, Collectors, OwnedValue, Source, Status, fact_queue,
};
use sha2::{Digest, Sha256};
use smol::channel::Receiver;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_program_that_runs_once_is_seen_with_hash_parent_user_and_exit_code() {
    let Some(mut machine) = Watched::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = Program::copy_of("/bin/false", &folder.path().join("once"));
    let mut child = Command::new(&program.path).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();

    let started = machine.wait_for("the program", |fact| {
        fact.change == Change::Whole && has(fact, process::image_hash, &program.hash)
    });
    assert!(is_process(&started, pid));
    assert_eq!(started.text(process::image_path), Some(program.path.to_str().unwrap()));
    assert_eq!(started.value(process::parent), Some(&own_reference()));
    assert_eq!(started.value(process::uid), Some(&OwnedValue::U64(0)));
    assert_eq!(started.text(process::user), Some("root"));
    let ended = machine.wait_for("its end", |fact| {
        fact.change == Change::Ended
            && is_process(fact, pid)
            && fact.value(process::start_ticks) == started.value(process::start_ticks)
    });
    assert_eq!(ended.value(process::exit_code), Some(&OwnedValue::I64(1)));
}

#[test]
fn of_many_programs_that_run_once_none_is_missed() {
    let Some(mut machine) = Watched::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let programs: Vec<Program> = (0..100)
        .map(|i| Program::copy_of("/bin/true", &folder.path().join(format!("many-{i}"))))
        .collect();
    for program in &programs {
        Command::new(&program.path).status().unwrap();
    }
    for program in &programs {
        let seen =
            machine.wait_for("each program", |fact| has(fact, process::image_hash, &program.hash));
        assert_eq!(seen.text(process::command_line), program.path.to_str());
    }
}

#[test]
fn a_script_is_seen_as_its_interpreter_with_the_scripts_command_line() {
    let Some(mut machine) = Watched::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nread line\n").unwrap();
    make_executable(&script);
    let mut child = Command::new(&script).stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id();

    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let seen = machine.wait_for("the script", |fact| {
        is_process(fact, pid)
            && fact.text(process::command_line).is_some_and(|line| line.ends_with("/script"))
    });
    assert_eq!(seen.text(process::image_path), shell.to_str());
    child.kill().unwrap();
    child.wait().unwrap();
    let ended =
        machine.wait_for("its end", |fact| fact.change == Change::Ended && is_process(fact, pid));
    assert_eq!(ended.value(process::exit_code), Some(&OwnedValue::I64(128 + 9)));
}

#[test]
fn a_short_loopback_connection_is_seen_from_both_ends_with_its_process() {
    let Some(mut machine) = Watched::start() else { return };
    let listener = TcpListener::bind("127.66.6.6:0").unwrap();
    let server = listener.local_addr().unwrap();
    let stream = TcpStream::connect(server).unwrap();
    let client = stream.local_addr().unwrap();
    drop(listener.accept().unwrap());
    drop(stream);

    for (local, remote, direction) in [(client, server, 1), (server, client, 2)] {
        let seen = machine.wait_for("the connection", |fact| {
            fact.change == Change::Whole && is_between(fact, local, remote)
        });
        assert_eq!(seen.value(connection::direction), Some(&OwnedValue::U64(direction)));
        assert_eq!(seen.value(connection::process), Some(&own_reference()));
        machine.wait_for("its end", |fact| {
            fact.change == Change::Ended && is_between(fact, local, remote)
        });
    }
}

#[test]
fn a_refused_connection_is_seen_with_its_process() {
    let Some(mut machine) = Watched::start() else { return };
    let nobody: SocketAddr = "127.66.6.6:9".parse().unwrap();
    TcpStream::connect(nobody).unwrap_err();

    let seen = machine.wait_for("the attempt", |fact| {
        fact.change == Change::Whole
            && fact.value(connection::remote_address) == Some(&OwnedValue::Ip(nobody.ip()))
            && fact.value(connection::remote_port) == Some(&OwnedValue::U64(9))
            && fact.value(connection::process) == Some(&own_reference())
    });
    assert_eq!(seen.text(connection::state), Some("failed"));
}

#[test]
fn files_in_a_watched_folder_and_in_new_ones_below_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let config = CollectorConfig {
        watched_folders: vec![folder.path().to_owned()],
        ..CollectorConfig::default()
    };
    let Some(mut machine) = Watched::start_with(config) else { return };
    let script = "echo one > first; mkdir below; echo three > below/second; \
        echo more >> first; rm first; read go; mv below/second below/third; read end";
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script])
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_shell = shell.stdin.take().unwrap();
    let pid = u64::from(shell.id());

    let event = |name: &str, action: u64| {
        let path = folder.path().join(name).to_str().unwrap().to_owned();
        move |fact: &CollectedFact| {
            fact.text(file_event::path) == Some(&path)
                && fact.value(file_event::action) == Some(&OwnedValue::U64(action))
        }
    };
    let created = machine.wait_for("creation", event("first", 1));
    let Some(OwnedValue::Ref(kind, key)) = created.value(file_event::process) else {
        panic!("no process in {created:?}");
    };
    assert_eq!(*kind, process::KIND);
    let mut buffer = [0; 64];
    let shell_key = write_key(&[Value::U64(pid)], &mut buffer).unwrap();
    assert!(key.starts_with(shell_key), "the shell did it: {created:?}");
    machine.wait_for("a file in a new folder", event("below/second", 1));
    machine.wait_for("removal", event("first", 3));
    to_shell.write_all(b"go\n").unwrap();
    machine.wait_for("a new name", event("below/third", 4));
    drop(to_shell);
    shell.wait().unwrap();
}

#[test]
fn a_watched_folder_may_be_named_by_a_link_and_links_below_it_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (real, elsewhere) = (folder.path().join("real"), folder.path().join("elsewhere"));
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let config = CollectorConfig { watched_folders: vec![link.clone()], ..Default::default() };
    let Some(mut machine) = Watched::start_with(config) else { return };
    std::os::unix::fs::symlink(&elsewhere, real.join("inner")).unwrap();
    let shell = format!("echo a > {0}/inner/b; echo a > {0}/c", real.display());
    let ended = Command::new("/bin/sh").args(["-c", &shell]).status().unwrap();
    assert!(ended.success());
    let path = link.join("c").display().to_string();
    machine.wait_for("the file", |fact| fact.text(file_event::path) == Some(path.as_str()));
    let is_inner =
        |fact: &CollectedFact| fact.text(file_event::path).is_some_and(|path| path.ends_with("/b"));
    assert!(!machine.seen.iter().any(is_inner));
}

#[test]
fn a_name_that_is_looked_up_on_loopback_is_seen_once_with_its_answer() {
    let Some(mut machine) = Watched::start() else { return };
    let resolver = UdpSocket::bind("127.66.6.53:53").unwrap();
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.send_to(&question(&unique("Short")), resolver.local_addr().unwrap()).unwrap();
    answer_one(&resolver);

    let name = format!("{}.example.test", unique("short"));
    let is_ours = |fact: &CollectedFact| fact.text(dns::question) == Some(&name);
    let seen = machine.wait_for("the answer", is_ours);
    assert_eq!(seen.text(dns::answers), Some("127.66.6.6"));
    assert_eq!(seen.value(dns::question_type), Some(&OwnedValue::U64(1)));
    assert_eq!(seen.value(dns::server), Some(&OwnedValue::Ip(IpAddr::from([127, 66, 6, 53]))));
    assert_eq!(seen.value(dns::process), Some(&own_reference()));
    // What comes after it shows that no second one of it is on its way.
    asker.send_to(&question(&unique("later")), resolver.local_addr().unwrap()).unwrap();
    answer_one(&resolver);
    let later = format!("{}.example.test", unique("later"));
    machine.wait_for("a later one", |fact| fact.text(dns::question) == Some(&later));
    assert_eq!(machine.seen.iter().filter(|fact| is_ours(fact)).count(), 1);
}

#[test]
fn who_looks_a_name_up_and_ends_at_once_is_known() {
    let Some(mut machine) = Watched::start() else { return };
    let resolver = UdpSocket::bind("127.66.6.54:53").unwrap();
    let bytes: String =
        question(&unique("quick")).iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let script = format!(
        "exec 3<>/dev/udp/127.66.6.54/53; printf '{bytes}' >&3; read -r -t 10 -N 1 -u 3; kill -9 $$"
    );
    let mut asker = Command::new("/bin/bash").args(["-c", &script]).spawn().unwrap();
    answer_one(&resolver);
    asker.wait().unwrap();

    let name = format!("{}.example.test", unique("quick"));
    let seen = machine.wait_for("the answer", |fact| fact.text(dns::question) == Some(&name));
    let Some(OwnedValue::Ref(kind, key)) = seen.value(dns::process) else {
        panic!("no process in {seen:?}");
    };
    let mut buffer = [0; 64];
    let pid = [Value::U64(asker.id().into())];
    assert_eq!(*kind, process::KIND);
    assert!(key.starts_with(write_key(&pid, &mut buffer).unwrap()), "{seen:?}");
}

#[test]
fn touching_one_of_a_hundred_services_is_one_fact() {
    let folder = tempfile::tempdir().unwrap();
    let units = folder.path().join("units");
    let write = |changed: usize| {
        let line = |unit: usize| {
            let state = if unit == changed { "failed" } else { "active" };
            format!("unit-{unit}.service {state} running enabled\n")
        };
        let next = folder.path().join("next");
        std::fs::write(&next, (0..100).map(line).collect::<String>()).unwrap();
        std::fs::rename(&next, &units).unwrap();
    };
    write(usize::MAX);
    let config = CollectorConfig { unit_source: Some(units.clone()), ..CollectorConfig::default() };
    let Some(mut machine) = Watched::start_with(config) else { return };
    let is_service = |fact: &CollectedFact| fact.kind == service::KIND;
    machine.wait_until("all services", |seen| seen.iter().filter(|f| is_service(f)).count() == 100);
    write(42);
    let touched = machine.wait_for("the touched one", |fact| {
        is_service(fact) && fact.text(service::state) == Some("failed")
    });
    assert_eq!(touched.text(service::name), Some("unit-42.service"));
    assert_eq!(machine.seen.iter().filter(|fact| is_service(fact)).count(), 101);
}

#[test]
fn collection_stops_and_starts_and_ends_what_ended_meanwhile() {
    let Some(mut machine) = Watched::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sleeper = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let pid = sleeper.id();
    machine.wait_for("the sleeper", |fact| {
        is_process(fact, pid) && fact.text(process::command_line) == Some("/bin/sleep 600")
    });

    machine.collectors.stop();
    machine.wait_for("word of the stop", |fact| fact.text(machine::collection) == Some("disabled"));
    machine.wait_for("its health", |fact| {
        fact.text(health::component) == Some("processes")
            && fact.text(health::status) == Some(Status::Stopped.name())
    });
    machine.drain();
    let unseen = Program::copy_of("/bin/true", &folder.path().join("unseen"));
    Command::new(&unseen.path).status().unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(machine.drain().is_empty(), "nothing is collected while stopped");

    machine.collectors.start();
    machine.wait_for("the sleeper's end", |fact| {
        fact.change == Change::Ended && is_process(fact, pid)
    });
    let after = Program::copy_of("/bin/true", &folder.path().join("after"));
    Command::new(&after.path).status().unwrap();
    machine.wait_for("a program after it", |fact| has(fact, process::image_hash, &after.hash));
    let missed = |fact: &CollectedFact| has(fact, process::image_hash, &unseen.hash);
    assert!(!machine.seen.iter().any(missed));
}

#[test]
fn a_collector_that_is_not_configured_does_not_run_and_says_so() {
    let sources = [Source::Processes, Source::Connections, Source::Names].into();
    let config = CollectorConfig { sources, ..CollectorConfig::default() };
    let Some(mut machine) = Watched::start_with(config) else { return };
    let health = machine.wait_for("health of the users", |fact| {
        fact.kind == health::KIND && fact.text(health::component) == Some("users")
    });
    assert_eq!(health.text(health::status), Some(Status::Stopped.name()));
    machine.collectors.stop();
    machine.drain();
    assert!(!machine.seen.iter().any(|fact| [user::KIND, machine::KIND].contains(&fact.kind)));
}

#[test]
fn the_machine_its_users_and_its_health_are_told_and_counted() {
    let Some(mut machine) = Watched::start() else { return };
    machine.wait_for("the machine", |fact| {
        fact.kind == machine::KIND && fact.text(machine::collection) == Some("enabled")
    });
    machine
        .wait_for("root", |fact| fact.kind == user::KIND && fact.text(user::name) == Some("root"));
    machine.wait_for("this process", |fact| {
        is_process(fact, std::process::id()) && fact.value(process::image_hash).is_some()
    });
    for source in [Source::Processes, Source::Connections, Source::Names] {
        let report = &machine.collectors.reports()[&source];
        assert_eq!(report.status, Status::Active, "{source}: {report:?}");
    }
    machine.collectors.stop();
    machine.drain();
    let told = machine.seen.iter().filter(|fact| fact.kind != collector_count::KIND).count();
    let counted: u64 = machine.collectors.counts().values().map(|count| count.seen).sum();
    assert_eq!(u64::try_from(told).unwrap(), counted, "the count is made apart from the queue");
}

/// Collectors that run, and every fact they gave.
struct Watched {
    collectors: Collectors,
    facts: Receiver<CollectedFact>,
    seen: Vec<CollectedFact>,
}

impl Watched {
    fn start() -> Option<Self> {
        Self::start_with(CollectorConfig::default())
    }

    /// `None`, and a line that says so, where the kernel does not permit it.
    fn start_with(config: CollectorConfig) -> Option<Self> {
        let (sender, facts) = fact_queue();
        let mut collectors = Collectors::new(config, sender);
        collectors.start();
        // Each reports from its own thread.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !Source::ALL.iter().all(|source| collectors.reports().contains_key(source)) {
            assert!(Instant::now() < deadline, "{:?}", collectors.reports());
            std::thread::yield_now();
        }
        let lacking: Vec<String> = [Source::Processes, Source::Connections, Source::Names]
            .into_iter()
            .filter_map(|source| {
                let report = collectors.reports().remove(&source)?;
                (report.status != Status::Active).then(|| format!("{source}: {}", report.reason))
            })
            .collect();
        if !lacking.is_empty() {
            let all = std::env::var("LAPWING_REQUIRE").is_ok_and(|required| required == "all");
            assert!(!all, "required, but {lacking:?}");
            eprintln!("SKIPPED: {lacking:?}");
            return None;
        }
        let mut machine = Self { collectors, facts, seen: Vec::new() };
        // The first scan is told after the kernel's events are subscribed to.
        machine.wait_for("the first scan", |fact| is_process(fact, std::process::id()));
        Some(machine)
    }

    /// Takes what waits, and answers it.
    fn drain(&mut self) -> Vec<CollectedFact> {
        let taken: Vec<_> = std::iter::from_fn(|| self.facts.try_recv().ok()).collect();
        self.seen.extend(taken.iter().cloned());
        taken
    }

    /// The first fact, past or to come, that is `wanted`.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&CollectedFact) -> bool) -> CollectedFact {
        self.wait_until(what, |seen| seen.iter().any(&wanted));
        self.seen.iter().find(|fact| wanted(fact)).unwrap().clone()
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&[CollectedFact]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.drain();
        while !done(&self.seen) {
            let next = self.next_before(deadline);
            let next = next.unwrap_or_else(|| panic!("{what} not among {} facts", self.seen.len()));
            self.seen.push(next);
            self.drain();
        }
    }

    fn next_before(&self, deadline: Instant) -> Option<CollectedFact> {
        let next = async { self.facts.recv().await.ok() };
        let too_late = async {
            smol::Timer::at(deadline).await;
            None
        };
        smol::block_on(smol::future::or(next, too_late))
    }
}

/// A program nobody has seen before.
struct Program {
    path: PathBuf,
    hash: [u8; 32],
}

impl Program {
    fn copy_of(original: &str, path: &Path) -> Self {
        let mut bytes = std::fs::read(original).unwrap();
        bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
        bytes.extend_from_slice(&std::process::id().to_be_bytes());
        std::fs::write(path, &bytes).unwrap();
        make_executable(path);
        Self { path: path.to_owned(), hash: Sha256::digest(&bytes).into() }
    }
}

/// A label that no other run of these tests looks up. Of fixed length: a shell writes a datagram in
/// two where a length happens to be a line feed.
fn unique(label: &str) -> String {
    format!("{label}-{:08}", std::process::id())
}

/// A question for the address of `label`.example.test.
fn question(label: &str) -> Vec<u8> {
    let mut message = vec![0x51, 0x52, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [label, "example", "test"] {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Waits for one question, and answers it with 127.66.6.6.
fn answer_one(resolver: &UdpSocket) {
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 512];
    let (length, asker) = resolver.recv_from(&mut buffer).unwrap();
    let mut answer = buffer[..length].to_vec();
    answer[2] = 0x81;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 66, 6, 6]);
    resolver.send_to(&answer, asker).unwrap();
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn has(fact: &CollectedFact, feature: Feature, hash: &[u8; 32]) -> bool {
    fact.kind == process::KIND
        && matches!(fact.value(feature), Some(OwnedValue::Hash(seen)) if **seen == hash[..])
}

fn is_process(fact: &CollectedFact, pid: u32) -> bool {
    fact.kind == process::KIND && fact.value(process::pid) == Some(&OwnedValue::U64(pid.into()))
}

fn is_between(fact: &CollectedFact, local: SocketAddr, remote: SocketAddr) -> bool {
    let ends = [
        (connection::local_address, OwnedValue::Ip(local.ip())),
        (connection::local_port, OwnedValue::U64(local.port().into())),
        (connection::remote_address, OwnedValue::Ip(remote.ip())),
        (connection::remote_port, OwnedValue::U64(remote.port().into())),
    ];
    fact.kind == connection::KIND
        && ends.iter().all(|(feature, value)| fact.value(*feature) == Some(value))
}

/// This test's own process, as facts name it.
fn own_reference() -> OwnedValue {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let start_ticks: u64 = after_name.split(' ').nth(19).unwrap().parse().unwrap();
    let mut buffer = [0; 64];
    let values = [Value::U64(std::process::id().into()), Value::U64(start_ticks)];
    let key = write_key(&values, &mut buffer).unwrap();
    OwnedValue::Ref(process::KIND, key.into())
}
