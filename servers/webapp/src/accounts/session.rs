//! Sessions: a secret of 256 bits in a cookie, kept as its SHA-256.
//!
//! Invariants: a login makes a new secret; a session ends after twelve hours, after thirty idle
//! minutes, at logout and when the password changes; the request token is derived from the secret,
//! so that it belongs to one session and needs no place of its own.

use std::net::IpAddr;

use lapwing_net::clock;
use lapwing_net::hexadecimal::{decode, encode};
use lapwing_store::Batch;
use sha2::{Digest as _, Sha256};

use super::records::{self, SESSIONS, Session};
use super::{AccountError, Accounts, State, password};
use crate::limits::{SESSION_IDLE_MS_MAX, SESSION_MS_MAX, SESSION_TOUCH_MS, SESSIONS_PER_USER_MAX};

/// What a login gives.
pub(crate) struct Login {
    /// The cookie's value.
    pub(crate) secret: String,
    /// Whether the password must be changed before anything else.
    pub(crate) must_change: bool,
}

/// Whose session a request belongs to.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) user: String,
    /// The token that requests which change something must carry.
    pub(crate) request_token: String,
    pub(crate) must_change: bool,
    pub(crate) digest: [u8; 32],
}

impl Accounts {
    /// Logs a user in.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: &str,
        source: IpAddr,
    ) -> Result<Login, AccountError> {
        let user = self.verify(name, password, source).await?;
        let mut secret = [0; 32];
        password::fill(&mut secret)?;
        let digest = digest_of(&secret);
        let now_ms = clock::unix_ms();
        let user_name = name.to_owned();
        let session =
            Session { user: user_name, made_ms: now_ms, noted_ms: now_ms, used_ms: now_ms };
        let _writing = self.writing.lock().await;
        let mut batch = Batch::new();
        let gone = self.state().surplus(name, now_ms);
        for other in &gone {
            records::delete(&mut batch, SESSIONS, other)?;
        }
        records::put(&mut batch, SESSIONS, &digest, &session)?;
        self.write(batch).await?;
        let mut state = self.state();
        for other in &gone {
            state.session_by_digest.remove(other);
        }
        state.session_by_digest.insert(digest, session);
        Ok(Login { secret: encode(&secret), must_change: user.must_change })
    }

    /// The session of a cookie's value, if it stands. Its use is noted.
    pub(crate) async fn session(&self, secret: &str) -> Option<SessionView> {
        let secret = decode::<32>(secret)?;
        let digest = digest_of(&secret);
        let now_ms = clock::unix_ms();
        let (view, touched) = {
            let mut state = self.state();
            let session = state.session_by_digest.get_mut(&digest)?;
            if !stands(session, now_ms) {
                return None;
            }
            session.used_ms = now_ms;
            let is_old = now_ms.saturating_sub(session.noted_ms) >= SESSION_TOUCH_MS;
            if is_old {
                session.noted_ms = now_ms;
            }
            let touched = is_old.then(|| session.clone());
            let user = session.user.clone();
            let must_change = state.user_by_name.get(&user)?.must_change;
            (
                SessionView { user, request_token: request_token(&secret), must_change, digest },
                touched,
            )
        };
        if let Some(session) = touched {
            let mut batch = Batch::new();
            records::put(&mut batch, SESSIONS, &digest, &session).ok()?;
            let _writing = self.writing.lock().await;
            if let Err(error) = self.write(batch).await {
                log::warn!("a session's use cannot be noted: {error}");
            }
        }
        Some(view)
    }

    /// Ends one session.
    pub(crate) async fn log_out(&self, digest: [u8; 32]) -> Result<(), AccountError> {
        self.end(&[digest]).await
    }

    /// Ends a user's sessions, but for `keep`.
    pub(super) async fn end_sessions(
        &self,
        name: &str,
        keep: Option<[u8; 32]>,
    ) -> Result<(), AccountError> {
        let digests: Vec<_> = {
            let state = self.state();
            let sessions = state.session_by_digest.iter();
            sessions
                .filter(|(digest, session)| session.user == name && Some(**digest) != keep)
                .map(|(digest, _)| *digest)
                .collect()
        };
        self.end(&digests).await
    }

    async fn end(&self, digests: &[[u8; 32]]) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        for digest in digests {
            records::delete(&mut batch, SESSIONS, digest)?;
        }
        let _writing = self.writing.lock().await;
        // Gone from memory first: an ended session must not be used while the disk is slow.
        for digest in digests {
            self.state().session_by_digest.remove(digest);
        }
        self.write(batch).await
    }
}

impl State {
    /// Sessions that ended by time, and the user's oldest beyond the bound.
    fn surplus(&self, name: &str, now_ms: u64) -> Vec<[u8; 32]> {
        let sessions = self.session_by_digest.iter();
        let (standing, mut gone): (Vec<_>, Vec<_>) =
            sessions.partition(|(_, session)| stands(session, now_ms));
        let mut own: Vec<_> =
            standing.into_iter().filter(|(_, session)| session.user == name).collect();
        own.sort_by_key(|(_, session)| session.made_ms);
        let surplus = (own.len() + 1).saturating_sub(SESSIONS_PER_USER_MAX);
        gone.extend(own.into_iter().take(surplus));
        gone.into_iter().map(|(digest, _)| *digest).collect()
    }
}

fn stands(session: &Session, now_ms: u64) -> bool {
    now_ms.saturating_sub(session.made_ms) < SESSION_MS_MAX
        && now_ms.saturating_sub(session.used_ms) < SESSION_IDLE_MS_MAX
}

fn digest_of(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn request_token(secret: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"lapwing request token");
    hash.update(secret);
    let digest: [u8; 32] = hash.finalize().into();
    encode(&digest)
}
