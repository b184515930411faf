//! Tags are set by operators, listed to servers, and kept over a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_microservices::tagging::{Config, Server};
use lapwing_net::identity::Role;
use lapwing_net::peer::to_body;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::items::Items;
use lapwing_protocol::tagging::{TagQuery, TagSet, TagView};

use crate::deployment::{Deployment, call, refusal, run};

const MACHINE: SensorId = SensorId([7; 16]);

async fn start(
    deployment: &Deployment,
    executor: &Executor,
) -> (SocketAddr, ShutdownTrigger, smol::Task<()>) {
    let config: Config = deployment.config(&deployment.server_section(Role::Tagging, "tagging", 1));
    let (trigger, shutdown) = shutdown::pair();
    let server = {
        let executor = Arc::clone(executor);
        smol::unblock(move || Server::open(&config, &executor, &shutdown)).await.unwrap()
    };
    let address = server.addresses()[0];
    (address, trigger, executor.spawn(async move { server.serve().await.unwrap() }))
}

fn set(name: &str, value: &str) -> Vec<u8> {
    to_body(&TagSet { sensor: MACHINE, name, value: Some(value), author: "admin" }).unwrap()
}

#[test]
fn a_tag_outlives_a_restart_and_only_operators_set_it() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let (address, trigger, ended) = start(&deployment, &executor).await;
        let webapp = deployment.client(&executor, (Role::Webapp, 2), Role::Tagging, address);
        let malops = deployment.client(&executor, (Role::Malops, 3), Role::Tagging, address);
        call(&webapp, Method::TAG_SET, &set("critical_asset", "true")).await.unwrap();
        let (code, _) = refusal(&malops, Method::TAG_SET, &set("location", "Bern")).await;
        assert_eq!(code, Code::FORBIDDEN);
        let (code, text) = refusal(&webapp, Method::TAG_SET, &set("critical_asset", "x")).await;
        assert!(code == Code::BAD_ARGUMENT && text.contains("`true` or `false`"), "{text}");
        trigger.begin();
        ended.await;

        let (address, trigger, ended) = start(&deployment, &executor).await;
        let malops = deployment.client(&executor, (Role::Malops, 3), Role::Tagging, address);
        let query = to_body(&TagQuery { sensor: None }).unwrap();
        let body = call(&malops, Method::TAGS, &query).await.unwrap();
        let tags: Vec<TagView<'_>> =
            Items::from_bytes(&body).iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(tags.len(), 1);
        assert_eq!((tags[0].sensor, tags[0].value, tags[0].author), (MACHINE, "true", "admin"));
        trigger.begin();
        ended.await;
    });
}
