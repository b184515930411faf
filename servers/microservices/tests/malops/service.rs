//! A MalOp service that runs, and what is asked of it.

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_microservices::malops::{Config, Server};
use lapwing_net::identity::Role;
use lapwing_net::peer::{PeerClient, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::call::Method;
use lapwing_protocol::console::EvidenceView;
use lapwing_protocol::feed::{Page, PageRequest};
use lapwing_protocol::id::MalOpId;
use lapwing_protocol::items::Items;
use lapwing_protocol::malop::{MalOpDetail, MalOpFilter, MalOpShow, MalOpStatus, MalOpView};
use lapwing_server_core::evidence::Evidence;

use crate::deployment::{Deployment, call, until};

/// A MalOp as far as the tests look at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MalOp {
    pub(crate) id: MalOpId,
    pub(crate) cause: String,
    pub(crate) status: MalOpStatus,
    pub(crate) count: u64,
    pub(crate) machines: usize,
}

pub(crate) struct MalOps {
    pub(crate) address: SocketAddr,
    pub(crate) webapp: PeerClient,
    trigger: ShutdownTrigger,
    serving: smol::Task<()>,
}

impl MalOps {
    /// Starts the service over the store of the one before; waits until that is let go of.
    pub(crate) async fn start(
        deployment: &Deployment,
        executor: &Executor,
        detection: &[SocketAddr],
        registration: Option<SocketAddr>,
    ) -> Self {
        let mut text = deployment.server_section(Role::Malops, "malops", 50) + "[peers]\n";
        if let Some(address) = registration {
            text += &format!("registration = [\"{address}\"]\n");
        }
        for (number, console) in detection.iter().enumerate() {
            text +=
                &format!("[[peers.detection]]\nname = \"d{number}\"\nconsole = \"{console}\"\n");
        }
        let config: Config = deployment.config(&text);
        let (trigger, shutdown) = shutdown::pair();
        let server = until("the store is free", || {
            let (config, executor) = (config.clone(), Arc::clone(executor));
            let shutdown = shutdown.clone();
            smol::unblock(move || Server::open(&config, &executor, &shutdown).ok())
        })
        .await;
        let address = server.addresses()[0];
        let serving = executor.spawn(async move { server.serve().await.unwrap() });
        let webapp = deployment.client(executor, (Role::Webapp, 90), Role::Malops, address);
        Self { address, webapp, trigger, serving }
    }

    /// Ends in good order.
    pub(crate) async fn stop(self) {
        self.trigger.begin();
        self.serving.await;
    }

    /// Ends in the middle of whatever it does, without closing its store.
    pub(crate) async fn kill(self) {
        self.serving.cancel().await;
    }

    pub(crate) async fn list(&self) -> Vec<MalOp> {
        let filter = to_body(&MalOpFilter { status: None, limit: 1_000 }).unwrap();
        let body = call(&self.webapp, Method::MALOPS, &filter).await.unwrap();
        let views = Items::<MalOpView<'_>>::from_bytes(&body);
        let mut malops: Vec<MalOp> = views.iter().map(|view| malop(&view.unwrap())).collect();
        malops.sort_by(|one, other| one.cause.cmp(&other.cause));
        malops
    }

    /// Evidences counted by all MalOps.
    pub(crate) async fn counted(&self) -> u64 {
        self.list().await.iter().map(|malop| malop.count).sum()
    }

    pub(crate) async fn until_counted(&self, count: u64) {
        until(&format!("{count} evidences are counted"), || async {
            (self.counted().await >= count).then_some(())
        })
        .await;
    }

    /// A MalOp's evidence, as listed, and its comments.
    pub(crate) async fn show(&self, id: MalOpId) -> (Vec<Evidence>, Vec<(String, String)>) {
        let show = to_body(&MalOpShow { malop: id }).unwrap();
        let body = call(&self.webapp, Method::MALOP, &show).await.unwrap();
        let detail: MalOpDetail<'_> = from_body(&body).unwrap();
        let comments = detail.comments.iter().map(|comment| {
            let comment = comment.unwrap();
            (comment.author.to_owned(), comment.text.to_owned())
        });
        (evidences(&detail.evidence), comments.collect())
    }

    pub(crate) async fn suspicions(&self, offset: u32, limit: u32) -> (u32, Vec<Evidence>) {
        let page = to_body(&PageRequest { offset, limit }).unwrap();
        let body = call(&self.webapp, Method::SUSPICIONS, &page).await.unwrap();
        let page: Page<'_, EvidenceView<'_>> = from_body(&body).unwrap();
        (page.total, evidences(&page.items))
    }
}

pub(crate) fn malop(view: &MalOpView<'_>) -> MalOp {
    MalOp {
        id: view.malop,
        cause: view.root_cause.to_owned(),
        status: view.status,
        count: view.count,
        machines: view.machines.iter().count(),
    }
}

fn evidences(items: &Items<'_, EvidenceView<'_>>) -> Vec<Evidence> {
    items.iter().map(|view| Evidence::from_view(&view.unwrap()).unwrap()).collect()
}
