//! The WebApp over peers in memory, to look at pages:
//! `cargo run -p lapwing-webapp --example rehearsal`.
//!
//! Not a server of anything: what is shown is made up. Log in as admin with the password that it
//! prints; its data is in a folder that goes away with it.

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::sync::Arc;
use std::time::Duration;

use lapwing_net::authority::{Authority, ServedName, Usage};
use lapwing_net::config::parse;
use lapwing_net::durable_file::{Access, write};
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::{clock, logging, runtime, shutdown};
use lapwing_protocol::id::{DeploymentId, ServerId};
use lapwing_webapp::Config;

use fixture::Fixture;
use fixture::data::Words;

const VALIDITY: Duration = Duration::from_secs(30 * 86_400);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    logging::start(log::LevelFilter::Info);
    let port = std::env::args().nth(1).unwrap_or_else(|| String::from("8443"));
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let deployment = DeploymentId([1; 16]);
    let authority = Authority::create(clock::unix_ms(), "rehearsal", VALIDITY)?;
    authority.save(&path("ca.pem"), &path("ca.key"))?;
    let names =
        [ServedName::Dns(String::from("localhost")), ServedName::Address([127, 0, 0, 1].into())];
    let subject = PeerIdentity::of_server(deployment, Role::Webapp, ServerId([2; 16]));
    let leaf = authority.issue(clock::unix_ms(), &subject, Usage::Server(&names), VALIDITY)?;
    leaf.save(&path("cert.pem"), &path("key.pem"))?;
    let password = "rehearsal password";
    write(&path("password"), password.as_bytes(), Access::Owner)?;
    let digest = lapwing_net::config::TokenDigest::of("rehearsal-token").to_string();
    write(&path("token.sha256"), digest.as_bytes(), Access::Owner)?;
    let text = format!(
        "[server]\nrole = \"webapp\"\nname = \"webapp\"\ndata_dir = \"store\"\n\
         deployment = \"{deployment}\"\nlisten = [\"127.0.0.1:{port}\"]\n\
         [server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\nca = \"ca.pem\"\n\
         [first_user]\nname = \"admin\"\npassword_file = \"password\"\n\
         api_token_digest_file = \"token.sha256\"\n"
    );
    let config: Config = parse(&path("webapp.toml"), &text)?;
    println!("https://localhost:{port}/ as admin with {password:?}; token rehearsal-token");
    let peers = Fixture::new(Words::honest());
    runtime::run(runtime::cores(), |executor, trigger, stop| async move {
        executor.spawn(async move { shutdown::on_signal(trigger).await }).detach();
        lapwing_webapp::run_over(config, Arc::new(peers), executor.clone(), stop).await
    })?;
    Ok(())
}
