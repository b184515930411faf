//! Questions to Registration about Detection servers.

use lapwing_protocol::call::Method;
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::{ServerChange, ServerSetting, ServerState, ServerView};

use super::{Backend, BackendError, Peer, nothing};
use crate::limits::STATUS_TIME;
use crate::view::{ServerLine, Share, owned};

impl Backend {
    /// The Detection servers as Registration knows them.
    pub(crate) async fn registered_servers(&self) -> Result<Vec<ServerLine>, BackendError> {
        self.ask_bytes(Peer::Registration, Method::SERVERS, Vec::new(), STATUS_TIME, |reply| {
            owned(&Items::<ServerView<'_>>::from_bytes(reply), |server| Ok(line(server)))
        })
        .await
    }

    /// Changes a Detection server's standing with Registration.
    pub(crate) async fn change_server(
        &self,
        name: &str,
        change: ServerSetting,
    ) -> Result<(), BackendError> {
        let request = ServerChange { name, change };
        self.ask(Peer::Registration, Method::SERVER_CHANGE, &request, nothing).await
    }
}

fn line(server: ServerView<'_>) -> ServerLine {
    let status = match server.state {
        ServerState::Up => "up",
        ServerState::Draining => "draining",
        ServerState::Dead => "dead",
    };
    ServerLine {
        name: server.name.to_owned(),
        role: String::from("detection"),
        id: server.server.to_string(),
        status: String::from(status),
        version: server.version.to_owned(),
        capacity: Some(server.capacity),
        sensors: Some(server.sensors),
        assigned: Some(server.assigned),
        load: Some(Share(server.load_permille)),
        address: server.sensor_address.to_owned(),
        ..ServerLine::default()
    }
}
