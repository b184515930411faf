//! Passwords: argon2id with the parameters that OWASP names, a bounded number of hashes at once.
//!
//! Invariant: comparing looks at every byte, and an unknown user costs what a known one costs.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use smol::lock::Semaphore;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::AccountError;
use crate::limits::{HASHES_AT_ONCE, HASHES_WAITING_MAX, PASSWORD_BYTES_MAX};

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19_456;
/// Passes.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// A password as it is kept. The parameters are kept too, so that they can rise.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
    hash: [u8; 32],
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl PasswordHash {
    /// What is compared with where there is no user: no password has this hash.
    pub(super) fn of_nobody() -> Self {
        Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: [0; 16], hash: [0; 32] }
    }

    fn make(password: &str) -> Result<Self, AccountError> {
        let mut made = Self::of_nobody();
        fill(&mut made.salt)?;
        made.hash = made.compute(password)?;
        Ok(made)
    }

    fn matches(&self, password: &str) -> Result<bool, AccountError> {
        Ok(same(&self.compute(password)?, &self.hash))
    }

    fn compute(&self, password: &str) -> Result<[u8; 32], AccountError> {
        let failed = |_| AccountError::Machine("the password cannot be hashed");
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut hash = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &self.salt, &mut hash)
            .map_err(failed)?;
        Ok(hash)
    }
}

/// Makes hashes away from the executor, a few at once.
pub(super) struct Hasher {
    permits: Semaphore,
    waiting: AtomicUsize,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { permits: Semaphore::new(HASHES_AT_ONCE), waiting: AtomicUsize::new(0) }
    }
}

impl Hasher {
    /// The hash of a new password.
    pub(super) async fn hash(&self, password: String) -> Result<PasswordHash, AccountError> {
        self.bounded(move || PasswordHash::make(&password)).await
    }

    /// Whether `password` is the one of `hash`.
    pub(super) async fn verify(
        &self,
        password: String,
        hash: PasswordHash,
    ) -> Result<bool, AccountError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        self.bounded(move || hash.matches(&password)).await
    }

    async fn bounded<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let waiting = Waiting::enter(&self.waiting).ok_or(AccountError::Busy)?;
        let _permit = self.permits.acquire().await;
        drop(waiting);
        smol::unblock(work).await
    }
}

/// One who waits; leaves when dropped, also when the request was given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < HASHES_WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Compares without telling where the difference is.
pub(super) fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
    std::hint::black_box(difference) == 0
}

/// Fills a buffer with random bytes.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), AccountError> {
    let failed = AccountError::Machine("the operating system gives no random bytes");
    getrandom::fill(bytes).map_err(|_| failed)
}

/// A random password that is easy to type: four groups of five letters and digits, 100 bits.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn random_password() -> Result<String, AccountError> {
    // 32 signs, so that each byte gives one without bias; 0, 1, l and o look like others.
    const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 20];
    fill(&mut bytes)?;
    let mut password = String::new();
    for (position, byte) in bytes.iter().enumerate() {
        if position > 0 && position % 5 == 0 {
            password.push('-');
        }
        password.push(char::from(SIGNS[usize::from(byte & 31)]));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::{PasswordHash, random_password};

    #[test]
    fn only_the_password_matches_its_hash() {
        let hash = PasswordHash::make("correct horse").unwrap();
        assert!(hash.matches("correct horse").unwrap());
        assert!(!hash.matches("correct horsf").unwrap());
        assert!(!PasswordHash::of_nobody().matches("").unwrap());
    }

    #[test]
    fn random_passwords_are_typable_and_differ() {
        let (one, other) = (random_password().unwrap(), random_password().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [5, 5, 5, 5]);
    }
}
