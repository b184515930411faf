//! Accounts over a store in memory: login, sessions, tokens, audit, and what survives a restart.

use std::net::IpAddr;
use std::sync::Arc;

use lapwing_net::config::TokenDigest;
use lapwing_store::MemoryDisk;
use smol::block_on;

use super::{AccountError, Accounts};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn open(disk: &MemoryDisk) -> Accounts {
    Accounts::open(Arc::new(disk.open().unwrap())).unwrap()
}

fn with_admin(disk: &MemoryDisk) -> Accounts {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    lapwing_net::durable_file::write(
        &file,
        b"first password\n",
        lapwing_net::durable_file::Access::Owner,
    )
    .unwrap();
    let accounts = open(disk);
    block_on(accounts.ensure_first("admin", &file, Some(TokenDigest::of("secret token")))).unwrap();
    accounts
}

#[test]
fn the_first_password_must_be_changed_and_the_change_ends_other_sessions() {
    let disk = MemoryDisk::new("accounts");
    let accounts = with_admin(&disk);
    block_on(async {
        let one = accounts.log_in("admin", "first password", HERE).await.unwrap();
        let other = accounts.log_in("admin", "first password", HERE).await.unwrap();
        assert!(one.must_change);
        let session = accounts.session(&one.secret).await.unwrap();
        assert!(session.must_change);
        accounts
            .change_password("admin", "first password", "second password", HERE, session.digest)
            .await
            .unwrap();
        assert!(!accounts.session(&one.secret).await.unwrap().must_change);
        assert!(accounts.session(&other.secret).await.is_none());
    });
}

#[test]
fn sessions_and_changes_survive_a_restart_and_the_password_file_is_needed_once() {
    let disk = MemoryDisk::new("accounts");
    let accounts = with_admin(&disk);
    let login = block_on(accounts.log_in("admin", "first password", HERE)).unwrap();
    drop(accounts);
    let accounts = open(&disk);
    block_on(async {
        accounts.ensure_first("admin", std::path::Path::new("gone"), None).await.unwrap();
        assert_eq!(accounts.session(&login.secret).await.unwrap().user, "admin");
        assert_eq!(accounts.token_name("secret token").as_deref(), Some("up"));
    });
}

#[test]
fn an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    let accounts = with_admin(&MemoryDisk::new("accounts"));
    block_on(async {
        let wrong = accounts.log_in("admin", "nonsense", HERE).await.err();
        let unknown = accounts.log_in("nobody", "nonsense", HERE).await.err();
        assert_eq!(wrong, Some(AccountError::WrongLogin));
        assert_eq!(wrong, unknown);
    });
}

#[test]
fn the_sixth_failure_is_throttled_and_a_reset_forgives() {
    let accounts = with_admin(&MemoryDisk::new("accounts"));
    block_on(async {
        for source in 1..=5 {
            let source = IpAddr::from([10, 0, 0, source]);
            let _ = accounts.log_in("admin", "nonsense", source).await;
            let _ = accounts.log_in(&source.to_string(), "nonsense", HERE).await;
        }
        let right = accounts.log_in("admin", "first password", HERE).await.err();
        assert!(matches!(right, Some(AccountError::Throttled(_))), "{right:?}");
        let password = accounts.reset_password("admin", HERE).await.unwrap();
        assert!(accounts.log_in("admin", &password, HERE).await.unwrap().must_change);
    });
}

#[test]
fn a_logged_out_session_is_gone() {
    let accounts = with_admin(&MemoryDisk::new("accounts"));
    block_on(async {
        let login = accounts.log_in("admin", "first password", HERE).await.unwrap();
        let session = accounts.session(&login.secret).await.unwrap();
        accounts.log_out(session.digest).await.unwrap();
        assert!(accounts.session(&login.secret).await.is_none());
        assert!(accounts.session("not hexadecimal").await.is_none());
    });
}

#[test]
fn a_revoked_token_is_not_taken_in_again() {
    let disk = MemoryDisk::new("accounts");
    let accounts = with_admin(&disk);
    block_on(async {
        let id = accounts.tokens().remove(0).id;
        accounts.revoke_token(&id).await.unwrap();
        assert_eq!(accounts.token_name("secret token"), None);
        let gone = std::path::Path::new("gone");
        let digest = Some(TokenDigest::of("secret token"));
        accounts.ensure_first("admin", gone, digest).await.unwrap();
        assert_eq!(accounts.token_name("secret token"), None);
    });
}

#[test]
fn audit_records_are_chained_across_restarts() {
    let disk = MemoryDisk::new("accounts");
    let accounts = with_admin(&disk);
    block_on(accounts.audit("admin", HERE, "login", "", "ok")).unwrap();
    drop(accounts);
    let accounts = open(&disk);
    block_on(accounts.audit("admin", HERE, "reputation add", "hash", "ok")).unwrap();
    let lines = accounts.audit_lines(10).unwrap();
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(lines[1].before, "00".repeat(32));
    assert_ne!(lines[0].before, "00".repeat(32));
}
