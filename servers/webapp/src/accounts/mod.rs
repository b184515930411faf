//! Users, sessions and API tokens, in the WebApp's own store.
//!
//! Not here: cookies and pages (web/). Invariants: a password is kept only as argon2id, a session
//! and a token only as SHA-256; nothing is answered before it is durable; who fails to log in
//! learns nothing of why.

mod audit;
mod password;
mod records;
mod session;
mod throttle;
mod token;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapwing_net::clock;
use lapwing_net::config::{Secret, TokenDigest};
use lapwing_protocol::code::Code;
use lapwing_store::{Batch, Store, StoreError};

pub(crate) use audit::AuditLine;
pub use password::random_password;
pub(crate) use session::SessionView;
pub(crate) use token::TokenLine;

use crate::limits::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};
use password::{Hasher, PasswordHash};
use records::{ApiToken, Session, User};
use throttle::Throttle;

/// Why something about accounts was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountError {
    /// Unknown user or wrong password: which of them is not told.
    WrongLogin,
    /// Too many failures; how long to wait, in milliseconds.
    Throttled(u64),
    /// Too many logins at once.
    Busy,
    /// The new password is not taken.
    WeakPassword(&'static str),
    /// There is no such user, session or token.
    NotFound(&'static str),
    /// A name that is not taken.
    BadName,
    /// The store failed.
    Store(String),
    /// The operating system gives no random bytes, or the hash cannot be made.
    Machine(&'static str),
}

impl AccountError {
    /// The registry's number.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::WrongLogin => Code::UNAUTHENTICATED,
            Self::Throttled(_) | Self::Busy => Code::BUSY,
            Self::WeakPassword(_) | Self::BadName => Code::BAD_ARGUMENT,
            Self::NotFound(_) => Code::NOT_FOUND,
            Self::Store(_) => Code::STORE_FAILED,
            Self::Machine(_) => Code::INTERNAL,
        }
    }
}

impl std::fmt::Display for AccountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongLogin => f.write_str("the name or the password is wrong"),
            Self::Throttled(wait_ms) => {
                let minutes = wait_ms.div_ceil(60_000);
                write!(f, "too many failed logins; try again in {minutes} min")
            }
            Self::Busy => f.write_str("too many logins at once; try again in a moment"),
            Self::WeakPassword(problem) => f.write_str(problem),
            Self::NotFound(thing) => write!(f, "there is no such {thing}"),
            Self::BadName => {
                f.write_str("a name has 1 to 64 letters, digits, `-`, `_`, `.` or `@`")
            }
            Self::Store(problem) => write!(f, "the WebApp's store failed: {problem}"),
            Self::Machine(problem) => f.write_str(problem),
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// All accounts.
pub(crate) struct Accounts {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    hasher: Hasher,
    /// Held while something is written, so that writes come one after the other.
    writing: smol::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    user_by_name: BTreeMap<String, User>,
    session_by_digest: BTreeMap<[u8; 32], Session>,
    token_by_id: BTreeMap<String, ApiToken>,
    throttle: Throttle,
    audit: audit::Chain,
}

impl Accounts {
    /// Reads everything from the store. Blocks.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self, AccountError> {
        let state = State {
            user_by_name: records::load(&*store, records::USERS)?,
            session_by_digest: records::load_by_digest(&*store)?,
            token_by_id: records::load(&*store, records::TOKENS)?,
            throttle: Throttle::default(),
            audit: audit::Chain::open(&*store)?,
        };
        let (state, writing) = (Mutex::new(state), smol::lock::Mutex::new(()));
        Ok(Self { store, state, hasher: Hasher::default(), writing })
    }

    /// Makes the first account where it does not exist yet, from its password file, and takes its
    /// API token into the list.
    pub(crate) async fn ensure_first(
        &self,
        name: &str,
        password_file: &Path,
        token: Option<TokenDigest>,
    ) -> Result<(), AccountError> {
        if !self.state().user_by_name.contains_key(name) {
            let secret = Secret::read(password_file)
                .map_err(|error| AccountError::Store(error.to_string()))?;
            let hash = self.hasher.hash(secret.expose().to_owned()).await?;
            let user = User { hash, must_change: true, made_ms: clock::unix_ms(), role: admin() };
            self.put_user(name, user).await?;
            log::info!("made the user {name:?}; its password must be changed at the first login");
        }
        match token {
            Some(digest) => self.ensure_token("up", digest).await,
            None => Ok(()),
        }
    }

    /// Gives a user a new random password, which must be changed at the next login, and ends the
    /// user's sessions. Returns the password.
    pub(crate) async fn reset_password(
        &self,
        name: &str,
        source: IpAddr,
    ) -> Result<String, AccountError> {
        let user = self.state().user_by_name.get(name).cloned();
        let user = user.ok_or(AccountError::NotFound("user"))?;
        let password = random_password()?;
        let hash = self.hasher.hash(password.clone()).await?;
        self.put_user(name, User { hash, must_change: true, ..user }).await?;
        self.end_sessions(name, None).await?;
        self.state().throttle.forgive(name, source);
        Ok(password)
    }

    /// Changes a user's own password; `keep` is the session that asked, all others end.
    pub(crate) async fn change_password(
        &self,
        name: &str,
        old: &str,
        new: &str,
        source: IpAddr,
        keep: [u8; 32],
    ) -> Result<(), AccountError> {
        check_password(old, new)?;
        let user = self.verify(name, old, source).await?;
        let hash = self.hasher.hash(new.to_owned()).await?;
        self.put_user(name, User { hash, must_change: false, ..user }).await?;
        self.end_sessions(name, Some(keep)).await
    }

    /// The users' names.
    pub(crate) fn user_names(&self) -> Vec<String> {
        self.state().user_by_name.keys().cloned().collect()
    }

    /// Verifies a password, counting the attempt before the hash is made, so that many attempts
    /// at once count as many. An unknown user costs the same hash.
    async fn verify(
        &self,
        name: &str,
        password: &str,
        source: IpAddr,
    ) -> Result<User, AccountError> {
        let user = {
            let mut state = self.state();
            let now_ms = clock::monotonic_ms();
            state.throttle.begin(now_ms, name, source).map_err(AccountError::Throttled)?;
            state.user_by_name.get(name).cloned()
        };
        let hash = user.as_ref().map_or_else(PasswordHash::of_nobody, |user| user.hash.clone());
        let matches = self.hasher.verify(password.to_owned(), hash).await?;
        match user {
            Some(user) if matches => {
                self.state().throttle.succeeded(name, source);
                Ok(user)
            }
            Some(_) | None => Err(AccountError::WrongLogin),
        }
    }

    async fn put_user(&self, name: &str, user: User) -> Result<(), AccountError> {
        if !is_name(name) {
            return Err(AccountError::BadName);
        }
        let mut batch = Batch::new();
        records::put(&mut batch, records::USERS, name.as_bytes(), &user)?;
        let _writing = self.writing.lock().await;
        self.write(batch).await?;
        self.state().user_by_name.insert(name.to_owned(), user);
        Ok(())
    }

    /// Applies a batch and waits until it is durable.
    async fn write(&self, batch: Batch) -> Result<(), AccountError> {
        let store = Arc::clone(&self.store);
        smol::unblock(move || {
            store.apply(batch)?;
            store.sync()
        })
        .await
        .map_err(AccountError::from)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // State is changed in single steps, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn admin() -> String {
    String::from("admin")
}

/// Whether a user or token may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

fn check_password(old: &str, new: &str) -> Result<(), AccountError> {
    if new.chars().count() < PASSWORD_CHARS_MIN {
        return Err(AccountError::WeakPassword("a password has at least 10 characters"));
    }
    if new.len() > PASSWORD_BYTES_MAX {
        return Err(AccountError::WeakPassword("a password has at most 512 bytes"));
    }
    if new == old {
        return Err(AccountError::WeakPassword("the new password is the old one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
