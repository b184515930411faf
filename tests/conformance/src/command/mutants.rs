//! `lapwing-conformance mutants`: builds the server or the sensor with one fault after the other
//! and says which of them the cases find.

use std::path::PathBuf;
use std::process::Command;

use argh::FromArgs;
use serde_json::{Value, json};

use super::sensor;
use super::server::{self, Place};
use crate::bench::deployment::{CAPACITY, Deployment};
use crate::bench::mutants::{MUTANTS, SENSOR_MUTANTS};
use crate::cases::{self, Case};
use crate::report::{Report, Verdict};

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
    /// leave out the cases that take longer than ten seconds
    #[argh(switch)]
    quick: bool,
    /// list the mutants and end
    #[argh(switch)]
    list: bool,
}

/// What became of one server.
struct Judged {
    name: String,
    says: String,
    /// The cases that failed.
    found_by: Vec<String>,
}

impl Mutants {
    pub(super) fn run(self) -> Result<bool, String> {
        if self.list {
            self.known()?.iter().for_each(|(name, says)| println!("{name}: {says}"));
            return Ok(true);
        }
        let cases = super::choose(cases::of_role(&self.role), self.cases.as_deref(), self.quick);
        let wanted = self.wanted()?;
        let clean = self.judge(("", "no fault"), &cases)?;
        if !clean.found_by.is_empty() {
            let found_by = clean.found_by.join(", ");
            return Err(format!("the {} without a fault fails: {found_by}", self.role));
        }
        println!("the {} without a fault passes", self.role);
        let (mut judged, mut survived) = (Vec::new(), 0);
        for mutant in &wanted {
            let one = self.judge(*mutant, &cases)?;
            match one.found_by.as_slice() {
                [] => {
                    survived += 1;
                    println!("SURVIVED {}: {}", one.name, one.says);
                }
                [first, ..] => {
                    println!("killed {} by {} ({first})", one.name, one.found_by.len());
                }
            }
            judged.push(one);
        }
        println!("{} of {} mutants killed", judged.len() - survived, judged.len());
        if let Some(file) = &self.report {
            super::write(file, &format!("{:#}\n", table(&judged)))?;
        }
        Ok(survived == 0)
    }

    fn known(&self) -> Result<&'static [(&'static str, &'static str)], String> {
        match self.role.as_str() {
            "server" => Ok(MUTANTS),
            "sensor" => Ok(SENSOR_MUTANTS),
            other => Err(format!("--role: `{other}` is neither server nor sensor")),
        }
    }

    fn wanted(&self) -> Result<Vec<(&'static str, &'static str)>, String> {
        let known = self.known()?;
        let Some(only) = &self.only else { return Ok(known.to_vec()) };
        let find = |name: &str| {
            let found = known.iter().find(|(known, _)| *known == name).copied();
            found.ok_or_else(|| format!("`{name}` is no mutant; --list names them"))
        };
        only.split(',').map(find).collect()
    }

    fn judge(&self, (name, says): (&str, &str), cases: &[Case]) -> Result<Judged, String> {
        let program = match &self.server {
            Some(program) => program.clone(),
            None => self.build(name)?,
        };
        let command = format!("env LAPWING_MUTANT={name} '{}'", program.display());
        let report = match self.role.as_str() {
            "sensor" => sensor::hold(command, cases, 8, None, |_| {}),
            _ => against_server(&command, cases)?,
        };
        let failed = report.cases.into_iter().filter(|case| case.verdict == Verdict::Fail);
        let found_by = failed.map(|case| case.name).collect();
        Ok(Judged { name: name.into(), says: says.into(), found_by })
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
fn against_server(command: &str, cases: &[Case]) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let made = Deployment::create(folder.path())?;
    let place = Place {
        console: Some(made.console),
        identities: Some(made.lent()),
        capacity: Some(CAPACITY),
        server_cmd: Some(format!("{command} '{}'", made.config().display())),
        ..Place::of(made.sensors, made.folder.join("ca.pem"), made.token.clone())
    };
    server::hold(place, cases, 8, None, |_| {})
}

fn table(judged: &[Judged]) -> Value {
    let rows = judged.iter().map(|one| {
        json!({
            "mutant": one.name,
            "says": one.says,
            "killed": !one.found_by.is_empty(),
            "by": one.found_by,
        })
    });
    Value::Array(rows.collect())
}
