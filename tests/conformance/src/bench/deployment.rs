//! A deployment in a folder: an authority, a Detection server's certificate and configuration, a
//! token, and certificates of every role and of none.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::crypto::authority::{Authority, Usage};
use crate::crypto::identity::{Credentials, Identity, hex};

/// Sensors that the server takes: few enough to be filled.
pub const CAPACITY: usize = 64;
const DEPLOYMENT: [u8; 16] = [0xd0; 16];
const SERVER: [u8; 16] = [0x0d; 16];

/// Where everything is.
pub struct Deployment {
    /// The folder.
    pub folder: PathBuf,
    /// Where sensors connect and enrol.
    pub sensors: SocketAddr,
    /// Where the console is.
    pub console: SocketAddr,
    /// The enrolment token.
    pub token: String,
}

impl Deployment {
    /// Makes one in `folder`, which exists and is empty, on free ports of the loopback address.
    ///
    /// # Errors
    /// What could not be made, and where.
    pub fn create(folder: &Path) -> Result<Self, String> {
        let folder = folder
            .canonicalize()
            .map_err(|error| format!("{}: {error}; make the folder first", folder.display()))?;
        let authority = Authority::create("conformance").map_err(|error| error.to_string())?;
        let token = hex(&Sha256::digest(&authority.certificate_der)[..16]);
        let [sensors, console, malware] = free_ports()?;
        let this = Self { folder, sensors, console, token };
        this.write("ca.pem", &authority.certificate_pem)?;
        this.write("ca-key.pem", &authority.key_pem)?;
        let digest = hex(&Sha256::digest(this.token.as_bytes()));
        this.write("tokens.sha256", &digest)?;
        this.write("token", &this.token)?;
        let own = issue(&authority, &[uri("detection", SERVER)], Usage::Server)?;
        this.save("d1", &own)?;
        this.write("detection.toml", &this.configuration(malware, ""))?;
        let narrow = "in_flight_max = \"64KiB\"\n";
        this.write("narrow.toml", &this.configuration(malware, narrow))?;
        let backed = this.configuration(malware, "");
        this.write("backed.toml", &format!("{backed}\n[server.backup]\nfolder = \"backup\"\n"))?;
        this.identities(&authority)?;
        this.save("identities/server", &own)?;
        Ok(this)
    }

    /// The server's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("detection.toml")
    }

    /// The configuration of the same server with the least room for what is on its way to the disk.
    #[must_use]
    pub fn narrow(&self) -> PathBuf {
        self.folder.join("narrow.toml")
    }

    /// The configuration of the same server with a folder for backups.
    #[must_use]
    pub fn backed(&self) -> PathBuf {
        self.folder.join("backed.toml")
    }

    /// The folder of certificates of other roles, and of the server itself.
    #[must_use]
    pub fn lent(&self) -> PathBuf {
        self.folder.join("identities")
    }

    fn configuration(&self, malware: SocketAddr, room: &str) -> String {
        let Self { sensors, console, .. } = self;
        let (deployment, server) = (hex(&DEPLOYMENT), hex(&SERVER));
        format!(
            "[server]\nrole = \"detection\"\nname = \"d1\"\ndata_dir = \"data\"\n\
             deployment = \"{deployment}\"\nlisten = [\"{sensors}\"]\nlog_level = \"error\"\n\n\
             [server.tls]\ncert = \"d1.pem\"\nkey = \"d1-key.pem\"\nca = \"ca.pem\"\n\n\
             [detection]\nid = \"{server}\"\nconsole_listen = \"{console}\"\n\
             malware_listen = \"{malware}\"\ncapacity = {CAPACITY}\n{room}\n\
             [enrolment]\nca_cert = \"ca.pem\"\nca_key = \"ca-key.pem\"\n\
             tokens_file = \"tokens.sha256\"\n"
        )
    }

    /// Certificates that no sensor has: of every other role, of nobody, of two sensors, of another
    /// deployment, of a time that is over; and two keys for one sensor.
    fn identities(&self, authority: &Authority) -> Result<(), String> {
        fs::create_dir_all(self.lent()).map_err(|error| error.to_string())?;
        let roles = ["registration", "detection", "update", "webapp", "malops", "fleet", "ctl"];
        for (role, number) in roles.into_iter().zip(1..) {
            let usage = if role == "ctl" { Usage::Client } else { Usage::Server };
            let credentials = issue(authority, &[uri(role, [number; 16])], usage)?;
            self.save(&format!("identities/{role}"), &credentials)?;
        }
        let other = Identity { deployment: [0xd1; 16], role: "sensor".into(), id: [0xa3; 16] };
        let other = issue(authority, &[other.to_string()], Usage::Client)?;
        self.save("identities/other-deployment", &other)?;
        let uris = [uri("sensor", [0xa4; 16])];
        let expired = authority.expired(&uris, Usage::Client).map_err(|error| error.to_string())?;
        self.save("identities/expired", &expired)?;
        for name in ["sensor", "sensor-twin"] {
            let same = issue(authority, &[uri("sensor", [0xa5; 16])], Usage::Client)?;
            self.save(&format!("identities/{name}"), &same)?;
        }
        let nobody = issue(authority, &[], Usage::Client)?;
        self.save("identities/nobody", &nobody)?;
        let two = [uri("sensor", [0xa1; 16]), uri("sensor", [0xa2; 16])];
        self.save("identities/two", &issue(authority, &two, Usage::Client)?)
    }

    fn save(&self, name: &str, credentials: &Credentials) -> Result<(), String> {
        self.write(&format!("{name}-key.pem"), &credentials.key_pem)?;
        self.write(&format!("{name}.pem"), &credentials.certificate_pem)
    }

    /// Every file with mode 0600: some are keys, and none is of interest to others.
    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

fn uri(role: &str, id: [u8; 16]) -> String {
    Identity { deployment: DEPLOYMENT, role: role.into(), id }.to_string()
}

fn issue(authority: &Authority, uris: &[String], usage: Usage) -> Result<Credentials, String> {
    authority.issue(uris, usage).map_err(|error| error.to_string())
}

/// Below those that a system gives by itself, so that neither a connection nor a listener of
/// somebody else takes one while the server is not there.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Three ports that were free a moment ago. They stay the same over restarts, so they cannot be
/// left to the server. Each run begins to look elsewhere.
fn free_ports() -> Result<[SocketAddr; 3], String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance = Sha256::digest(format!("{} {}", since.as_nanos(), std::process::id()));
    let begin = usize::from(u16::from_le_bytes([chance[0], chance[1]])) % PORTS.len();
    let ports = PORTS.cycle().skip(begin).take(PORTS.len());
    let held = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(3);
    let held: Vec<TcpListener> = held.collect();
    let addresses = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|error| error.to_string())?;
    addresses.try_into().map_err(|_| String::from("no free ports"))
}
