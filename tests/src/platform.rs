//! The whole platform on this machine, for a test: `lapwing up` in a folder of its own.
//!
//! Everything goes through the commands that people use: the ready file, `lapwing ctl`, the
//! metrics. A platform ends with its test: SIGTERM first, SIGKILL where that does not help.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::wait;

/// How long the platform may take to be ready, a debug build on a busy machine included.
const READY: Duration = Duration::from_secs(120);
/// How long anything that a journey waits for may take: a bound for failing, not a promise.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A platform that runs. Two of them would see each other's processes: there is one at a time.
pub struct Platform {
    _turn: MutexGuard<'static, ()>,
    child: Child,
    folder: tempfile::TempDir,
    ready: Value,
}

/// The `lapwing` binary, built once for all tests of this run; or the one that `LAPWING_BINARY`
/// names, so that a test can lead a build of another profile.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(other) = std::env::var_os("LAPWING_BINARY") {
            return other.into();
        }
        // target/PROFILE/deps/this-test
        let test = std::env::current_exe().expect("a test has a file");
        let profile = test.parent().and_then(Path::parent).expect("it lies in deps");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "lapwing", "--target-dir"]);
        build.arg(profile.parent().expect("a target folder"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "lapwing does not build");
        profile.join("lapwing")
    })
}

impl Platform {
    /// Starts a platform with `arguments` for `lapwing up`, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; its output is printed.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self::start_in(folder, arguments)
    }

    /// As [`Self::start`], with `LAPWING_FAULT` in its environment: a fault point of a debug build.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with_fault(fault: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self::start_as(folder, arguments, Some(fault))
    }

    /// As [`Self::start`], over the data of an earlier platform.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        Self::start_as(folder, arguments, None)
    }

    fn start_as(folder: tempfile::TempDir, arguments: &[&str], fault: Option<&str>) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (ready_file, output) = (folder.path().join("ready.json"), folder.path().join("output"));
        let _ = std::fs::remove_file(&ready_file);
        let file = std::fs::File::create(&output).expect("a file for its output");
        let error = file.try_clone().expect("the same file");
        let mut child = Command::new(binary())
            .args(["up", "--bind", "127.0.0.1", "--data"])
            .arg(folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(arguments)
            .envs(fault.map(|fault| ("LAPWING_FAULT", fault)))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(error)
            .spawn()
            .expect("lapwing starts");
        let ready = wait::until("the ready file", READY, || {
            if let Ok(Some(status)) = child.try_wait() {
                let said = std::fs::read_to_string(&output).unwrap_or_default();
                panic!("lapwing up ended with {status}:\n{said}");
            }
            let text = std::fs::read(&ready_file).ok()?;
            serde_json::from_slice(&text).ok()
        });
        Self { _turn: turn, child, folder, ready }
    }

    /// The ready file as it is now.
    #[must_use]
    pub fn ready(&self) -> Value {
        let text = std::fs::read(self.ready_file()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|_| self.ready.clone())
    }

    /// Where the ready file is.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// The test's own folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `lapwing ctl` with `arguments`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ctl_output(&self, arguments: &[&str]) -> Output {
        let mut ctl = Command::new(binary());
        ctl.args(["ctl", "--ready-file"]).arg(self.ready_file()).args(arguments);
        ctl.output().expect("lapwing ctl runs")
    }

    /// What `lapwing ctl ... --json` answers; `None` when it fails.
    pub fn try_ctl(&self, arguments: &[&str]) -> Option<Value> {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.ctl_output(&with_json);
        if !output.status.success() {
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What `lapwing ctl ... --json` answers.
    ///
    /// # Panics
    /// When it fails; with what it said.
    pub fn ctl(&self, arguments: &[&str]) -> Value {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.ctl_output(&with_json);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lapwing ctl {arguments:?}: {}\n{said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("lapwing ctl {arguments:?} answers {error}: {}", show(&output.stdout))
        })
    }

    /// The rows of a list that `lapwing ctl ... --json` answers.
    ///
    /// # Panics
    /// As [`Self::ctl`], or when the answer is no list.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        self.ctl(arguments).as_array().cloned().unwrap_or_else(|| {
            panic!("lapwing ctl {arguments:?} answers no list");
        })
    }

    /// Waits until this machine's sensor is Online, and gives its row.
    pub fn sensor_online(&self) -> Value {
        wait::until("the sensor to be Online", PATIENCE, || {
            let rows = self.try_ctl(&["sensors", "list"])?;
            rows.as_array()?.iter().find(|row| row["status"] == "Online").cloned()
        })
    }

    /// The sum of a counter of one server, over its labels that contain `label`.
    ///
    /// # Panics
    /// When the metrics cannot be read.
    pub fn metric(&self, server: &str, name: &str, label: &str) -> f64 {
        self.try_metric(server, name, label)
            .unwrap_or_else(|| panic!("the metrics of {server} cannot be read"))
    }

    /// As [`Self::metric`]; `None` while the server does not answer.
    ///
    /// # Panics
    /// When the ready file names no such server.
    pub fn try_metric(&self, server: &str, name: &str, label: &str) -> Option<f64> {
        let ready = self.ready();
        let url = ready["metrics"][server].as_str().unwrap_or_else(|| {
            panic!("the ready file names no metrics of {server}: {}", ready["metrics"]);
        });
        let token = ready["api_token"].as_str().unwrap_or_default();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure", "--header"])
            .arg(format!("Authorization: Bearer {token}"))
            .arg(url)
            .output()
            .expect("curl runs");
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Ends the platform as an operator does, and gives its folder for a later start.
    ///
    /// # Panics
    /// When it does not end with 0.
    #[must_use]
    pub fn stop(mut self) -> tempfile::TempDir {
        signal(self.child.id(), "TERM");
        let child = &mut self.child;
        let status =
            wait::until("the platform to end", PATIENCE, || child.try_wait().ok().flatten());
        assert!(status.success(), "lapwing up ended with {status}");
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("another folder"))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_some() {
            return;
        }
        if std::thread::panicking() {
            let output = std::fs::read(self.folder.path().join("output")).unwrap_or_default();
            eprintln!("--- output of lapwing up:\n{}", show(&output));
            print_logs(&self.folder.path().join("data/logs"));
        }
        signal(self.child.id(), "TERM");
        for _ in 0..1_000 {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            wait::a_moment();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print_logs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        let text = show(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(15);
        eprintln!("--- {}:\n{}", entry.path().display(), lines[last..].join("\n"));
    }
}

/// A copy of a program that nobody has seen before, and its SHA-256.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn fresh_program(folder: &Path, name: &str, original: &str) -> (PathBuf, String) {
    use std::fmt::Write as _;
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    let mut bytes = std::fs::read(original).expect("the original");
    let unique = format!("{:?}{}", Instant::now(), path.display());
    bytes.extend_from_slice(&Sha256::digest(unique.as_bytes())[..16]);
    std::fs::write(&path, &bytes).expect("a copy");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it may run");
    let hash = Sha256::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    (path, hash)
}

/// Whether the sensor may see what a journey needs; says SKIPPED where not.
///
/// # Panics
/// When it may not and `LAPWING_REQUIRE=all`.
#[must_use]
pub fn may_see(test: &str) -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    let is_root = output.stdout.trim_ascii() == b"0";
    if !is_root {
        let reason = "it needs root: the sensor sees short-lived programs only then";
        crate::house::require::skip(test, reason);
    }
    is_root
}

/// Sends a signal by its name to a process of this test.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
