//! Whether a server answers: its health over HTTPS, verified by the authority that signed it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lapwing_net::http::Client;
use lapwing_net::identity::Role;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use smol::Timer;

use super::children::{Children, last_lines};
use super::data_folder::DataFolder;
use super::files::is_vendor;
use super::plan::PlannedServer;

/// How long a server may take until it answers for the first time.
const START_TIME: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Starts after which a server that never answered is given up.
const STARTS_MAX: u32 = 3;
/// Lines of its log that are shown when it is.
const LINES: usize = 8;

/// A client for the HTTP of one server.
pub(super) fn client(data: &DataFolder, server: &PlannedServer) -> Result<Client, String> {
    let authority = if is_vendor(server) { "vendor.pem" } else { "organisation.pem" };
    let role: Role = server.role.parse().map_err(|_| format!("{} is no role", server.role))?;
    let expected = ExpectedPeer { role: Some(role), ..ExpectedPeer::default() };
    let tls = ClientTls::anonymous(&data.authority(authority), Plane::Http, expected);
    Ok(Client::new(tls.map_err(|error| error.to_string())?))
}

/// Waits until a server answers, or says why it does not.
pub(super) async fn wait(
    data: &DataFolder,
    server: &PlannedServer,
    children: &Children,
) -> Result<(), String> {
    let client = client(data, server)?;
    let address = server.addresses.first().copied().ok_or("the plan has no address")?;
    let url = format!("https://{}/healthz", reachable(address));
    let began = Instant::now();
    let starts = || children.status(&server.name).map_or(0, |status| status.starts);
    let starts_before = starts();
    loop {
        let answer = client.get(&url).await;
        if answer.is_ok_and(|answer| answer.status.is_success()) {
            children.answered(&server.name);
            return Ok(());
        }
        let is_dying = starts().saturating_sub(starts_before) >= STARTS_MAX;
        if is_dying || began.elapsed() > START_TIME {
            let log = data.log(&server.name);
            return Err(format!(
                "{} does not start; the end of {}:\n{}",
                server.name,
                log.display(),
                last_lines(&log, LINES)
            ));
        }
        Timer::after(LOOK_EVERY).await;
    }
}

/// An address that a client can connect to: "any address" is this machine's own.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::new([127, 0, 0, 1].into(), v4.port())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), v6.port())
        }
        specified => specified,
    }
}
