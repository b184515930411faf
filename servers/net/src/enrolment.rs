//! The enrolment desk: a token and a signing request become an identity and a certificate.
//!
//! The Registration server has one; where there is none, a Detection server has it. Who may enrol
//! is judged in `lapwing_server_core::enrolment`; what is stored goes to whatever keeps the
//! server's rows.
//!
//! Not here: renewal and revocation. Invariants: nobody is told of a certificate before its sensor
//! is stored durably; the same key is always the same sensor.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapwing_protocol::code::Code;
use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::id::{DeploymentId, SensorId};
use lapwing_server_core::enrolment::{
    CERTIFICATE_MS, EnrolmentRefused, SensorRecord, TOKENS_MAX, Token, TokenUse, judge, key,
};
use lapwing_server_core::rows::{self, KeeperError, Row, RowKeeper};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Deserialize;

use crate::authority::{Authority, AuthorityError, Usage};
use crate::clock;
use crate::hexadecimal;
use crate::identity::PeerIdentity;
use crate::metrics::Metrics;
use crate::peer::{Failure, from_body, to_body};
use crate::tls::key_digest;

/// Sensors of one desk, about 500 bytes of memory each; one more is refused as busy.
pub const ENROLLED_MAX: usize = 262_144;

/// The section `[enrolment]` of a server that has a desk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentConfig {
    /// The organisation's CA certificate, PEM.
    pub ca_cert: PathBuf,
    /// Its key, PEM, mode 0600.
    pub ca_key: PathBuf,
    /// A file with the SHA-256, in hexadecimal, of each token that enrols, one a line.
    pub tokens_file: PathBuf,
}

impl EnrolmentConfig {
    /// Every path of this section.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.ca_cert, &mut self.ca_key, &mut self.tokens_file]
    }
}

/// Why there can be no desk.
#[derive(Debug)]
pub enum DeskError {
    /// The CA cannot be used.
    Authority(AuthorityError),
    /// The tokens cannot be read.
    Tokens {
        /// Their file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The store cannot be read.
    Keeper(KeeperError),
    /// A stored record is of another version.
    Record,
}

impl fmt::Display for DeskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(error) => write!(f, "[enrolment]: {error}"),
            Self::Tokens { file, problem } => write!(f, "{}: {problem}", file.display()),
            Self::Keeper(error) => error.fmt(f),
            Self::Record => f.write_str(
                "a stored enrolment cannot be read: it was written by another version; start that one, or restore \
                 the store from a backup",
            ),
        }
    }
}

impl std::error::Error for DeskError {}

/// How an enrolment ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The desk.
pub struct Desk<K> {
    deployment: DeploymentId,
    authority: Authority,
    tokens: Vec<Token>,
    keeper: K,
    book: Mutex<Book>,
    results: Family<ResultLabel, Counter>,
}

/// Who enrolled.
#[derive(Default)]
struct Book {
    sensors: BTreeMap<SensorId, SensorRecord>,
    sensor_by_key: BTreeMap<[u8; 32], SensorId>,
    uses: BTreeMap<[u8; 32], TokenUse>,
}

impl<K: RowKeeper> Desk<K> {
    /// Opens a desk over what `keeper` holds of earlier enrolments. Blocks on the disk.
    ///
    /// # Errors
    /// The CA, the tokens or the store cannot be used.
    pub fn open(
        deployment: DeploymentId,
        config: &EnrolmentConfig,
        keeper: K,
        metrics: &Metrics,
    ) -> Result<Self, DeskError> {
        let authority =
            Authority::load(&config.ca_cert, &config.ca_key).map_err(DeskError::Authority)?;
        let tokens = read_tokens(&config.tokens_file)?;
        let book = Book::read(&keeper)?;
        let results = Family::<ResultLabel, Counter>::default();
        metrics.register(|registry| {
            registry.register("enrolments", "Enrolments by result", results.clone());
        });
        Ok(Self { deployment, authority, tokens, keeper, book: Mutex::new(book), results })
    }

    /// Answers `Method::ENROL`: the body of an `EnrolRequest` becomes that of an `Enrolled`.
    ///
    /// # Errors
    /// The request is refused, or the store takes nothing; the text says what to do.
    pub async fn enrol(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let enrolled = match self.register(body) {
            Ok((reply, rows)) => match self.keeper.write(rows).await {
                Ok(()) => Ok(reply),
                Err(error) => Err(Failure::new(Code::STORE_FAILED, error.to_string())),
            },
            Err(failure) => Err(failure),
        };
        let result = match &enrolled {
            Ok(_) => "enrolled",
            Err(failure) => failure.code.name(),
        };
        self.results.get_or_create(&ResultLabel { result }).inc();
        enrolled
    }

    /// What is known of a sensor.
    #[must_use]
    pub fn sensor(&self, sensor: SensorId) -> Option<SensorRecord> {
        self.book().sensors.get(&sensor).cloned()
    }

    /// Every sensor that enrolled, in order of its id.
    #[must_use]
    pub fn sensors(&self) -> Vec<(SensorId, SensorRecord)> {
        self.book().sensors.iter().map(|(id, record)| (*id, record.clone())).collect()
    }

    /// How many enrolled.
    #[must_use]
    pub fn enrolled(&self) -> usize {
        self.book().sensors.len()
    }

    /// Everything but waiting for the disk.
    fn register(&self, body: &[u8]) -> Result<(Vec<u8>, Vec<Row>), Failure> {
        let request: EnrolRequest<'_> = from_body(body)?;
        let now_ms = clock::unix_ms();
        let token = judge(now_ms, &self.tokens, &request).map_err(refused)?;
        let fresh = fresh_sensor()?;
        let certificate = self.sign(now_ms, request.request, fresh)?;
        let public_key = key_digest(&certificate)
            .ok_or_else(|| Failure::new(Code::INTERNAL, "the certificate has no key"))?;
        let mut book = self.book();
        let known = book.sensor_by_key.get(&public_key).copied();
        if known.is_none() && book.sensors.len() >= ENROLLED_MAX {
            let text = format!("{ENROLLED_MAX} sensors are enrolled; enrol at another server");
            return Err(Failure::new(Code::BUSY, text));
        }
        let (sensor, certificate) = match known {
            Some(known) => (known, self.sign(now_ms, request.request, known)?),
            None => (fresh, certificate),
        };
        let not_after_ms = now_ms + CERTIFICATE_MS;
        let reply = to_body(&Enrolled {
            sensor,
            deployment: self.deployment,
            certificate: &certificate,
            authority: self.authority.certificate_der(),
            not_after_ms,
        })?;
        let enrolled_ms = book.sensors.get(&sensor).map_or(now_ms, |record| record.enrolled_ms);
        let record = SensorRecord {
            name: request.name.to_owned(),
            os: request.os.to_owned(),
            machine_id: request.machine_id,
            key: public_key,
            token,
            enrolled_ms,
            not_after_ms,
        };
        Ok((reply, book.enter(now_ms, sensor, record)))
    }

    fn sign(&self, now_ms: u64, request: &[u8], sensor: SensorId) -> Result<Vec<u8>, Failure> {
        let subject = PeerIdentity::of_sensor(self.deployment, sensor);
        let validity = Duration::from_millis(CERTIFICATE_MS);
        let signed =
            self.authority.sign_request(now_ms, request, &subject, Usage::Client, validity);
        signed.map(|certificate| certificate.der).map_err(|error| {
            let code = match error {
                AuthorityError::BadRequest(_) => Code::BAD_REQUEST_FOR_CERTIFICATE,
                _ => Code::INTERNAL,
            };
            Failure::new(code, error.to_string())
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> fmt::Debug for Desk<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

impl Book {
    fn read<K: RowKeeper>(keeper: &K) -> Result<Self, DeskError> {
        let mut book = Self::default();
        let scan = |[from, to]: [&[u8]; 2]| keeper.scan(from, to).map_err(DeskError::Keeper);
        for (stored_at, value) in scan([key::SENSORS, key::SENSORS_END])? {
            let sensor = key::sensor_of(&stored_at).ok_or(DeskError::Record)?;
            let record: SensorRecord = rows::read(&value).map_err(|_| DeskError::Record)?;
            book.sensor_by_key.insert(record.key, sensor);
            book.sensors.insert(sensor, record);
        }
        for (stored_at, value) in scan([key::TOKENS, key::TOKENS_END])? {
            let token = key::token_of(&stored_at).ok_or(DeskError::Record)?;
            book.uses.insert(token, rows::read(&value).map_err(|_| DeskError::Record)?);
        }
        Ok(book)
    }

    fn enter(&mut self, now_ms: u64, sensor: SensorId, record: SensorRecord) -> Vec<Row> {
        let uses = self.uses.entry(record.token).or_default();
        if !self.sensors.contains_key(&sensor) {
            uses.uses += 1;
        }
        uses.last_ms = now_ms;
        let rows =
            vec![Row::put(key::sensor(sensor), &record), Row::put(key::token(&record.token), uses)];
        self.sensor_by_key.insert(record.key, sensor);
        self.sensors.insert(sensor, record);
        rows
    }
}

fn refused(why: EnrolmentRefused) -> Failure {
    let code = match why {
        EnrolmentRefused::BadToken => Code::BAD_TOKEN,
        EnrolmentRefused::BadName => Code::BAD_ARGUMENT,
    };
    Failure::new(code, why.to_string())
}

fn fresh_sensor() -> Result<SensorId, Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| {
        Failure::new(Code::INTERNAL, "the operating system of the server gives no random bytes")
    })?;
    Ok(SensorId(id))
}

/// Reads the digests of tokens: 64 hexadecimal digits a line; empty lines and lines with `#` in
/// front are skipped.
///
/// # Errors
/// The file cannot be read, or a line is something else.
pub fn read_tokens(file: &Path) -> Result<Vec<Token>, DeskError> {
    let refused = |problem: String| DeskError::Tokens { file: file.to_path_buf(), problem };
    let text = std::fs::read_to_string(file)
        .map_err(|error| refused(format!("{error}; name a file this server can read")))?;
    let mut tokens = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let digest = hexadecimal::decode::<32>(line).ok_or_else(|| {
            refused(format!(
                "line {number} is not a SHA-256 in hexadecimal; write the 64 digits of the token's SHA-256"
            ))
        })?;
        tokens.push(Token { digest, expires_ms: None });
    }
    if tokens.len() > TOKENS_MAX {
        return Err(refused(format!("there are more than {TOKENS_MAX} tokens; remove old ones")));
    }
    Ok(tokens)
}
