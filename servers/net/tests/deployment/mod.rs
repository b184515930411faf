//! A deployment in a temporary folder for the tests of servers: an authority, certificates and
//! configurations as files, clients of every role, and waiting for a condition with a deadline.
//!
//! Included by the servers' own tests through `#[path]`; not every test uses all of it.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod wait;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lapwing_net::authority::{Authority, ServedName, Usage, make_request};
use lapwing_net::clock;
use lapwing_net::config::TokenDigest;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::peer::{CallError, PeerClient, to_body};
use lapwing_net::runtime::{self, Executor, cores};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::enrol::EnrolRequest;
use lapwing_protocol::id::DeploymentId;

#[allow(unused_imports, reason = "not every test waits")]
pub(crate) use wait::{pause, until};

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than anything here takes on a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The enrolment token, and the one of the metrics.
pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    pub(crate) authority: Authority,
    folder: tempfile::TempDir,
    /// Credentials that were made.
    made: Mutex<BTreeMap<(Role, u8), Credentials>>,
}

impl Deployment {
    pub(crate) fn new() -> Self {
        Self::numbered(0xd0)
    }

    /// One of several deployments.
    pub(crate) fn numbered(byte: u8) -> Self {
        let authority = Authority::create(clock::unix_ms(), "test authority", 60 * DAY).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let this = Self { id: DeploymentId([byte; 16]), authority, folder, made: Mutex::default() };
        this.authority.save(&this.path("ca.pem"), &this.path("ca-key.pem")).unwrap();
        let digest = TokenDigest::of(TOKEN).to_string();
        std::fs::write(this.path("tokens.sha256"), format!("# a comment\n\n{digest}\n")).unwrap();
        std::fs::write(this.path("metrics.sha256"), digest).unwrap();
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn identity(&self, role: Role, id: u8) -> PeerIdentity {
        PeerIdentity { deployment: self.id, role, id: [id; 16] }
    }

    /// Issues a server's certificate and returns the `[server]` section that names it.
    pub(crate) fn server_section(&self, role: Role, name: &str, id: u8) -> String {
        let names = [ServedName::Address([127, 0, 0, 1].into())];
        let identity = self.identity(role, id);
        let now_ms = clock::unix_ms();
        let leaf = self.authority.issue(now_ms, &identity, Usage::Server(&names), DAY).unwrap();
        let (certificate, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        leaf.save(&self.path(&certificate), &self.path(&key)).unwrap();
        format!(
            "[server]\nrole = \"{role}\"\nname = \"{name}\"\ndata_dir = \"{name}-data\"\n\
             deployment = \"{}\"\nlisten = [\"127.0.0.1:0\"]\nmetrics_token_file = \"metrics.sha256\"\n\
             log_level = \"off\"\n[server.tls]\ncert = \"{certificate}\"\nkey = \"{key}\"\nca = \"ca.pem\"\n",
            self.id
        )
    }

    /// Reads a configuration as if it lay in the deployment's folder.
    pub(crate) fn config<T: lapwing_net::config::Config>(&self, text: &str) -> T {
        lapwing_net::config::parse(&self.path("test.toml"), text).unwrap()
    }

    /// The credentials of `role` and `id`: the same key each time, as a peer that comes again has.
    pub(crate) fn credentials(&self, role: Role, id: u8) -> Credentials {
        let mut made = self.made.lock().unwrap();
        made.entry((role, id)).or_insert_with(|| self.new_credentials(role, id)).clone()
    }

    /// Credentials of `role` and `id` with a key of their own.
    pub(crate) fn new_credentials(&self, role: Role, id: u8) -> Credentials {
        let names = [ServedName::Address([127, 0, 0, 1].into())];
        let usage = if role.is_server() { Usage::Server(&names) } else { Usage::Client };
        let identity = self.identity(role, id);
        let leaf = self.authority.issue(clock::unix_ms(), &identity, usage, DAY).unwrap();
        let ca = self.authority.certificate_pem();
        Credentials::from_pem(ca, &leaf.certificate_pem, &leaf.key_pem).unwrap()
    }

    /// A client with the certificate of `role` and `id`, of the server of `expected` at `address`.
    pub(crate) fn client(
        &self,
        executor: &Executor,
        (role, id): (Role, u8),
        expected: Role,
        address: SocketAddr,
    ) -> PeerClient {
        let plane = if role == Role::Sensor { Plane::Sensor } else { Plane::Peer };
        let credentials = self.credentials(role, id);
        let expected = ExpectedPeer::of_role(self.id, expected);
        let tls = ClientTls::new(&credentials, plane, expected).unwrap();
        PeerClient::new(executor, "the server", vec![address], tls)
    }

    /// The metrics of the server at `address`.
    pub(crate) async fn metrics(&self, role: Role, address: SocketAddr) -> String {
        let expected = ExpectedPeer::of_role(self.id, role);
        let ca = self.authority.certificate_pem();
        let tls = ClientTls::anonymous_from_pem(ca, Plane::Http, expected).unwrap();
        let client = lapwing_net::http::Client::new(tls).with_token(TOKEN);
        let answer = client.get(&format!("https://{address}/metrics")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// A client of the enrol plane, without a certificate.
    pub(crate) fn stranger(
        &self,
        executor: &Executor,
        expected: Role,
        address: SocketAddr,
    ) -> PeerClient {
        let expected = ExpectedPeer::of_role(self.id, expected);
        let ca = self.authority.certificate_pem();
        let tls = ClientTls::anonymous_from_pem(ca, Plane::Enrol, expected).unwrap();
        PeerClient::new(executor, "the server", vec![address], tls)
    }
}

/// The body of an enrolment with a new key, and that key.
pub(crate) fn enrolment(token: &str, name: &str) -> (String, Vec<u8>) {
    let (key, request) = make_request().unwrap();
    (key, enrolment_with(token, name, &request))
}

/// The body of an enrolment with a signing request.
pub(crate) fn enrolment_with(token: &str, name: &str, request: &[u8]) -> Vec<u8> {
    to_body(&EnrolRequest { token, request, name, os: "Linux", machine_id: [1; 32] }).unwrap()
}

/// Calls with patience.
pub(crate) async fn call(
    client: &PeerClient,
    method: Method,
    body: &[u8],
) -> Result<Vec<u8>, CallError> {
    client.call(method, body, PATIENCE).await
}

/// Calls, and returns the code and text of the refusal that is expected.
pub(crate) async fn refusal(client: &PeerClient, method: Method, body: &[u8]) -> (Code, String) {
    match call(client, method, body).await {
        Err(CallError::Remote(failure)) => (failure.code, failure.text),
        other => panic!("not refused: {other:?}"),
    }
}

/// Runs a test on an executor of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Executor) -> F) {
    runtime::run(cores(), |executor, _, _| async move {
        let late = async {
            smol::Timer::at(Instant::now() + 3 * PATIENCE).await;
            panic!("the test hangs");
        };
        smol::future::or(test(executor), late).await;
    });
}
