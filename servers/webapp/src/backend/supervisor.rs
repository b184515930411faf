//! Questions to the supervisor, and the list of servers put together from all who know.

use lapwing_protocol::call::Method;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::ServerStatus;
use lapwing_protocol::supervision::{ChildChange, ChildState, ChildView, ChildWish};

use super::{Backend, BackendError, Peer, join_all, nothing, role};
use crate::limits::{STATUS_TIME, SUPERVISOR_TIME};
use crate::view::{ServerLine, Time, owned};

impl Backend {
    /// Stops, kills or starts a supervised server.
    pub(crate) async fn change_child(
        &self,
        name: &str,
        wish: ChildWish,
    ) -> Result<(), BackendError> {
        let request = ChildChange { name, wish };
        self.ask_within(Peer::Supervisor, Method::CHILD_CHANGE, &request, SUPERVISOR_TIME, nothing)
            .await
    }

    /// Every server: what it says of itself, what Registration says of it, and what the supervisor
    /// says of its process.
    pub(crate) async fn servers(&self) -> Vec<ServerLine> {
        let peers = self.transport.peers().into_iter();
        let asked: Vec<_> = peers
            .filter(|(peer, _)| !matches!(peer, Peer::Malware(_) | Peer::Supervisor))
            .collect();
        let statuses = join_all(asked.iter().map(|(peer, name)| self.status_of(*peer, name)));
        let registered = async {
            if self.has(Peer::Registration) { self.registered_servers().await.ok() } else { None }
        };
        let (mut lines, registered) = smol::future::zip(statuses, registered).await;
        for known in registered.unwrap_or_default() {
            match lines.iter_mut().find(|line| line.name == known.name) {
                Some(line) => join_registered(line, known),
                None => lines.push(known),
            }
        }
        for child in self.children().await.unwrap_or_default() {
            join_child(&mut lines, child);
        }
        lines
    }

    async fn status_of(&self, peer: Peer, name: &str) -> ServerLine {
        let empty = ServerLine {
            name: name.to_owned(),
            role: role(peer).map_or_else(String::new, |role| role.name().to_owned()),
            ..ServerLine::default()
        };
        let read = |reply: &[u8]| {
            let status = from_bytes::<ServerStatus<'_>>(reply)?;
            Ok(ServerLine {
                id: status.server.to_string(),
                status: String::from("up"),
                pid: Some(status.pid),
                version: status.version.to_owned(),
                started: Time::known(status.started_ms),
                trouble: status.trouble.to_owned(),
                ..empty.clone()
            })
        };
        let asked = self.ask_bytes(peer, Method::STATUS, Vec::new(), STATUS_TIME, read).await;
        asked.unwrap_or_else(|error| ServerLine {
            status: String::from("unreachable"),
            trouble: error.message,
            ..empty
        })
    }

    async fn children(&self) -> Result<Vec<ServerLine>, BackendError> {
        if !self.has(Peer::Supervisor) {
            return Ok(Vec::new());
        }
        self.ask_bytes(Peer::Supervisor, Method::CHILDREN, Vec::new(), STATUS_TIME, |reply| {
            owned(&Items::<ChildView<'_>>::from_bytes(reply), |child| Ok(child_line(child)))
        })
        .await
    }
}

fn join_registered(line: &mut ServerLine, known: ServerLine) {
    // A server that answers is not dead, whatever Registration last heard; but it may be draining.
    if line.status == "up" && known.status == "draining" {
        line.status = known.status;
    }
    line.capacity = known.capacity;
    line.sensors = known.sensors;
    line.assigned = known.assigned;
    line.load = known.load;
    line.address = known.address;
    if line.version.is_empty() {
        line.version = known.version;
    }
    if line.id.is_empty() {
        line.id = known.id;
    }
}

fn child_line(child: ChildView<'_>) -> ServerLine {
    ServerLine {
        name: child.name.to_owned(),
        role: child.role.map_or_else(|| String::from("sensor"), |role| role.name().to_owned()),
        status: String::from(match child.state {
            ChildState::Running => "up",
            ChildState::Starting | ChildState::Waiting => "starting",
            ChildState::Stopped => "stopped",
        }),
        pid: child.pid,
        starts: Some(child.starts),
        trouble: match child.state {
            ChildState::Waiting => child.ending.to_owned(),
            ChildState::Running | ChildState::Starting | ChildState::Stopped => String::new(),
        },
        ..ServerLine::default()
    }
}

fn join_child(lines: &mut Vec<ServerLine>, child: ServerLine) {
    let Some(line) = lines.iter_mut().find(|line| line.name == child.name) else {
        lines.push(child);
        return;
    };
    line.starts = child.starts;
    if line.pid.is_none() {
        line.pid = child.pid;
    }
    if child.status == "stopped" || (child.status == "starting" && line.status != "up") {
        line.status = child.status;
        line.trouble = child.trouble;
        line.pid = child.pid;
    }
}
