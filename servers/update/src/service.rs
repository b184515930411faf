//! The calls that an Update server answers.

use std::sync::Arc;

use lapwing_net::clock;
use lapwing_net::host::{Host, Myself};
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::update::{Part, PartRequest, SignedManifest};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use smol::lock::Semaphore;

use crate::limits::{PART_BYTES_MAX, READS_MAX};
use crate::repository::{Published, Repository};

/// What is hosted, and counts of who asked.
pub(crate) struct Updates {
    repository: Arc<Repository>,
    reads: Semaphore,
    myself: Arc<Myself>,
    manifests: Counter,
    parts: Counter,
    bytes: Counter,
    version: Gauge,
}

impl Updates {
    pub(crate) fn new(repository: Repository, host: &Host) -> Self {
        let (manifests, parts, bytes) =
            (Counter::default(), Counter::default(), Counter::default());
        let version = Gauge::default();
        host.metrics().register(|registry| {
            registry.register("update_manifests", "Manifests given out", manifests.clone());
            registry.register("update_parts", "Parts of targets given out", parts.clone());
            registry.register("update_part_bytes", "Bytes of those parts", bytes.clone());
            registry.register(
                "update_manifest_version",
                "Version of the manifest last given out",
                version.clone(),
            );
        });
        Self {
            repository: Arc::new(repository),
            reads: Semaphore::new(READS_MAX),
            myself: host.myself(),
            manifests,
            parts,
            bytes,
            version,
        }
    }

    pub(crate) fn trouble(&self) -> String {
        self.repository.trouble()
    }

    async fn published(&self) -> Result<Arc<Published>, Failure> {
        let repository = Arc::clone(&self.repository);
        let refreshed = smol::unblock(move || repository.refresh(clock::unix_ms())).await;
        refreshed.map_err(|error| Failure::new(Code::NOT_FOUND, error.to_string()))
    }

    async fn manifest(&self) -> Result<Vec<u8>, Failure> {
        let published = self.published().await?;
        self.manifests.inc();
        self.version.set(i64::try_from(published.manifest.version).unwrap_or(i64::MAX));
        to_body(&SignedManifest {
            manifest: &published.signed,
            key: published.key,
            signature: published.signature,
        })
    }

    async fn part(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: PartRequest<'_> = from_body(body)?;
        let published = self.published().await?;
        let (target, offset) = (request.target.to_owned(), request.offset);
        let length = request.length.min(PART_BYTES_MAX);
        let _place = self.reads.acquire().await;
        let repository = Arc::clone(&self.repository);
        let read =
            smol::unblock(move || repository.read_part(&published, &target, offset, length)).await;
        match read {
            Ok(Some((total, bytes))) => {
                self.parts.inc();
                self.bytes.inc_by(bytes.len() as u64);
                to_body(&Part { offset: offset.min(total), total, bytes: &bytes })
            }
            Ok(None) => Err(Failure::new(
                Code::NOT_FOUND,
                "the manifest in force has no such target; ask for the manifest again",
            )),
            Err(error) => {
                let text = format!(
                    "a target of the manifest cannot be read: {error}; the vendor must publish the \
                     repository again"
                );
                log::error!("{text}");
                Err(Failure::new(Code::STORE_FAILED, text))
            }
        }
    }
}

impl Service for Updates {
    async fn call(&self, _: Caller, method: Method, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            Method::UPDATES => self.manifest().await,
            Method::UPDATE_PART => self.part(&body).await,
            Method::STATUS => self.myself.status(&self.trouble()),
            other => Err(Failure::new(
                Code::UNSUPPORTED,
                format!("an Update server has no method {}", other.0),
            )),
        }
    }
}
