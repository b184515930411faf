//! Answers the WebApp about the children, over `lapwing-peer/1` like any server.
//!
//! Invariant: nobody but the WebApp of this deployment is answered.

use std::sync::Arc;

use lapwing_net::config::Tls;
use lapwing_net::identity::Role;
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::{Connection, Listener, ListenerContext};
use lapwing_net::metrics::ListenerMetrics;
use lapwing_net::peer::{self, Caller, Failure, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::{Credentials, Plane, ServerPlanes};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::DeploymentId;
use lapwing_protocol::supervision::{ChildChange, ChildView, ChildWish};

use super::children::{ChildStatus, Children};
use super::data_folder::DataFolder;
use super::plan::{Plan, SUPERVISOR};

/// Starts to answer; ends with the executor or the shutdown.
pub(super) fn start(
    data: &DataFolder,
    plan: &Plan,
    children: &Children,
    executor: &Executor,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let folder = data.server(SUPERVISOR);
    let tls = Tls {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        ca: data.authority("organisation.pem"),
        client_ca: Vec::new(),
    };
    let credentials = Credentials::load(&tls).map_err(|error| error.to_string())?;
    let deployment: DeploymentId =
        plan.deployment.parse().map_err(|_| String::from("the plan's deployment is malformed"))?;
    let planes = ServerPlanes::new(&credentials, Some(deployment), &[Plane::Peer])
        .map_err(|error| error.to_string())?;
    let address = plan.address(SUPERVISOR).ok_or("the plan has no supervisor")?;
    let listener = Listener::bind(address).map_err(|error| error.to_string())?;
    let (limits, metrics) = (ListenerLimits::default(), ListenerMetrics::default());
    let context = ListenerContext::new(executor, limits, metrics, shutdown.clone());
    let service = Arc::new(service(children.clone()));
    let speaking = Arc::clone(executor);
    let handler = move |connection: Connection| {
        let (executor, service) = (Arc::clone(&speaking), Arc::clone(&service));
        async move { peer::serve(executor, connection, service).await }
    };
    executor.spawn(listener.serve(planes, context, handler)).detach();
    Ok(())
}

fn service(children: Children) -> impl peer::Service {
    move |caller: Caller, method: Method, body: Vec<u8>| {
        let children = children.clone();
        async move {
            if caller.identity.is_none_or(|identity| identity.role != Role::Webapp) {
                let text = "the supervisor answers the WebApp alone";
                return Err(Failure::new(Code::FORBIDDEN, text));
            }
            match method {
                Method::CHILDREN => list(&children.list()),
                Method::CHILD_CHANGE => change(&children, from_body(&body)?).await,
                _ => Err(Failure::new(Code::UNSUPPORTED, "the supervisor has no such method")),
            }
        }
    }
}

async fn change(children: &Children, change: ChildChange<'_>) -> Result<Vec<u8>, Failure> {
    if children.status(change.name).is_none() {
        let text = format!("{:?} was not started here", change.name);
        return Err(Failure::new(Code::NOT_FOUND, text));
    }
    let is_webapp = change.name == Role::Webapp.name();
    if is_webapp && change.wish != ChildWish::Start {
        let text = "the WebApp cannot stop itself; stop `lapwing up` instead";
        return Err(Failure::new(Code::CONFLICT, text));
    }
    let done = children.wish(change.name, change.wish).await;
    done.map(|()| Vec::new()).map_err(|text| Failure::new(Code::INTERNAL, text))
}

fn list(children: &[ChildStatus]) -> Result<Vec<u8>, Failure> {
    let mut items = Vec::new();
    for child in children {
        let log = child.program.log.to_string_lossy();
        items.extend(to_body(&ChildView {
            name: &child.program.name,
            role: child.program.role,
            state: child.state,
            pid: child.pid,
            starts: child.starts,
            log_file: &log,
            ending: &child.ending,
        })?);
    }
    Ok(items)
}
