//! API tokens: bearer secrets for scripts, kept as their SHA-256.
//!
//! Invariant: a revoked token stays in the list, revoked, so that it cannot be taken in again.

use lapwing_net::clock;
use lapwing_net::config::TokenDigest;
use lapwing_net::hexadecimal::decode;
use lapwing_store::Batch;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::records::{self, ApiToken, TOKENS};
use super::{AccountError, Accounts, password};
use crate::view::Time;

/// A token in a list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenLine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) made: Time,
    pub(crate) revoked: Option<Time>,
}

impl Accounts {
    /// Takes a token in by its digest, unless it is known (or was revoked).
    pub(super) async fn ensure_token(
        &self,
        name: &str,
        digest: TokenDigest,
    ) -> Result<(), AccountError> {
        let digest = decode::<32>(&digest.to_string())
            .ok_or(AccountError::Machine("a digest is malformed"))?;
        if self.state().token_by_id.values().any(|token| token.digest == digest) {
            return Ok(());
        }
        let made_ms = clock::unix_ms();
        self.put_token(ApiToken { name: name.to_owned(), digest, made_ms, revoked_ms: None }).await
    }

    /// The name of a token that is presented, if it is known and stands.
    pub(crate) fn token_name(&self, token: &str) -> Option<String> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let state = self.state();
        let mut found = None;
        // All are looked at: which one it was must not show in the time.
        for known in state.token_by_id.values() {
            if password::same(&known.digest, &digest) && known.revoked_ms.is_none() {
                found = Some(known.name.clone());
            }
        }
        found
    }

    /// Every token, without its secret.
    pub(crate) fn tokens(&self) -> Vec<TokenLine> {
        let state = self.state();
        let tokens = state.token_by_id.iter();
        tokens
            .map(|(id, token)| TokenLine {
                id: id.clone(),
                name: token.name.clone(),
                made: Time::from_ms(token.made_ms),
                revoked: token.revoked_ms.map(Time::from_ms),
            })
            .collect()
    }

    /// Ends a token for good.
    pub(crate) async fn revoke_token(&self, id: &str) -> Result<(), AccountError> {
        let token = self.state().token_by_id.get(id).cloned();
        let token = token.ok_or(AccountError::NotFound("token"))?;
        let revoked_ms = token.revoked_ms.or(Some(clock::unix_ms()));
        self.put_token(ApiToken { revoked_ms, ..token }).await
    }

    async fn put_token(&self, token: ApiToken) -> Result<(), AccountError> {
        let id = lapwing_net::hexadecimal::encode(&token.digest[..8]);
        let mut batch = Batch::new();
        records::put(&mut batch, TOKENS, id.as_bytes(), &token)?;
        let _writing = self.writing.lock().await;
        self.write(batch).await?;
        self.state().token_by_id.insert(id, token);
        Ok(())
    }
}
