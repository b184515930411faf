//! Each noun's verbs, and those that are not there yet.
//!
//! Invariant: a verb that is not there yet takes any arguments, so that it can say so.

#![allow(dead_code, reason = "a verb without arguments is told by its variant alone")]

use argh::FromArgs;

use super::arguments::Noun;

/// A noun with its verbs: a struct for the noun and an enum of its verbs.
macro_rules! nouns {
    ($(
        $(#[$doc:meta])*
        $noun:ident, $verbs:ident = $text:literal { $($verb:ident($kind:ident),)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = $text)]
        pub(super) struct $noun {
            #[argh(subcommand)]
            pub(super) verb: $verbs,
        }

        #[derive(FromArgs)]
        #[argh(subcommand)]
        pub(super) enum $verbs {
            $($verb($kind),)*
        }
    )*};
}

/// Verbs without arguments.
macro_rules! bare {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = $text)]
        pub(super) struct $name {}
    )*};
}

/// Verbs that are not there yet.
macro_rules! later {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = $text)]
        pub(super) struct $name {
            #[argh(positional, greedy)]
            arguments: Vec<String>,
        }
    )*};
}

nouns! {
    /// Sensors: list, show, start and stop collection.
    Sensors, SensorsVerb = "sensors" {
        List(SensorsList), Show(SensorsShow), Start(SensorsStart), Stop(SensorsStop),
        Restart(SensorsRestart), Isolate(SensorsIsolate), Unisolate(SensorsUnisolate),
        Upgrade(SensorsUpgrade), Archive(SensorsArchive), Move(SensorsMove), Revoke(SensorsRevoke),
    }
    /// Servers: list, drain, stop, start, set capacity.
    Servers, ServersVerb = "servers" {
        List(ServersList), Drain(ServersDrain), Undrain(ServersUndrain), Stop(ServersStop),
        Start(ServersStart), Set(ServersSet),
    }
    /// MalOps: list and follow, show, move on, comment.
    Malops, MalopsVerb = "malops" {
        List(MalopsList), Show(MalopsShow), Status(MalopsStatus), Comment(MalopsComment),
    }
    /// Suspicions: evidence that is suspicious by itself.
    Suspicions, SuspicionsVerb = "suspicions" { List(SuspicionsList), }
    /// Malware alerts, read from the Detection servers' malware ports.
    Malware, MalwareVerb = "malware" { List(MalwareList), }
    /// Elements: ask in the query language.
    Elements, ElementsVerb = "elements" { Query(ElementsQuery), }
    /// Events: export every stored fact once.
    Events, EventsVerb = "events" { Export(EventsExport), }
    /// Reputations: the organisation's blocklist and allowlist.
    Reputation, ReputationVerb = "reputation" {
        Add(ReputationAdd), Remove(ReputationRemove), List(ReputationList),
        Classify(ReputationClassify), Import(ReputationImport), Export(ReputationExport),
    }
    /// Detection rules (not there yet).
    Rules, RulesVerb = "rules" {
        List(RulesList), Load(RulesLoad), Test(RulesTest), Enable(RulesEnable),
        Disable(RulesDisable),
    }
    /// Updates that the vendor offers.
    Updates, UpdatesVerb = "updates" {
        List(UpdatesList), Pull(UpdatesPull), Approve(UpdatesApprove), Deploy(UpdatesDeploy),
    }
    /// Tags of machines.
    Tags, TagsVerb = "tags" { Set(TagsSet), Get(TagsGet), }
    /// Policies of sensors (not there yet).
    Policies, PoliciesVerb = "policies" {
        List(PoliciesList), Show(PoliciesShow), Set(PoliciesSet),
    }
    /// The audit log.
    Audit, AuditVerb = "audit" { List(AuditList), }
    /// Users of the page.
    Users, UsersVerb = "users" { List(UsersList), ResetPassword(UsersResetPassword), }
    /// API tokens.
    Tokens, TokensVerb = "tokens" {
        List(TokensList), Revoke(TokensRevoke), Create(TokensCreate),
    }
    /// Installation packages (not there yet).
    Packages, PackagesVerb = "packages" { Build(PackagesBuild), }
}

bare! {
    /// Every sensor, with status, collection and collectors.
    SensorsList = "list";
    /// Every server, with status, process, capacity and load.
    ServersList = "list";
    /// Every target of the vendor's manifest. Nothing is pulled by looking.
    UpdatesList = "list";
    /// Every user.
    UsersList = "list";
    /// Every API token, without its secret.
    TokensList = "list";
}

later! {
    /// Restart a sensor (not there yet).
    SensorsRestart = "restart";
    /// Isolate a machine (not there yet).
    SensorsIsolate = "isolate";
    /// Lift an isolation (not there yet).
    SensorsUnisolate = "unisolate";
    /// Upgrade a sensor (not there yet).
    SensorsUpgrade = "upgrade";
    /// Archive a sensor (not there yet).
    SensorsArchive = "archive";
    /// Move a sensor to another server (not there yet).
    SensorsMove = "move";
    /// Revoke a sensor's certificate (not there yet).
    SensorsRevoke = "revoke";
    /// Import a list of reputations (not there yet).
    ReputationImport = "import";
    /// Export the lists (not there yet).
    ReputationExport = "export";
    /// List rules (not there yet).
    RulesList = "list";
    /// Load rules from a folder (not there yet).
    RulesLoad = "load";
    /// Test rules (not there yet).
    RulesTest = "test";
    /// Enable a rule (not there yet).
    RulesEnable = "enable";
    /// Disable a rule (not there yet).
    RulesDisable = "disable";
    /// Pull an update (not there yet).
    UpdatesPull = "pull";
    /// Approve an update (not there yet).
    UpdatesApprove = "approve";
    /// Deploy an update (not there yet).
    UpdatesDeploy = "deploy";
    /// List policies (not there yet).
    PoliciesList = "list";
    /// Show a policy (not there yet).
    PoliciesShow = "show";
    /// Set a policy (not there yet).
    PoliciesSet = "set";
    /// Create an enrolment or API token (not there yet).
    TokensCreate = "create";
    /// Build an installation package (not there yet).
    PackagesBuild = "build";
}

/// Verbs on one thing that is named.
macro_rules! on_one {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $argument:literal;)*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = $text)]
        pub(super) struct $name {
            /// which one
            #[argh(positional, arg_name = $argument)]
            pub(super) id: String,
        }
    )*};
}

on_one! {
    /// One sensor, by id or by its machine's name.
    SensorsShow = "show", "SENSOR";
    /// Assign a Detection server no more sensors; those it has stay.
    ServersDrain = "drain", "NAME";
    /// Assign a Detection server sensors again.
    ServersUndrain = "undrain", "NAME";
    /// Start a server that was stopped.
    ServersStart = "start", "NAME";
    /// One MalOp with its evidence and comments.
    MalopsShow = "show", "MALOP";
    /// Give a user a new random password, which must be changed at the next login.
    UsersResetPassword = "reset-password", "USER";
    /// End an API token for good.
    TokensRevoke = "revoke", "ID";
}

/// Start collection on sensors.
#[derive(FromArgs)]
#[argh(subcommand, name = "start")]
pub(super) struct SensorsStart {
    /// ids or machines' names; may be left out where there is one sensor
    #[argh(positional, arg_name = "SENSOR")]
    pub(super) sensors: Vec<String>,
    /// seconds to wait for the outcome (default 20)
    #[argh(option, default = "20", arg_name = "SECONDS")]
    pub(super) wait: u64,
}

/// Stop collection on sensors; they stay connected.
#[derive(FromArgs)]
#[argh(subcommand, name = "stop")]
pub(super) struct SensorsStop {
    /// ids or machines' names; may be left out where there is one sensor
    #[argh(positional, arg_name = "SENSOR")]
    pub(super) sensors: Vec<String>,
    /// seconds to wait for the outcome (default 20)
    #[argh(option, default = "20", arg_name = "SECONDS")]
    pub(super) wait: u64,
}

/// Stop a server; it stays stopped until it is started.
#[derive(FromArgs)]
#[argh(subcommand, name = "stop")]
pub(super) struct ServersStop {
    /// its name
    #[argh(positional, arg_name = "NAME")]
    pub(super) id: String,
    /// at once, as a power cut would
    #[argh(switch)]
    pub(super) kill: bool,
}

/// Change a Detection server.
#[derive(FromArgs)]
#[argh(subcommand, name = "set")]
pub(super) struct ServersSet {
    /// its name
    #[argh(positional, arg_name = "NAME")]
    pub(super) id: String,
    /// sensors it may take
    #[argh(option, arg_name = "N")]
    pub(super) capacity: u32,
}

/// MalOps, the last changed first, each with its evidence.
#[derive(FromArgs)]
#[argh(subcommand, name = "list")]
pub(super) struct MalopsList {
    /// only of this status, such as new, under_investigation or closed
    #[argh(option, arg_name = "STATUS")]
    pub(super) status: Option<String>,
    /// at the most (default 100)
    #[argh(option, default = "100", arg_name = "N")]
    pub(super) limit: u32,
    /// stay, and write each change as it comes, one object a line
    #[argh(switch)]
    pub(super) follow: bool,
}

/// Move a MalOp on.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
pub(super) struct MalopsStatus {
    /// which one
    #[argh(positional, arg_name = "MALOP")]
    pub(super) id: String,
    /// new, under_investigation, on_hold, remediated, closed, excluded or reopened
    #[argh(positional, arg_name = "STATUS")]
    pub(super) status: String,
}

/// Say something about a MalOp.
#[derive(FromArgs)]
#[argh(subcommand, name = "comment")]
pub(super) struct MalopsComment {
    /// which one
    #[argh(positional, arg_name = "MALOP")]
    pub(super) id: String,
    /// what
    #[argh(positional, arg_name = "TEXT")]
    pub(super) text: String,
}

/// Lists with a limit.
macro_rules! limited {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = "list")]
        pub(super) struct $name {
            /// at the most (default 100)
            #[argh(option, default = "100", arg_name = "N")]
            pub(super) limit: u32,
        }
    )*};
}

limited! {
    /// Suspicions, the newest first.
    SuspicionsList;
    /// Malware alerts, the newest first.
    MalwareList;
    /// Who did what, the newest first.
    AuditList;
}

/// Ask every Detection server; for example: 'process where name = curl -> parent'.
#[derive(FromArgs)]
#[argh(subcommand, name = "query")]
pub(super) struct ElementsQuery {
    /// the question, in the query language (docs/query.md)
    #[argh(positional, arg_name = "EXPR")]
    pub(super) expression: Vec<String>,
    /// rows at the most (default 1000)
    #[argh(option, arg_name = "N")]
    pub(super) limit: Option<u32>,
}

/// Every stored fact once, merged over servers, one JSON object a line.
#[derive(FromArgs)]
#[argh(subcommand, name = "export")]
pub(super) struct EventsExport {
    /// only of this sensor, by id or machine's name
    #[argh(option, arg_name = "SENSOR")]
    pub(super) sensor: Option<String>,
}

/// Put a hash, address or domain on the blocklist or the allowlist.
#[derive(FromArgs)]
#[argh(subcommand, name = "add")]
pub(super) struct ReputationAdd {
    /// a file's SHA-256, SHA-1 or MD5
    #[argh(option, arg_name = "HASH")]
    pub(super) hash: Option<String>,
    /// an IPv4 or IPv6 address
    #[argh(option, arg_name = "ADDRESS")]
    pub(super) ip: Option<String>,
    /// a domain
    #[argh(option, arg_name = "DOMAIN")]
    pub(super) domain: Option<String>,
    /// on the blocklist
    #[argh(switch)]
    pub(super) block: bool,
    /// on the allowlist
    #[argh(switch)]
    pub(super) allow: bool,
    /// why, for whoever reads it later
    #[argh(option, default = "String::new()", arg_name = "TEXT")]
    pub(super) comment: String,
}

/// Take a hash, address or domain off its list.
#[derive(FromArgs)]
#[argh(subcommand, name = "remove")]
pub(super) struct ReputationRemove {
    /// a file's SHA-256, SHA-1 or MD5
    #[argh(option, arg_name = "HASH")]
    pub(super) hash: Option<String>,
    /// an IPv4 or IPv6 address
    #[argh(option, arg_name = "ADDRESS")]
    pub(super) ip: Option<String>,
    /// a domain
    #[argh(option, arg_name = "DOMAIN")]
    pub(super) domain: Option<String>,
}

/// The lists.
#[derive(FromArgs)]
#[argh(subcommand, name = "list")]
pub(super) struct ReputationList {
    /// entries to skip
    #[argh(option, default = "0", arg_name = "N")]
    pub(super) offset: u32,
    /// entries at the most (default 1000)
    #[argh(option, default = "1000", arg_name = "N")]
    pub(super) limit: u32,
}

/// What intel says of a hash, address or domain.
#[derive(FromArgs)]
#[argh(subcommand, name = "classify")]
pub(super) struct ReputationClassify {
    /// a file's SHA-256, SHA-1 or MD5
    #[argh(option, arg_name = "HASH")]
    pub(super) hash: Option<String>,
    /// an IPv4 or IPv6 address
    #[argh(option, arg_name = "ADDRESS")]
    pub(super) ip: Option<String>,
    /// a domain
    #[argh(option, arg_name = "DOMAIN")]
    pub(super) domain: Option<String>,
    /// ask the shared intel alone
    #[argh(switch)]
    pub(super) global: bool,
}

/// Put a tag on a machine; without a value it is taken off.
#[derive(FromArgs)]
#[argh(subcommand, name = "set")]
pub(super) struct TagsSet {
    /// the sensor's id or its machine's name
    #[argh(positional, arg_name = "SENSOR")]
    pub(super) sensor: String,
    /// the tag, such as department
    #[argh(positional, arg_name = "NAME")]
    pub(super) name: String,
    /// its value
    #[argh(positional, arg_name = "VALUE")]
    pub(super) value: Option<String>,
}

/// Tags of one machine, or of all.
#[derive(FromArgs)]
#[argh(subcommand, name = "get")]
pub(super) struct TagsGet {
    /// the sensor's id or its machine's name
    #[argh(positional, arg_name = "SENSOR")]
    pub(super) sensor: Option<String>,
}

/// What became of every fact, for each sensor and lane.
#[derive(FromArgs)]
#[argh(subcommand, name = "ledger")]
pub(super) struct Ledger {
    /// read every journal, recompute the chains, and name the first chunk that is not as it was;
    /// exit 1 where there is one
    #[argh(switch)]
    pub(super) verify: bool,
    /// only of this sensor, by id or machine's name
    #[argh(option, arg_name = "SENSOR")]
    pub(super) sensor: Option<String>,
}

/// What to say of a verb that is not there yet; `None` for one that is.
pub(super) fn not_there_yet(noun: &Noun) -> Option<String> {
    let (verb, instead) = match noun {
        Noun::Sensors(sensors) => sensors_later(&sensors.verb)?,
        Noun::Reputation(reputation) => match reputation.verb {
            ReputationVerb::Import(_) => {
                ("reputation import", "`reputation add`, once for each entry")
            }
            ReputationVerb::Export(_) => ("reputation export", "`reputation list --json`"),
            _ => return None,
        },
        Noun::Rules(_) => ("rules", "`reputation add`: blocked hashes, addresses and domains"),
        Noun::Updates(updates) => match updates.verb {
            UpdatesVerb::List(_) => return None,
            UpdatesVerb::Pull(_) => ("updates pull", "`updates list`"),
            UpdatesVerb::Approve(_) => ("updates approve", "`updates list`"),
            UpdatesVerb::Deploy(_) => ("updates deploy", "`updates list`"),
        },
        Noun::Policies(_) => ("policies", "each sensor's configuration file"),
        Noun::Tokens(tokens) => match tokens.verb {
            TokensVerb::Create(_) => {
                ("tokens create", "the tokens that `lapwing up` writes to its ready file")
            }
            _ => return None,
        },
        Noun::Packages(_) => {
            ("packages build", "`lapwing-sensor enrol` with the token of the ready file")
        }
        _ => return None,
    };
    Some(format!("`lapwing ctl {verb}` is not there yet; what works instead: {instead}"))
}

fn sensors_later(verb: &SensorsVerb) -> Option<(&'static str, &'static str)> {
    Some(match verb {
        SensorsVerb::Restart(_) => ("sensors restart", "restart its service on the machine"),
        SensorsVerb::Isolate(_) => ("sensors isolate", "the machine's own firewall"),
        SensorsVerb::Unisolate(_) => ("sensors unisolate", "the machine's own firewall"),
        SensorsVerb::Upgrade(_) => ("sensors upgrade", "install the new version on the machine"),
        SensorsVerb::Archive(_) => ("sensors archive", "`sensors stop`"),
        SensorsVerb::Move(_) => {
            ("sensors move", "`servers stop` its server: its sensors go to the others")
        }
        SensorsVerb::Revoke(_) => ("sensors revoke", "`sensors stop`"),
        SensorsVerb::List(_)
        | SensorsVerb::Show(_)
        | SensorsVerb::Start(_)
        | SensorsVerb::Stop(_) => return None,
    })
}
