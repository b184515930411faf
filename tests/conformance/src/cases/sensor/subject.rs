//! The sensor under test: a command, started, fed, killed and started again.
//!
//! Invariant: nothing of it outlives this value; what it says is kept in a file for whoever asks
//! why it failed. What a command must understand is in docs/conformance.md.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::play::link::PATIENCE;
use crate::play::wait;

/// The variable that names the sensor's folder.
pub const STATE: &str = "LAPWING_STATE";
/// Files that do not change for as long will not change any more.
const STILL: Duration = Duration::from_secs(2);

/// Files, each with its inode, its length and when it was changed.
pub type Files = BTreeMap<PathBuf, (u64, u64, SystemTime)>;

/// The sensor under test.
pub struct Subject {
    command: String,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    running: Option<(Child, ChildStdin)>,
}

impl Subject {
    /// One that is not started. Its files go into `folder`.
    #[must_use]
    pub fn new(command: &str, folder: &Path, environment: Vec<(&'static str, String)>) -> Self {
        let log = folder.join("sensor.log");
        Self { command: command.into(), environment, log, running: None }
    }

    /// From the next start on a variable of its environment has another value, or none.
    pub fn set(&mut self, name: &'static str, value: Option<&str>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.extend(value.map(|value| (name, value.to_owned())));
    }

    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self) -> Result<(), String> {
        self.kill();
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec env {}", self.command)])
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("--cmd `{}`: {error}", self.command))?;
        let input = child.stdin.take().ok_or("the sensor has no standard input")?;
        self.running = Some((child, input));
        Ok(())
    }

    /// Asks it for `count` facts.
    pub fn event(&mut self, count: u64) {
        self.tell(&format!("event {count}"));
    }

    /// A line on its standard input. One that has ended is found by what does not come.
    fn tell(&mut self, line: &str) {
        if let Some((_, input)) = &mut self.running {
            let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        }
    }

    /// Ends it with -9, and whatever it started.
    pub fn kill(&mut self) {
        let Some((mut child, _)) = self.running.take() else { return };
        let group = format!("kill -9 -{}", child.id());
        let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Ends it with -9 as soon as its files have changed `count` times since `before`, or no longer
    /// change.
    pub fn kill_at_change(&mut self, mut before: Files, count: u64) {
        for _ in 0..count {
            let changed = || Some(self.files()).filter(|now| *now != before);
            let Some(now) = wait::spin(STILL, changed) else { break };
            before = now;
        }
        // At once; what else belongs to it can wait.
        if let Some((child, _)) = &mut self.running {
            let _ = child.kill();
        }
        self.kill();
    }

    /// Waits until its files change no more, or for so long that it will never be.
    pub fn rest(&self) {
        let (mut last, mut since) = (self.files(), Instant::now());
        let is_still = || {
            let now = self.files();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() >= STILL).then_some(())
        };
        let _ = wait::attempt(PATIENCE, is_still);
    }

    /// What its folder holds now.
    #[must_use]
    pub fn files(&self) -> Files {
        let state = self.environment.iter().find(|(name, _)| *name == STATE);
        let mut folders: Vec<PathBuf> = state.map(|(_, path)| path.into()).into_iter().collect();
        let mut found = Files::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(about) = entry.metadata() else { continue };
                if about.is_dir() {
                    folders.push(entry.path());
                } else {
                    let at = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.insert(entry.path(), (about.ino(), about.len(), at));
                }
            }
        }
        found
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&mut self) -> Result<(), String> {
        self.tell("stop");
        let Some((child, _)) = &mut self.running else { return Err("it does not run".into()) };
        let ended = wait::attempt(PATIENCE, || child.try_wait().ok().flatten());
        ended.ok_or_else(|| format!("`stop` was asked, and it runs after {PATIENCE:?}"))?;
        self.running = None;
        Ok(())
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<String> {
        let (child, _) = self.running.as_mut()?;
        let status = child.try_wait().ok().flatten()?;
        Some(format!("the sensor ended ({status})"))
    }

    /// The last lines that it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.kill();
    }
}
