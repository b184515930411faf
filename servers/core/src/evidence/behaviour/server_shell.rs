//! A network server starts a shell: what a web shell or a hole in the server gives an attacker
//! (T1505.003, T1190).
//!
//! Looks alike: sites whose scripts call programs through a shell (mail, image conversion). Those
//! who run such a site see it once per process and can put the script aside; databases that run
//! archive commands through a shell are left out.

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::{Kind, process};

use super::{Behaviour, base, is_shell, program};
use crate::evidence::finding::Finding;
use crate::graph::{Element, Graph, bit};

pub(super) struct ServerShell;

impl Behaviour for ServerShell {
    fn kind(&self) -> Kind {
        process::KIND
    }

    fn features(&self) -> u64 {
        bit(process::image_path) | bit(process::parent) | bit(process::parent_image_path)
    }

    fn judge(&self, graph: &Graph, element: &Element) -> Option<Finding> {
        let shell = program(element).filter(|name| is_shell(name))?;
        let parent = element.target(process::parent).and_then(|guid| graph.find(guid));
        let parent = match parent.and_then(program) {
            Some(parent) => parent,
            None => base(&element.text(process::parent_image_path)?).to_owned(),
        };
        is_server(&parent).then(|| Finding {
            rule: "server_shell",
            title: format!("the network server {parent} started the shell {shell}"),
            severity: Severity::Medium,
            activity: ActivityType::MaliciousInfection,
            suspicious: true,
            techniques: &["T1505.003", "T1190"],
            root_cause: format!("process:{}", element.guid()),
            event_key: String::new(),
            reputation: Vec::new(),
        })
    }
}

fn is_server(program: &str) -> bool {
    let servers = [
        "nginx",
        "apache2",
        "httpd",
        "lighttpd",
        "caddy",
        "php-cgi",
        "uwsgi",
        "gunicorn",
        "mysqld",
        "mariadbd",
        "mongod",
        "redis-server",
        "memcached",
        "named",
        "vsftpd",
        "proftpd",
        "smbd",
        "exim4",
        "dovecot",
    ];
    servers.contains(&program) || program.starts_with("php-fpm")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{guid, judge, text};
    use super::*;
    use crate::change::OwnedValue;

    fn is_found(parent: &str, child: &str) -> bool {
        let parent = vec![(process::image_path, text(parent))];
        let child = vec![
            (process::image_path, text(child)),
            (process::parent, OwnedValue::Element(guid(1))),
        ];
        judge(&ServerShell, vec![(process::KIND, parent), (process::KIND, child)]).is_some()
    }

    #[test]
    fn a_shell_of_a_web_server_is_found() {
        assert!(is_found("/usr/sbin/nginx", "/bin/sh"));
        assert!(is_found("/usr/sbin/php-fpm8.2", "/usr/bin/bash"));
    }

    #[test]
    fn shells_of_people_and_other_children_of_servers_are_not() {
        assert!(!is_found("/usr/sbin/sshd", "/usr/bin/bash"));
        assert!(!is_found("/usr/sbin/nginx", "/usr/sbin/nginx"));
    }

    #[test]
    fn a_parent_that_is_gone_is_known_by_its_path() {
        let child = vec![
            (process::image_path, text("/bin/sh")),
            (process::parent_image_path, text("/usr/sbin/apache2")),
        ];
        assert!(judge(&ServerShell, vec![(process::KIND, child)]).is_some());
    }
}
