//! Nouns and verbs, as argh reads them.

use std::path::PathBuf;

use argh::FromArgs;

use super::nouns;

/// Ask and steer a running platform.
///
/// Without --ready-file or --server it speaks to the one that `lapwing up` runs on this machine.
/// Exit codes: 0 done, 1 failed, 2 bad usage, 3 partial answer, 4 refused, 5 unreachable.
#[derive(FromArgs)]
pub(super) struct Ctl {
    /// the file that `lapwing up --ready-file` wrote
    #[argh(option, arg_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// the WebApp's address, such as https://192.0.2.1:443
    #[argh(option, arg_name = "URL")]
    pub(super) server: Option<String>,
    /// with --server: a file with an API token
    #[argh(option, arg_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// with --server: the organisation's CA, PEM
    #[argh(option, arg_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// JSON for scripts instead of a table for people; may stand anywhere
    #[argh(switch)]
    pub(super) json: bool,
    #[argh(subcommand)]
    pub(super) noun: Noun,
}

#[derive(FromArgs)]
#[argh(subcommand)]
#[allow(dead_code, reason = "a noun of which no verb is there yet is told by its variant alone")]
pub(super) enum Noun {
    Sensors(nouns::Sensors),
    Servers(nouns::Servers),
    Malops(nouns::Malops),
    Suspicions(nouns::Suspicions),
    Malware(nouns::Malware),
    Elements(nouns::Elements),
    Events(nouns::Events),
    Reputation(nouns::Reputation),
    Rules(nouns::Rules),
    Updates(nouns::Updates),
    Tags(nouns::Tags),
    Policies(nouns::Policies),
    Audit(nouns::Audit),
    Users(nouns::Users),
    Tokens(nouns::Tokens),
    Packages(nouns::Packages),
    Ledger(nouns::Ledger),
}
