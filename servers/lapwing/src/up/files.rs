//! What the servers of a plan need on disk: authorities, certificates, secrets, configurations.
//!
//! Invariants: authorities, keys and secrets are made once; configurations are written anew at each
//! start, since they follow from the plan; every secret is the owner's alone.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lapwing_net::authority::{Authority, ServedName, Usage};
use lapwing_net::clock;
use lapwing_net::config::TokenDigest;
use lapwing_net::durable_file::{self, Access};
use lapwing_net::hexadecimal::encode;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_protocol::id::{DeploymentId, ServerId};
use lapwing_update::vendor::{self, Source, VendorKey};

use super::data_folder::DataFolder;
use super::plan::{Plan, PlannedServer, SUPERVISOR};

/// How long an authority is valid: ten years.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3_652 * 86_400);
/// How long a server's certificate is valid; what browsers take at the most.
const SERVER_VALIDITY: Duration = Duration::from_secs(397 * 86_400);
/// A certificate older than this is made anew at the next start.
const RENEW_AFTER: Duration = Duration::from_secs(300 * 86_400);

/// How long the vendor's manifest is valid: whoever holds back newer ones is noticed after that.
const MANIFEST_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// A manifest older than this is signed anew, at a start and while `up` runs.
const MANIFEST_RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// Writes everything that `plan` needs below `data` (the folder of `up`).
///
/// # Errors
/// The file that could not be made, and why.
pub fn write_all(data: &Path, plan: &Plan) -> Result<(), String> {
    let data = DataFolder::new(data).map_err(|error| format!("{}: {error}", data.display()))?;
    write(&data, plan)
}

pub(super) fn write(data: &DataFolder, plan: &Plan) -> Result<(), String> {
    let organisation = authority(data, "organisation", plan)?;
    let vendor = authority(data, "vendor", plan)?;
    secrets(data)?;
    let supervisor = plan.named(SUPERVISOR);
    for server in plan.started().into_iter().chain(supervisor) {
        let folder = data.server(&server.name);
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let signer = if is_vendor(server) { &vendor } else { &organisation };
        certificate(&folder, plan, server, signer)?;
        if server.name != SUPERVISOR {
            let kept = own_storage(&data.config(&server.name));
            let text = config(data, plan, server) + &kept;
            put(&data.config(&server.name), text.as_bytes(), Access::Owner)?;
        }
    }
    repository(data)?;
    let sensor = sensor_config(data, plan) + &own_settings(&data.config("sensor"));
    put(&data.config("sensor"), sensor.as_bytes(), Access::Owner)
}

/// What somebody wrote into the sensor's configuration beside what `up` writes: what it collects
/// and how much it keeps, which no plan knows.
fn own_settings(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut kept = toml::from_str::<toml::Table>(&text).unwrap_or_default();
    kept.retain(|name, value| value.is_table() && name != "servers" && name != "enrolment");
    if kept.is_empty() { String::new() } else { format!("\n{kept}") }
}

/// What somebody wrote into a server's configuration about how its stores are kept and backed up,
/// which no plan knows.
fn own_storage(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let known = toml::from_str::<toml::Table>(&text).unwrap_or_default();
    let server = known.get("server").and_then(toml::Value::as_table);
    let mut kept = server.cloned().unwrap_or_default();
    kept.retain(|name, _| name == "store" || name == "backup");
    if kept.is_empty() {
        return String::new();
    }
    let server = toml::Table::from_iter([(String::from("server"), toml::Value::Table(kept))]);
    format!("\n{server}")
}

/// Whether the vendor's root signs it.
pub(super) fn is_vendor(server: &PlannedServer) -> bool {
    server.role == Role::Update.name() || server.role == Role::IntelGlobal.name()
}

fn put(path: &Path, bytes: &[u8], access: Access) -> Result<(), String> {
    durable_file::write(path, bytes, access).map_err(|error| format!("{}: {error}", path.display()))
}

fn authority(data: &DataFolder, name: &str, plan: &Plan) -> Result<Authority, String> {
    let certificate = data.authority(&format!("{name}.pem"));
    let key = data.authority(&format!("{name}-key.pem"));
    if key.exists() && certificate.exists() {
        return Authority::load(&certificate, &key).map_err(|error| error.to_string());
    }
    let short = plan.deployment.get(..8).unwrap_or_default();
    let common_name = format!("Lapwing {name} {short}");
    let made = Authority::create(clock::unix_ms(), &common_name, AUTHORITY_VALIDITY);
    let made = made.map_err(|error| error.to_string())?;
    made.save(&certificate, &key).map_err(|error| error.to_string())?;
    Ok(made)
}

fn certificate(
    folder: &Path,
    plan: &Plan,
    server: &PlannedServer,
    signer: &Authority,
) -> Result<(), String> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let names = served_names(&server.addresses);
    // What the certificate was made for: when that changes it is made anew.
    let made_for = format!("{} {} {} {names:?}\n", plan.deployment, server.role, server.id);
    let note = folder.join("cert.for");
    let is_same = std::fs::read_to_string(&note).is_ok_and(|known| known == made_for);
    if is_same && key.exists() && is_younger(&certificate, RENEW_AFTER) {
        return Ok(());
    }
    let malformed = |_| format!("the plan's ids of {} are malformed", server.name);
    let deployment: DeploymentId = plan.deployment.parse().map_err(malformed)?;
    let id: ServerId = server.id.parse().map_err(malformed)?;
    let role: Role = server.role.parse().map_err(|_| format!("{} is no role", server.role))?;
    let subject = PeerIdentity::of_server(deployment, role, id);
    let leaf = signer
        .issue(clock::unix_ms(), &subject, Usage::Server(&names), SERVER_VALIDITY)
        .map_err(|error| error.to_string())?;
    leaf.save(&certificate, &key).map_err(|error| error.to_string())?;
    put(&note, made_for.as_bytes(), Access::Owner)
}

fn is_younger(file: &Path, than: Duration) -> bool {
    let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < than))
}

/// Where others reach what listens on `address`: "any address" is the one that this machine would
/// send from (nothing is sent to find out).
fn reached_at(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let (from, to) = match address {
        SocketAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        SocketAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let own = std::net::UdpSocket::bind(from).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    SocketAddr::new(
        own.map_or(super::answering::reachable(address).ip(), |own| own.ip()),
        address.port(),
    )
}

/// The addresses it serves on, and localhost where that leads there.
fn served_names(addresses: &[SocketAddr]) -> Vec<ServedName> {
    let reached = addresses.iter().copied().map(reached_at);
    let mut hosts: Vec<IpAddr> =
        addresses.iter().copied().chain(reached).map(|at| at.ip()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let is_local = hosts.iter().any(|host| host.is_loopback() || host.is_unspecified());
    let mut names: Vec<ServedName> = hosts
        .iter()
        .filter(|host| !host.is_unspecified())
        .map(|host| ServedName::Address(*host))
        .collect();
    if is_local {
        names.push(ServedName::Dns(String::from("localhost")));
        let loopback = ServedName::Address(IpAddr::from([127, 0, 0, 1]));
        if !names.contains(&loopback) {
            names.push(loopback);
        }
    }
    names
}

/// Makes the secrets that do not exist yet: API token, enrolment token, and the first password.
fn secrets(data: &DataFolder) -> Result<(), String> {
    let random = |length: usize| {
        let mut bytes = vec![0; length];
        getrandom::fill(&mut bytes)
            .map(|()| encode(&bytes))
            .map_err(|_| String::from("the operating system gives no random bytes"))
    };
    for (name, digest) in
        [("api-token", "api-token.sha256"), ("enrolment-token", "enrolment-tokens.sha256")]
    {
        let path = data.secret(name);
        if !path.exists() {
            put(&path, format!("{}\n", random(32)?).as_bytes(), Access::Owner)?;
        }
        let token = read(&path)?;
        let text = format!("{}\n", TokenDigest::of(&token));
        put(&data.secret(digest), text.as_bytes(), Access::Owner)?;
    }
    // The mark says that the account was made: the password is then the user's own.
    if !data.secret("first-password").exists() && !data.secret("password-told").exists() {
        let password = lapwing_webapp::random_password().map_err(|error| error.to_string())?;
        put(&data.secret("first-password"), password.as_bytes(), Access::Owner)?;
    }
    Ok(())
}

/// Reads a secret without its line end.
pub(super) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn config(data: &DataFolder, plan: &Plan, server: &PlannedServer) -> String {
    let mut text = common(data, plan, server);
    match server.role.as_str() {
        "registration" => text.push_str(&enrolment(data)),
        "detection" => detection(&mut text, data, plan, server),
        "intel-private" => {
            if let Some(global) = plan.address("intel-global") {
                let ca = quoted(&data.authority("vendor.pem"));
                let _ = write!(text, "\n[global]\naddresses = [\"{global}\"]\nca = {ca}\n");
            }
        }
        "update" => update(&mut text, data),
        "malops" | "fleet" => {
            let registration = plan.address("registration").filter(|_| plan.has_registration);
            if let Some(address) = registration {
                let _ = write!(text, "\n[peers]\nregistration = [\"{address}\"]\n");
            }
            consoles(&mut text, plan, Malware::LeftOut);
        }
        "webapp" => webapp(&mut text, data, plan),
        _ => {}
    }
    text
}

fn common(data: &DataFolder, plan: &Plan, server: &PlannedServer) -> String {
    let listen =
        server.addresses.first().map(|address| format!("\"{address}\"")).unwrap_or_default();
    let organisation = quoted(&data.authority("organisation.pem"));
    let vendor = quoted(&data.authority("vendor.pem"));
    let (ca, client_ca) = if is_vendor(server) {
        (vendor, format!("client_ca = [{organisation}]\n"))
    } else {
        (organisation, String::new())
    };
    format!(
        "# Written by `lapwing up` at each start; change the plan (up.toml) or run the server alone.\n\
         # [server.store] and [server.backup] are yours and stay.\n\
         [server]\nrole = \"{role}\"\nname = \"{name}\"\ndata_dir = \"data\"\n\
         deployment = \"{deployment}\"\nlisten = [{listen}]\nmetrics_token_file = {token}\n\n\
         [server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\nca = {ca}\n{client_ca}",
        role = server.role,
        name = server.name,
        deployment = plan.deployment,
        token = quoted(&data.secret("api-token.sha256")),
    )
}

fn enrolment(data: &DataFolder) -> String {
    format!(
        "\n[enrolment]\nca_cert = {}\nca_key = {}\ntokens_file = {}\n",
        quoted(&data.authority("organisation.pem")),
        quoted(&data.authority("organisation-key.pem")),
        quoted(&data.secret("enrolment-tokens.sha256")),
    )
}

fn detection(text: &mut String, data: &DataFolder, plan: &Plan, server: &PlannedServer) {
    let at = |position: usize| {
        server.addresses.get(position).map(SocketAddr::to_string).unwrap_or_default()
    };
    let advertised = server.addresses.first().copied().map(reached_at);
    let advertised = advertised.map(|address| address.to_string()).unwrap_or_default();
    let _ = write!(
        text,
        "\n[detection]\nid = \"{}\"\nconsole_listen = \"{}\"\nmalware_listen = \"{}\"\n\
         advertise = \"{}\"\ncapacity = {}\n",
        server.id,
        at(1),
        at(2),
        advertised,
        server.capacity
    );
    text.push_str("\n[peers]\n");
    if let Some(address) = plan.address("registration").filter(|_| plan.has_registration) {
        let _ = writeln!(text, "registration = [\"{address}\"]");
    }
    if let Some(address) = plan.address("intel-private") {
        let _ = writeln!(text, "intel = [\"{address}\"]");
    }
    if !plan.has_registration {
        text.push_str(&enrolment(data));
    }
}

fn update(text: &mut String, data: &DataFolder) {
    let _ = write!(
        text,
        "\n[repository]\ndir = {}\nvendor_key = {}\n",
        quoted(&data.server("update").join("repository")),
        quoted(&data.authority("vendor-signing.pub")),
    );
}

/// The vendor's side of updates on one machine: a signing key, and a repository that offers the
/// notes of this version. Signed anew when the version changes, and long before the manifest ends.
///
/// # Errors
/// The file that could not be read or written, and why.
pub(super) fn repository(data: &DataFolder) -> Result<(), String> {
    const NOTES: &str = include_str!("../../../../CHANGELOG.md");
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let (secret, public) =
        (data.authority("vendor-signing-key.pem"), data.authority("vendor-signing.pub"));
    let key = if secret.exists() {
        VendorKey::load(&secret).map_err(|error| said(&error))?
    } else {
        let key = VendorKey::create().map_err(|error| said(&error))?;
        key.save(&secret, &public).map_err(|error| said(&error))?;
        key
    };
    let version = env!("CARGO_PKG_VERSION");
    let folder = data.server("update").join("repository");
    let notes = data.server("update").join(format!("release-notes-{version}.md"));
    if notes.exists() && is_younger(&folder.join("targets.json"), MANIFEST_RENEW_AFTER) {
        return Ok(());
    }
    put(&notes, NOTES.as_bytes(), Access::Everyone)?;
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let source = Source {
        path: notes,
        component: String::from("server"),
        os: String::from("any"),
        arch: String::from("any"),
        version: version.to_owned(),
    };
    let validity_ms = u64::try_from(MANIFEST_VALIDITY.as_millis()).unwrap_or(u64::MAX);
    let expires_ms = clock::unix_ms().saturating_add(validity_ms);
    vendor::publish(&key, &folder, expires_ms, &[source]).map(drop).map_err(|error| said(&error))
}

/// Whether a list of Detection servers names their malware ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Malware {
    Named,
    LeftOut,
}

fn consoles(text: &mut String, plan: &Plan, malware: Malware) {
    for server in plan.detections() {
        let [_, console, malware_address] = server.addresses.as_slice() else { continue };
        let _ = write!(
            text,
            "\n[[peers.detection]]\nname = \"{}\"\nconsole = \"{console}\"\n",
            server.name
        );
        if malware == Malware::Named {
            let _ = writeln!(text, "malware = \"{malware_address}\"");
        }
    }
}

fn webapp(text: &mut String, data: &DataFolder, plan: &Plan) {
    let _ = write!(text, "\n[peers]\nvendor_ca = {}\n", quoted(&data.authority("vendor.pem")));
    let peers = [
        ("registration", "registration"),
        ("update", "update"),
        ("intel_private", "intel-private"),
        ("intel_global", "intel-global"),
        ("malops", "malops"),
        ("tagging", "tagging"),
        ("fleet", "fleet"),
        ("supervisor", SUPERVISOR),
    ];
    for (key, name) in peers {
        if name == "registration" && !plan.has_registration {
            continue;
        }
        if let Some(address) = plan.address(name) {
            let _ = writeln!(text, "{key} = \"{address}\"");
        }
    }
    consoles(text, plan, Malware::Named);
    let _ = write!(
        text,
        "\n[first_user]\nname = \"admin\"\npassword_file = {}\napi_token_digest_file = {}\n",
        quoted(&data.secret("first-password")),
        quoted(&data.secret("api-token.sha256")),
    );
}

fn sensor_config(data: &DataFolder, plan: &Plan) -> String {
    let first = plan.detections().into_iter().next();
    let detection = first.and_then(|server| server.addresses.first());
    let servers = match plan.address("registration").filter(|_| plan.has_registration) {
        Some(address) => format!("registration = [\"{address}\"]"),
        None => {
            let address = detection.map(SocketAddr::to_string).unwrap_or_default();
            format!("detection = [\"{address}\"]")
        }
    };
    format!(
        "# Written by `lapwing up` at each start: this machine's own sensor. [collect] and [spool]\n\
         # are yours and stay.\n\
         state_dir = \"state\"\n\n[servers]\n{servers}\nca_file = {}\n\n\
         [enrolment]\ntoken_file = {}\n",
        quoted(&data.authority("organisation.pem")),
        quoted(&data.secret("enrolment-token")),
    )
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}
