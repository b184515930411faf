//! `lapwing-conformance mutants`: builds the server with one fault after the other and says which
//! of them the cases find.

use std::path::PathBuf;
use std::process::Command;

use argh::FromArgs;
use serde_json::{Value, json};

use super::server::{self, Place};
use crate::bench::deployment::{CAPACITY, Deployment};
use crate::bench::mutants::MUTANTS;
use crate::cases::{self, Case};
use crate::report::Verdict;

/// Builds this workspace's Detection server with one fault after the other and holds the cases
/// against each: a fault that no case finds survives, and fails the run. The server without a fault
/// comes first, and must pass.
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
    /// a server that takes its mutant from LAPWING_MUTANT when it is started, instead of one build
    /// for each
    #[argh(option)]
    server: Option<PathBuf>,
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
            MUTANTS.iter().for_each(|(name, says)| println!("{name}: {says}"));
            return Ok(true);
        }
        let cases = super::choose(cases::of_role("server"), self.cases.as_deref(), self.quick);
        let wanted = self.wanted()?;
        let clean = self.judge(("", "no fault"), &cases)?;
        if !clean.found_by.is_empty() {
            return Err(format!("the server without a fault fails: {}", clean.found_by.join(", ")));
        }
        println!("the server without a fault passes");
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

    fn wanted(&self) -> Result<Vec<(&'static str, &'static str)>, String> {
        let Some(only) = &self.only else { return Ok(MUTANTS.to_vec()) };
        let find = |name: &str| {
            let found = MUTANTS.iter().find(|(known, _)| *known == name).copied();
            found.ok_or_else(|| format!("`{name}` is no mutant; --list names them"))
        };
        only.split(',').map(find).collect()
    }

    fn judge(&self, (name, says): (&str, &str), cases: &[Case]) -> Result<Judged, String> {
        let server = match &self.server {
            Some(server) => server.clone(),
            None => self.build(name)?,
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let made = Deployment::create(folder.path())?;
        let command = format!(
            "env LAPWING_MUTANT={name} '{}' '{}'",
            server.display(),
            made.config().display()
        );
        let place = Place {
            console: Some(made.console),
            identities: Some(made.lent()),
            capacity: Some(CAPACITY),
            server_cmd: Some(command),
            ..Place::of(made.sensors, made.folder.join("ca.pem"), made.token.clone())
        };
        let report = server::hold(place, cases, 8, None, |_| {})?;
        let failed = report.cases.into_iter().filter(|case| case.verdict == Verdict::Fail);
        let found_by = failed.map(|case| case.name).collect();
        Ok(Judged { name: name.into(), says: says.into(), found_by })
    }

    /// Builds the server with that fault: of the workspace only our own crates are built again.
    fn build(&self, name: &str) -> Result<PathBuf, String> {
        let target = match &self.target_dir {
            Some(target) => target.clone(),
            None => self.workspace.join("target/mutants"),
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--package", "lapwing-detection", "--example", "detection"])
            .arg("--target-dir")
            .arg(&target)
            .env("LAPWING_MUTANT", name)
            .current_dir(&self.workspace)
            .status()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the server with the mutant `{name}` does not build"));
        }
        let built = target.join("debug/examples/detection");
        built.canonicalize().map_err(|error| format!("{}: {error}", built.display()))
    }
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
