//! `lapwing-conformance mutants`: builds the server or the sensor with one fault after the other
//! and says which of them the cases find.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use argh::FromArgs;
use serde_json::{Value, json};

use super::sensor;
use super::server::{self, Place};
use crate::bench::deployment::{CAPACITY, Deployment};
use crate::bench::mutants::{MUTANTS, SENSOR_MUTANTS, SLOW_MUTANTS};
use crate::cases::{self, Case};
use crate::report::{Report, Verdict};
use crate::run::Pace;

/// Builds this workspace's Detection server, or with `--role sensor` its sensor, with one fault
/// after the other and holds the cases against each: a fault that no case finds survives, and
/// fails the run. The one without a fault comes first, and must pass.
#[derive(FromArgs)]
#[argh(subcommand, name = "mutants")]
pub(super) struct Mutants {
    /// the workspace (default: the current folder)
    #[argh(option, default = "PathBuf::from(\".\")")]
    workspace: PathBuf,
    /// where it is built (default: target/mutants in the workspace)
    #[argh(option)]
    target_dir: Option<PathBuf>,
    /// only these mutants, separated by commas
    #[argh(option)]
    only: Option<String>,
    /// only these cases, as for `server`
    #[argh(option)]
    cases: Option<String>,
    /// a program that takes its mutant from LAPWING_MUTANT when it is started, instead of one build
    /// for each
    #[argh(option)]
    server: Option<PathBuf>,
    /// what is built: server or sensor (default server)
    #[argh(option, default = "String::from(\"server\")")]
    role: String,
    /// write the table as JSON here
    #[argh(option)]
    report: Option<PathBuf>,
    /// begin no more cases once one has failed
    #[argh(switch)]
    first: bool,
    /// leave out the cases that take longer than ten seconds
    #[argh(switch)]
    quick: bool,
    /// list the mutants and end
    #[argh(switch)]
    list: bool,
}

/// Cases at once.
const JOBS: usize = 8;

/// A program with one fault, built.
struct Built {
    mutant: Mutant,
    program: PathBuf,
    took: Duration,
}

/// Name, and what is wrong; the name is empty where nothing is.
type Mutant = (&'static str, &'static str);

/// What became of one server.
struct Judged {
    mutant: Mutant,
    /// The cases that failed, and those that were weak where the one without a fault was not.
    found_by: Vec<String>,
    /// The cases that were weak.
    weak: Vec<String>,
    built: Duration,
    took: Duration,
}

impl Mutants {
    pub(super) fn run(self) -> Result<bool, String> {
        if self.list {
            self.known()?.iter().for_each(|(name, says)| println!("{name}: {says}"));
            return Ok(true);
        }
        let mut wanted = vec![("", "no fault")];
        wanted.extend(self.wanted()?);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (mut judged, mut weak) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            // One is built while the one before it is judged: the cases wait more than they work.
            let (give, take) = mpsc::sync_channel(0);
            let (this, folder, ahead) = (&self, folder.path(), wanted.clone());
            scope.spawn(move || {
                let built = ahead.into_iter().map(|mutant| this.program(mutant, folder));
                built.map(|built| give.send(built)).take_while(Result::is_ok).for_each(drop);
            });
            for built in take {
                let built = built?;
                let mut one = self.judge(&built)?;
                if one.mutant.0.is_empty() {
                    weak = std::mem::take(&mut one.weak);
                }
                one.weak.retain(|case| !weak.contains(case));
                one.found_by.append(&mut one.weak);
                one.tell();
                if self.server.is_none() {
                    // One of them is tens of megabytes.
                    drop(std::fs::remove_file(&built.program));
                }
                if one.mutant.0.is_empty() && !one.found_by.is_empty() {
                    let found_by = one.found_by.join(", ");
                    return Err(format!("the {} without a fault fails: {found_by}", self.role));
                }
                judged.push(one);
            }
            Ok(())
        })?;
        judged.remove(0);
        let killed = judged.iter().filter(|one| !one.found_by.is_empty()).count();
        println!("{killed} of {} mutants killed", judged.len());
        if let Some(file) = &self.report {
            super::write(file, &format!("{:#}\n", table(&judged)))?;
        }
        Ok(killed == judged.len())
    }

    fn known(&self) -> Result<&'static [Mutant], String> {
        match self.role.as_str() {
            "server" => Ok(MUTANTS),
            "sensor" => Ok(SENSOR_MUTANTS),
            other => Err(format!("--role: `{other}` is neither server nor sensor")),
        }
    }

    fn wanted(&self) -> Result<Vec<Mutant>, String> {
        let known = self.known()?;
        let Some(only) = &self.only else { return Ok(known.to_vec()) };
        let find = |name: &str| {
            let found = known.iter().find(|(known, _)| *known == name).copied();
            found.ok_or_else(|| format!("`{name}` is no mutant; --list names them"))
        };
        only.split(',').map(find).collect()
    }

    /// The cases for one of them: those that wait long only for whom nothing else shows.
    fn cases(&self, (name, _): Mutant) -> Vec<Case> {
        let is_slow = SLOW_MUTANTS.contains(&name);
        super::choose(cases::of_role(&self.role), self.cases.as_deref(), self.quick || !is_slow)
    }

    fn judge(&self, built: &Built) -> Result<Judged, String> {
        let Built { mutant, program, took } = built;
        let (begun, cases) = (Instant::now(), self.cases(*mutant));
        let command = format!("env LAPWING_MUTANT={} '{}'", mutant.0, program.display());
        let pace = Pace { jobs: JOBS, is_over_at_a_fail: self.first };
        let report = match self.role.as_str() {
            "sensor" => sensor::hold(command, &cases, pace, None, |_| {}),
            _ => against_server(&command, &cases, pace)?,
        };
        let of = |verdict| {
            let cases = report.cases.iter().filter(move |case| case.verdict == verdict);
            cases.map(|case| case.name.clone()).collect()
        };
        let (found_by, weak) = (of(Verdict::Fail), of(Verdict::Weak));
        Ok(Judged { mutant: *mutant, found_by, weak, built: *took, took: begun.elapsed() })
    }

    /// The program with that fault, in a file that the next build leaves alone.
    fn program(&self, mutant: Mutant, folder: &Path) -> Result<Built, String> {
        let begun = Instant::now();
        let program = match &self.server {
            Some(program) => program.clone(),
            None => {
                let (built, own) = (self.build(mutant.0)?, folder.join(format!("of-{}", mutant.0)));
                let copied = std::fs::copy(&built, &own);
                copied.map_err(|error| format!("{}: {error}", own.display()))?;
                own
            }
        };
        Ok(Built { mutant, program, took: begun.elapsed() })
    }

    /// Builds the program with that fault: of the workspace only our own crates are built again.
    fn build(&self, name: &str) -> Result<PathBuf, String> {
        let (package, example) = match self.role.as_str() {
            "sensor" => ("lapwing-sensor-os", "shim"),
            _ => ("lapwing-detection", "detection"),
        };
        let target = match &self.target_dir {
            Some(target) => target.clone(),
            None => self.workspace.join("target/mutants"),
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--package", package, "--example", example])
            .arg("--target-dir")
            .arg(&target)
            .env("LAPWING_MUTANT", name)
            .current_dir(&self.workspace)
            .status()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the {} with the mutant `{name}` does not build", self.role));
        }
        let built = target.join("debug/examples").join(example);
        built.canonicalize().map_err(|error| format!("{}: {error}", built.display()))
    }
}

/// A deployment of its own for a server that takes its configuration file as its last argument.
fn against_server(command: &str, cases: &[Case], pace: Pace) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let made = Deployment::create(folder.path())?;
    let place = Place {
        console: Some(made.console),
        identities: Some(made.lent()),
        capacity: Some(CAPACITY),
        server_cmd: Some(format!("{command} '{}'", made.config().display())),
        narrow_cmd: Some(format!("{command} '{}'", made.narrow().display())),
        backed_cmd: Some(format!("{command} '{}'", made.backed().display())),
        ..Place::of(made.sensors, made.folder.join("ca.pem"), made.token.clone())
    };
    server::hold(place, cases, pace, None, |_| {})
}

impl Judged {
    fn tell(&self) {
        let (name, says) = self.mutant;
        let seconds = format!("built in {:.0?}, judged in {:.0?}", self.built, self.took);
        match (name, self.found_by.as_slice()) {
            ("", []) => println!("without a fault it passes; {seconds}"),
            ("", _) => {}
            (_, []) => println!("SURVIVED {name}: {says}; {seconds}"),
            (_, [first, ..]) => {
                println!("killed {name} by {} ({first}); {seconds}", self.found_by.len());
            }
        }
    }
}

fn table(judged: &[Judged]) -> Value {
    let rows = judged.iter().map(|one| {
        json!({
            "mutant": one.mutant.0,
            "says": one.mutant.1,
            "killed": !one.found_by.is_empty(),
            "by": one.found_by,
        })
    });
    Value::Array(rows.collect())
}
