//! Which servers there are, with their ids, addresses and capacities; kept in DATA/up.toml.
//!
//! Not here: certificates and configurations (`files`). Invariant: what was chosen once stays, so
//! that sensors and scripts find everything where it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use lapwing_net::durable_file::{self, Access};
use lapwing_net::hexadecimal::encode;
use lapwing_net::identity::Role;
use serde::{Deserialize, Serialize};

use super::{Options, Ports, Wanted};

/// The capacity of a Detection server where none is named.
const CAPACITY: u32 = 10_000;

/// Everything that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The installation, 32 hexadecimal digits.
    pub deployment: String,
    /// The address that servers listen on.
    pub bind: IpAddr,
    /// Whether there is a Registration server in this run.
    #[serde(skip)]
    pub has_registration: bool,
    /// Every server that was ever started here; those of this run first.
    pub server: Vec<PlannedServer>,
    /// How many of the Detection servers run.
    pub detections: usize,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedServer {
    /// Its name, unique.
    pub name: String,
    /// Its role's name.
    pub role: String,
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Its addresses: one, and of a Detection server sensor, console and malware.
    pub addresses: Vec<SocketAddr>,
    /// Sensors it may take; 0 where the role takes none.
    #[serde(default)]
    pub capacity: u32,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum PlanError {
    /// DATA/up.toml cannot be read or written.
    File(String),
    /// An address cannot be listened on.
    Address(String),
    /// The machine gives no random bytes.
    NoRandomness,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(text) | Self::Address(text) => f.write_str(text),
            Self::NoRandomness => f.write_str("the operating system gives no random bytes"),
        }
    }
}

impl std::error::Error for PlanError {}

/// The servers of which there is one each, in the order in which they are started.
const SINGLE: [Role; 8] = [
    Role::Registration,
    Role::IntelGlobal,
    Role::IntelPrivate,
    Role::Update,
    Role::Malops,
    Role::Tagging,
    Role::Fleet,
    Role::Webapp,
];

/// The name under which the supervisor itself has an address.
pub const SUPERVISOR: &str = "supervisor";

impl Plan {
    /// Reads the plan at `path`, makes what is missing, and writes it back.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn make(path: &Path, options: &Options) -> Result<Self, PlanError> {
        let mut plan = Self::read(path)?.map_or_else(|| Self::empty(options), Ok)?;
        plan.bind_to(options)?;
        plan.has_registration = options.registration == Wanted::Yes;
        let mut chooser = Chooser { ports: options.ports, bind: plan.bind, held: Vec::new() };
        for role in SINGLE {
            plan.add(role.name(), role.name(), 1, &mut chooser)?;
        }
        plan.add(SUPERVISOR, Role::Ctl.name(), 1, &mut chooser)?;
        if let Some(capacities) = &options.capacities {
            plan.detections = capacities.len();
        }
        for number in 1..=plan.detections {
            plan.add(&format!("d{number}"), Role::Detection.name(), 3, &mut chooser)?;
        }
        let capacities = options.capacities.iter().flatten();
        for (number, capacity) in (1..).zip(capacities) {
            let name = format!("d{number}");
            for server in plan.server.iter_mut().filter(|server| server.name == name) {
                server.capacity = *capacity;
            }
        }
        plan.write(path)?;
        Ok(plan)
    }

    fn empty(options: &Options) -> Result<Self, PlanError> {
        Ok(Self {
            deployment: random_id()?,
            bind: options.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            has_registration: true,
            server: Vec::new(),
            detections: 1,
        })
    }

    fn read(path: &Path) -> Result<Option<Self>, PlanError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(PlanError::File(format!("{}: {error}", path.display()))),
        };
        let read = toml::from_str(&text).map_err(|error| {
            let remedy = "restore the file; without it the servers would get other ids and ports";
            PlanError::File(format!("{}: {}; {remedy}", path.display(), error.message()))
        });
        read.map(Some)
    }

    fn write(&self, path: &Path) -> Result<(), PlanError> {
        let failed = |text: String| PlanError::File(format!("{}: {text}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(error.to_string()))?;
        let text = format!("# What `lapwing up` chose at its first start. Keep it.\n{text}");
        durable_file::write(path, text.as_bytes(), Access::Owner)
            .map_err(|error| failed(error.to_string()))
    }

    /// Moves to another address, or to the reference ports, where that is asked for.
    fn bind_to(&mut self, options: &Options) -> Result<(), PlanError> {
        let is_reference = |server: &PlannedServer| {
            server.addresses.iter().all(|address| [443, 8443, 7075].contains(&address.port()))
        };
        let has_other_ports = match options.ports {
            Ports::Reference => !self.server.iter().all(is_reference),
            Ports::Free => self.server.iter().any(is_reference),
        };
        if has_other_ports {
            self.server.iter_mut().for_each(|server| server.addresses.clear());
        }
        let Some(bind) = options.bind.filter(|bind| *bind != self.bind) else { return Ok(()) };
        self.bind = bind;
        for address in self.server.iter_mut().flat_map(|server| &mut server.addresses) {
            *address = SocketAddr::new(bind, address.port());
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        role: &str,
        ports: usize,
        chooser: &mut Chooser,
    ) -> Result<(), PlanError> {
        let position = match self.server.iter().position(|server| server.name == name) {
            Some(position) => position,
            None => {
                self.server.push(PlannedServer {
                    name: name.to_owned(),
                    role: role.to_owned(),
                    id: random_id()?,
                    addresses: Vec::new(),
                    capacity: if role == Role::Detection.name() { CAPACITY } else { 0 },
                });
                self.server.len() - 1
            }
        };
        let host = u8::try_from(position + 1).unwrap_or(u8::MAX);
        let server = &mut self.server[position];
        if server.addresses.len() != ports {
            server.addresses = chooser.choose(host, ports)?;
        }
        Ok(())
    }

    /// The server of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&PlannedServer> {
        self.server.iter().find(|server| server.name == name)
    }

    /// The first address of the server of that name.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.named(name).and_then(|server| server.addresses.first().copied())
    }

    /// The Detection servers of this run.
    #[must_use]
    pub fn detections(&self) -> Vec<&PlannedServer> {
        let is_running = |number: usize| (1..=self.detections).contains(&number);
        let number_of = |server: &PlannedServer| {
            server.name.strip_prefix('d').and_then(|number| number.parse::<usize>().ok())
        };
        let detections = self.server.iter().filter(|server| server.role == "detection");
        detections.filter(|server| number_of(server).is_some_and(is_running)).collect()
    }

    /// The servers of this run, in the order in which they are started.
    #[must_use]
    pub fn started(&self) -> Vec<&PlannedServer> {
        let mut started: Vec<&PlannedServer> = Vec::new();
        for role in SINGLE {
            if role == Role::Registration && !self.has_registration {
                continue;
            }
            if role == Role::Malops {
                started.extend(self.detections());
            }
            started.extend(self.named(role.name()));
        }
        started
    }

    /// Says which address of this run is taken by somebody else.
    ///
    /// # Errors
    /// The server, the address and what to do.
    pub fn check_ports(&self) -> Result<(), PlanError> {
        let supervisor = self.named(SUPERVISOR);
        for server in self.started().into_iter().chain(supervisor) {
            for address in &server.addresses {
                TcpListener::bind(address)
                    .map_err(|error| taken(&server.name, *address, &error))?;
            }
        }
        Ok(())
    }
}

fn taken(name: &str, address: SocketAddr, error: &std::io::Error) -> PlanError {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another process listens there; stop it (`ss -ltnp` names it), or change the port of \
             this server in DATA/up.toml"
        }
        std::io::ErrorKind::PermissionDenied => {
            "this user may not listen there; leave --default-ports out, or start as root"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address; name another with --bind ADDR"
        }
        _ => "name another address with --bind ADDR",
    };
    PlanError::Address(format!("{name} cannot listen on {address}: {error}; {remedy}"))
}

/// Chooses addresses that are free, and holds them until all are chosen.
struct Chooser {
    ports: Ports,
    bind: IpAddr,
    held: Vec<TcpListener>,
}

impl Chooser {
    fn choose(&mut self, host: u8, count: usize) -> Result<Vec<SocketAddr>, PlanError> {
        if self.ports == Ports::Reference {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, host));
            let ports = [443, 8443, 7075].into_iter().take(count);
            return Ok(ports.map(|port| SocketAddr::new(address, port)).collect());
        }
        let mut chosen = Vec::new();
        for _ in 0..count {
            let wanted = SocketAddr::new(self.bind, 0);
            let listener =
                TcpListener::bind(wanted).map_err(|error| taken("a server", wanted, &error))?;
            chosen.push(listener.local_addr().map_err(|error| taken("a server", wanted, &error))?);
            self.held.push(listener);
        }
        Ok(chosen)
    }
}

fn random_id() -> Result<String, PlanError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| PlanError::NoRandomness)?;
    Ok(encode(&id))
}
