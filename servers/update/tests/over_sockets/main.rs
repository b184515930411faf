//! A whole Update server over real TLS sockets: one signed manifest and its targets in parts, to
//! whoever asks and to nobody else.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deployment::{Deployment, call, refusal, run};
use lapwing_net::authority::Usage;
use lapwing_net::clock;
use lapwing_net::identity::Role;
use lapwing_net::peer::{CallError, PeerClient, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::registration::ServerStatus;
use lapwing_protocol::update::{Part, PartRequest, SignedManifest};
use lapwing_server_core::manifest::{Manifest, verify};
use lapwing_update::vendor::{Source, VendorKey, publish};
use lapwing_update::{Config, Server};

const YEAR_MS: u64 = 365 * 86_400_000;

struct Vendor {
    key: VendorKey,
    package: Vec<u8>,
}

impl Vendor {
    fn publish(deployment: &Deployment) -> Self {
        let package: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(deployment.path("lapwing-sensor-0.1.0"), &package).unwrap();
        let key = VendorKey::create().unwrap();
        key.save(&deployment.path("vendor.pem"), &deployment.path("vendor.pub")).unwrap();
        let vendor = Self { key, package };
        vendor.publish_again(deployment);
        vendor
    }

    fn publish_again(&self, deployment: &Deployment) -> Manifest {
        let [component, os, arch, version] =
            ["sensor", "linux", "x86_64", "0.1.0"].map(String::from);
        let path = deployment.path("lapwing-sensor-0.1.0");
        let source = Source { path, component, os, arch, version };
        let expires_ms = clock::unix_ms() + YEAR_MS;
        publish(&self.key, &repository(deployment), expires_ms, &[source]).unwrap()
    }
}

fn repository(deployment: &Deployment) -> PathBuf {
    deployment.path("repository")
}

fn config(deployment: &Deployment) -> Config {
    let text = deployment.server_section(Role::Update, "update", 1)
        + "[repository]\ndir = \"repository\"\nvendor_key = \"vendor.pub\"\n";
    deployment.config(&text)
}

async fn start(
    deployment: &Deployment,
    executor: &Executor,
) -> (SocketAddr, ShutdownTrigger, smol::Task<()>) {
    let config = config(deployment);
    let (trigger, shutdown) = shutdown::pair();
    let server = {
        let executor = Arc::clone(executor);
        smol::unblock(move || Server::open(&config, &executor, &shutdown)).await.unwrap()
    };
    let address = server.addresses()[0];
    (address, trigger, executor.spawn(async move { server.serve().await.unwrap() }))
}

async fn manifest(client: &PeerClient, vendor: &Vendor) -> Manifest {
    let body = call(client, Method::UPDATES, &[]).await.unwrap();
    let signed: SignedManifest<'_> = from_body(&body).unwrap();
    let (now_ms, public) = (clock::unix_ms(), vendor.key.public());
    verify(now_ms, &public, 0, signed.manifest, &signed.key, &signed.signature).unwrap()
}

#[test]
fn a_manifest_verifies_and_its_target_comes_whole_in_parts() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let vendor = Vendor::publish(&deployment);
        let (address, trigger, ended) = start(&deployment, &executor).await;
        let webapp = deployment.client(&executor, (Role::Webapp, 2), Role::Update, address);
        let listed = manifest(&webapp, &vendor).await;
        let (name, target) = listed.targets.first_key_value().unwrap();
        let mut package: Vec<u8> = Vec::new();
        while (package.len() as u64) < target.length {
            let offset = package.len() as u64;
            let request = PartRequest { target: name, offset, length: u32::MAX };
            let body = call(&webapp, Method::UPDATE_PART, &to_body(&request).unwrap()).await;
            let body = body.unwrap();
            let part: Part<'_> = from_body(&body).unwrap();
            assert_eq!((part.offset, part.total), (offset, target.length));
            assert!(!part.bytes.is_empty());
            package.extend(part.bytes);
        }
        assert_eq!(package, vendor.package);
        trigger.begin();
        ended.await;
    });
}

#[test]
fn only_what_the_manifest_names_can_be_read() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let _vendor = Vendor::publish(&deployment);
        let (address, trigger, ended) = start(&deployment, &executor).await;
        let webapp = deployment.client(&executor, (Role::Webapp, 2), Role::Update, address);
        for target in ["../targets.json", "../../vendor.pem", "", "lapwing-sensor-0.1.0/", "other"]
        {
            let request = PartRequest { target, offset: 0, length: 10 };
            let (code, _) =
                refusal(&webapp, Method::UPDATE_PART, &to_body(&request).unwrap()).await;
            assert_eq!(code, Code::NOT_FOUND, "{target}");
        }
        let cut = repository(&deployment).join("targets/lapwing-sensor-0.1.0");
        std::fs::write(cut, b"short").unwrap();
        let request = PartRequest { target: "lapwing-sensor-0.1.0", offset: 0, length: 10 };
        let (code, _) = refusal(&webapp, Method::UPDATE_PART, &to_body(&request).unwrap()).await;
        assert_eq!(code, Code::STORE_FAILED);
        trigger.begin();
        ended.await;
    });
}

#[test]
fn a_new_manifest_is_served_without_a_restart_and_a_bad_one_is_not() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let vendor = Vendor::publish(&deployment);
        let (address, trigger, ended) = start(&deployment, &executor).await;
        let webapp = deployment.client(&executor, (Role::Webapp, 2), Role::Update, address);
        assert_eq!(manifest(&webapp, &vendor).await.version, 1);
        vendor.publish_again(&deployment);
        assert_eq!(manifest(&webapp, &vendor).await.version, 2);
        std::fs::write(repository(&deployment).join("targets.json"), b"{}").unwrap();
        assert_eq!(manifest(&webapp, &vendor).await.version, 2);
        let body = call(&webapp, Method::STATUS, &[]).await.unwrap();
        let status: ServerStatus<'_> = from_body(&body).unwrap();
        assert!(status.trouble.contains("manifest 2 stays in force"), "{}", status.trouble);
        trigger.begin();
        ended.await;
    });
}

#[test]
fn organisations_reach_the_vendors_server_and_strangers_do_not() {
    run(|executor| async move {
        let vendor = Deployment::numbered(1);
        let published = Vendor::publish(&vendor);
        let organisation = Deployment::numbered(2);
        let stranger = Deployment::numbered(3);
        std::fs::copy(organisation.path("ca.pem"), vendor.path("clients.pem")).unwrap();
        let mut config = config(&vendor);
        config.server.tls.client_ca = vec![vendor.path("clients.pem")];
        let (trigger, shutdown) = shutdown::pair();
        let server = Server::open(&config, &executor, &shutdown).unwrap();
        let address = server.addresses()[0];
        let ended = executor.spawn(async move { server.serve().await.unwrap() });
        let client = |deployment: &Deployment| {
            let identity = deployment.identity(Role::Webapp, 2);
            let leaf = deployment
                .authority
                .issue(clock::unix_ms(), &identity, Usage::Client, Duration::from_secs(3_600))
                .unwrap();
            let ca = vendor.authority.certificate_pem();
            let credentials =
                Credentials::from_pem(ca, &leaf.certificate_pem, &leaf.key_pem).unwrap();
            let expected = ExpectedPeer::of_vendor(Role::Update);
            let tls = ClientTls::new(&credentials, Plane::Peer, expected).unwrap();
            PeerClient::new(&executor, "update", vec![address], tls)
        };
        assert_eq!(manifest(&client(&organisation), &published).await.version, 1);
        let refused = call(&client(&stranger), Method::UPDATES, &[]).await.unwrap_err();
        assert!(!matches!(refused, CallError::Remote(_)), "{refused}");
        trigger.begin();
        ended.await;
    });
}

#[test]
fn without_a_good_manifest_it_does_not_start_and_says_why() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let _vendor = Vendor::publish(&deployment);
        let (_trigger, shutdown) = shutdown::pair();
        let config = config(&deployment);
        let told = || Server::open(&config, &executor, &shutdown).err().unwrap().to_string();
        let other = VendorKey::create().unwrap();
        other.save(&deployment.path("other.pem"), &deployment.path("vendor.pub")).unwrap();
        let text = told();
        assert!(text.contains("another key than the vendor's"), "{text}");
        std::fs::write(deployment.path("vendor.pub"), "short").unwrap();
        let text = told();
        assert!(text.contains("vendor.pub") && text.contains("64 hexadecimal"), "{text}");
        std::fs::remove_dir_all(repository(&deployment)).unwrap();
        other.save(&deployment.path("other.pem"), &deployment.path("vendor.pub")).unwrap();
        let text = told();
        assert!(text.contains("targets.json") && text.contains("[repository]"), "{text}");
    });
}
