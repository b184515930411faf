//! A shell itself holds an outbound TCP connection: a reverse shell (T1059.004, T1095). Shells
//! start programs that talk; they do not talk.
//!
//! Looks alike: scripts that use bash's `/dev/tcp` to wait for a port.

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::{Kind, connection};

use super::{Behaviour, is_shell, program};
use crate::evidence::finding::Finding;
use crate::graph::{Element, Graph, bit};

const TCP: u64 = 6;
const INBOUND: u64 = 2;

pub(super) struct ShellConnection;

impl Behaviour for ShellConnection {
    fn kind(&self) -> Kind {
        connection::KIND
    }

    fn features(&self) -> u64 {
        bit(connection::process) | bit(connection::remote_address)
    }

    fn judge(&self, graph: &Graph, element: &Element) -> Option<Finding> {
        let is_inbound = element.number(connection::direction) == Some(INBOUND);
        let has_peer = element.number(connection::remote_port).is_some_and(|port| port != 0);
        if element.number(connection::protocol) != Some(TCP) || is_inbound || !has_peer {
            return None;
        }
        let process = graph.find(element.target(connection::process)?)?;
        let shell = program(process).filter(|name| is_shell(name))?;
        let address = element.value(connection::remote_address)?;
        Some(Finding {
            rule: "shell_connection",
            title: format!("the shell {shell} holds a connection to {address}"),
            severity: Severity::Medium,
            activity: ActivityType::CommandAndControl,
            suspicious: true,
            techniques: &["T1059.004", "T1095"],
            root_cause: format!("process:{}", process.guid()),
            event_key: String::new(),
            reputation: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::element::process;

    use super::super::fixture::{guid, judge, text};
    use super::*;
    use crate::change::OwnedValue;

    fn is_found(program: &str, direction: u64, protocol: u64) -> bool {
        let owner = vec![(process::image_path, text(program))];
        let connection = vec![
            (connection::protocol, OwnedValue::U64(protocol)),
            (connection::remote_address, OwnedValue::Ip("203.0.113.9".parse().unwrap())),
            (connection::remote_port, OwnedValue::U64(4_444)),
            (connection::process, OwnedValue::Element(guid(1))),
            (connection::direction, OwnedValue::U64(direction)),
        ];
        let elements = vec![(process::KIND, owner), (connection::KIND, connection)];
        judge(&ShellConnection, elements).is_some()
    }

    #[test]
    fn a_shell_with_an_outbound_connection_is_found() {
        assert!(is_found("/bin/bash", 1, TCP));
    }

    #[test]
    fn programs_inbound_connections_and_datagrams_are_not() {
        assert!(!is_found("/usr/bin/curl", 1, TCP));
        assert!(!is_found("/bin/bash", INBOUND, TCP));
        assert!(!is_found("/bin/bash", 1, 17));
    }
}
