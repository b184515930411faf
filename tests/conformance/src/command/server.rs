//! `lapwing-conformance server`: plays sensors against a server.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use argh::FromArgs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::cases::server::context::{Context, Target};
use crate::cases::server::process::{ByCommand, Process, Started};
use crate::cases::{self, Case, Run, Stop};
use crate::crypto::identity::Credentials;
use crate::crypto::tls;
use crate::report::{CaseReport, Report};
use crate::run::{self, Outcome, Pace};

/// Plays sensors against a Detection (and Registration) server.
#[derive(FromArgs)]
#[argh(subcommand, name = "server")]
pub(super) struct Server {
    /// where sensors connect, address:port
    #[argh(option)]
    addr: Option<String>,
    /// the authority that signed the server, PEM
    #[argh(option)]
    ca: Option<PathBuf>,
    /// the enrolment token; each case enrols a sensor of its own
    #[argh(option)]
    token: Option<String>,
    /// where sensors enrol, where that is another server
    #[argh(option)]
    enrol_addr: Option<String>,
    /// a Registration server, to be looked at as well
    #[argh(option)]
    registration: Option<String>,
    /// the console of the Detection server: what was stored is then looked at
    #[argh(option)]
    console: Option<String>,
    /// a folder of certificates of other roles: ctl.pem with ctl-key.pem, and so on
    #[argh(option)]
    identities: Option<PathBuf>,
    /// how many sensors the server takes: it is then filled
    #[argh(option)]
    capacity: Option<usize>,
    /// a command that is the server: it is started, killed and started again
    #[argh(option)]
    server_cmd: Option<String>,
    /// the same command, with as little room for what is on its way to the disk as may be: the
    /// server is then overloaded
    #[argh(option)]
    narrow_cmd: Option<String>,
    /// the same command, with a folder for backups: with the server's own certificate in the folder
    /// of identities, as server.pem, it is then backed up
    #[argh(option)]
    backed_cmd: Option<String>,
    /// a command that kills the running server with -9 and starts it again
    #[argh(option)]
    restart_cmd: Option<String>,
    /// write the report as JSON here, and as a page beside it
    #[argh(option)]
    report: Option<PathBuf>,
    /// write the report as a page here
    #[argh(option)]
    html: Option<PathBuf>,
    /// only cases with this in their name, or of this requirement; several with commas
    #[argh(option)]
    only: Option<String>,
    /// leave out the cases that take longer than ten seconds
    #[argh(switch)]
    quick: bool,
    /// cases at once (default 8)
    #[argh(option, default = "8")]
    jobs: usize,
    /// where chance begins; said in the report
    #[argh(option)]
    seed: Option<u64>,
    /// list the cases and end
    #[argh(switch)]
    list: bool,
}

/// A server, and what is lent for looking at it, as the command line names them.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) ca: PathBuf,
    pub(super) token: String,
    pub(super) enrolment: Option<SocketAddr>,
    pub(super) registration: Option<SocketAddr>,
    pub(super) console: Option<SocketAddr>,
    pub(super) identities: Option<PathBuf>,
    pub(super) capacity: Option<usize>,
    pub(super) server_cmd: Option<String>,
    pub(super) narrow_cmd: Option<String>,
    pub(super) backed_cmd: Option<String>,
    pub(super) restart_cmd: Option<String>,
}

impl Server {
    pub(super) fn run(self) -> Result<bool, String> {
        let cases = super::choose(cases::of_role("server"), self.only.as_deref(), self.quick);
        if self.list {
            super::list(&cases);
            return Ok(true);
        }
        if cases.is_empty() {
            return Err("no case fits --only; --list names them".into());
        }
        let pace = Pace { jobs: self.jobs, is_over_at_a_fail: false };
        let report = hold(self.place()?, &cases, pace, self.seed, super::tell)?;
        super::finish(&report, self.report.as_deref(), self.html.as_deref())
    }

    fn place(&self) -> Result<Place, String> {
        let optional = |name, value: &Option<String>| {
            value.as_deref().map(|value| resolve(name, value)).transpose()
        };
        let address = optional("--addr", &self.addr)?.ok_or("--addr is missing")?;
        let ca = self.ca.clone().ok_or("--ca is missing: the file of the server's authority")?;
        let token = self.token.clone().ok_or("--token is missing: the enrolment token")?;
        Ok(Place {
            enrolment: optional("--enrol-addr", &self.enrol_addr)?,
            registration: optional("--registration", &self.registration)?,
            console: optional("--console", &self.console)?,
            identities: self.identities.clone(),
            capacity: self.capacity,
            server_cmd: self.server_cmd.clone(),
            narrow_cmd: self.narrow_cmd.clone(),
            backed_cmd: self.backed_cmd.clone(),
            restart_cmd: self.restart_cmd.clone(),
            ..Place::of(address, ca, token)
        })
    }
}

/// Holds `cases` against the server; `tell` hears of each as it ends.
pub(super) fn hold(
    place: Place,
    cases: &[Case],
    pace: Pace,
    seed: Option<u64>,
    tell: impl Fn(&CaseReport) + Sync,
) -> Result<Report, String> {
    let target = place.target(seed)?;
    let (begun, started_ms) = (Instant::now(), now_ms());
    let done = run::run(cases, pace, |case| one(case, &target), tell);
    Ok(Report {
        role: "server".into(),
        target: target.address.to_string(),
        seed: target.seed,
        started_ms,
        took: begun.elapsed(),
        cases: done,
    })
}

impl Place {
    /// A server about which nothing more is known.
    pub(super) fn of(address: SocketAddr, ca: PathBuf, token: String) -> Self {
        Self {
            address,
            ca,
            token,
            enrolment: None,
            registration: None,
            console: None,
            identities: None,
            capacity: None,
            server_cmd: None,
            narrow_cmd: None,
            backed_cmd: None,
            restart_cmd: None,
        }
    }

    fn target(self, seed: Option<u64>) -> Result<Target, String> {
        let Self { address, ca, .. } = self;
        let authority = certificate(&ca)?;
        let roots = tls::roots(&authority).map_err(|error| format!("{}: {error}", ca.display()))?;
        let process: Option<Box<dyn Process>> = match (self.server_cmd, self.restart_cmd) {
            (Some(command), _) => {
                let others = (self.narrow_cmd, self.backed_cmd);
                Some(Box::new(Started::start(&command, others, address)?))
            }
            (None, Some(command)) => Some(Box::new(ByCommand { command, address })),
            (None, None) => None,
        };
        Ok(Target {
            address,
            enrolment: self.enrolment.unwrap_or(address),
            registration: self.registration,
            console: self.console,
            roots,
            authority,
            token: self.token,
            identities: self.identities.as_deref().map_or(Ok(Vec::new()), identities)?,
            capacity: self.capacity,
            process,
            seed: seed.unwrap_or_else(now_ms),
        })
    }
}

fn one(case: &Case, target: &Target) -> Outcome {
    let mut context = Context::new(target, case.name);
    let Run::Server(run) = case.run else {
        let ended = Err(Stop::Skip("this is a case against sensors".into()));
        return Outcome { ended, weak: Vec::new() };
    };
    let ended = run(&mut context);
    Outcome { ended, weak: context.weak }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn resolve(name: &str, text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| format!("{name}: `{text}` is not address:port"))
}

fn certificate(file: &Path) -> Result<Vec<u8>, String> {
    let found = CertificateDer::from_pem_file(file);
    found.map(|found| found.to_vec()).map_err(|error| {
        format!("{}: {error}; name a file with a certificate in PEM", file.display())
    })
}

/// Each NAME.pem that has a NAME-key.pem.
fn identities(folder: &Path) -> Result<Vec<(String, Credentials)>, String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| format!("--identities {}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(name) = name.strip_suffix(".pem").filter(|name| !name.ends_with("-key")) else {
            continue;
        };
        let key = folder.join(format!("{name}-key.pem"));
        if !key.exists() {
            continue;
        }
        let key = PrivatePkcs8KeyDer::from_pem_file(&key)
            .map_err(|error| format!("{}: {error}", key.display()))?;
        found.push((
            name.to_owned(),
            Credentials {
                certificate: certificate(&path)?,
                certificate_pem: String::new(),
                key: key.secret_pkcs8_der().to_vec(),
                key_pem: String::new(),
            },
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
