//! Accounts of the machine, and who of them is logged in.
//!
//! Read from `/etc/passwd` and `utmp`; directories of the network (LDAP, Active Directory) are not
//! asked. A file is read again only when its change time says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lapwing_protocol::element::{Change, user};

use super::fact::{CollectedFact, FactBuilder, OwnedValue, Room};
use super::limits::{FILE_BYTES_MAX, KEY_TEXT_BYTES_MAX, USERS_MAX};
use super::procfs::{Text, read_bounded};
use super::queue::Source;
use super::stamp::Stamp;
use crate::sys::native;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: Text,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: Text,
    pub(crate) shell: Text,
}

/// Parses a `passwd` file; a line that is none is passed over.
pub(crate) fn parse_accounts(text: &[u8]) -> Vec<Account> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = number(fields.nth(1)?)?;
            let gid = number(fields.next()?)?;
            let home = fields.nth(1)?.into();
            let shell = fields.next()?.into();
            let name = name.get(..KEY_TEXT_BYTES_MAX).unwrap_or(name).into();
            Some(Account { name, uid, gid, home, shell })
        })
        .take(USERS_MAX)
        .collect()
}

/// The names that `utmp` shows an open session of.
pub(crate) fn parse_logged_in(utmp: &[u8]) -> BTreeSet<Text> {
    // struct utmp of glibc: type at 0, user (32 bytes) at 44, in records of 384 bytes, everywhere.
    const RECORD_BYTES: usize = 384;
    const USER_PROCESS: u16 = 7;
    utmp.chunks_exact(RECORD_BYTES)
        .filter(|record| native::u16_at(record, 0) == Some(USER_PROCESS))
        .filter_map(|record| {
            let name = record.get(44..76)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            name.get(..end).filter(|name| !name.is_empty()).map(Into::into)
        })
        .collect()
}

/// A file that is read again only when it changed.
#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    stamp: Stamp,
}

impl WatchedFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: Stamp::default() }
    }

    /// The content, if it is not the content of last time. A file that is gone is empty.
    fn changed(&mut self) -> Option<Vec<u8>> {
        if !self.stamp.changed([&self.path]) {
            return None;
        }
        Some(read_bounded(&self.path, FILE_BYTES_MAX).unwrap_or_default())
    }
}

/// Names of users by their number.
#[derive(Debug)]
pub(crate) struct UserNames {
    inner: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    file: WatchedFile,
    names: BTreeMap<u32, Text>,
}

impl UserNames {
    pub(crate) fn new(passwd: &Path) -> Self {
        let names = Names { file: WatchedFile::new(passwd), names: BTreeMap::new() };
        let users = Self { inner: Mutex::new(names) };
        users.refresh();
        users
    }

    /// Looks whether the accounts changed.
    pub(crate) fn refresh(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = inner.file.changed() {
            // The first name of a number is its name.
            let accounts = parse_accounts(&text).into_iter().rev();
            inner.names = accounts.map(|account| (account.uid, account.name)).collect();
        }
    }

    pub(crate) fn name_of(&self, uid: u32) -> Option<Text> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.names.get(&uid).cloned()
    }
}

/// Tells what changed of the accounts.
#[derive(Debug)]
pub(crate) struct UserCollector {
    passwd: WatchedFile,
    utmp: WatchedFile,
    accounts: Vec<Account>,
    logged_in: BTreeSet<Text>,
    told: BTreeMap<(u32, Text), (Account, bool)>,
}

impl UserCollector {
    pub(crate) fn new(passwd: &Path, utmp: &Path) -> Self {
        Self {
            passwd: WatchedFile::new(passwd),
            utmp: WatchedFile::new(utmp),
            accounts: Vec::new(),
            logged_in: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// Forgets what was told, so that everything is told again.
    pub(crate) fn tell_again(&mut self) {
        self.passwd.stamp = Stamp::default();
        self.told.clear();
    }

    /// Gives what changed since the last look to `give`.
    pub(crate) fn collect(&mut self, now_ns: u64, mut give: impl FnMut(CollectedFact)) {
        let accounts = self.passwd.changed().map(|text| parse_accounts(&text));
        let logged_in = self.utmp.changed().map(|utmp| parse_logged_in(&utmp));
        if accounts.is_none() && logged_in.is_none() {
            return;
        }
        self.accounts = accounts.unwrap_or_else(|| std::mem::take(&mut self.accounts));
        self.logged_in = logged_in.unwrap_or_else(|| std::mem::take(&mut self.logged_in));
        let mut current = BTreeMap::new();
        for account in &self.accounts {
            let key = (account.uid, account.name.clone());
            let state = (account.clone(), self.logged_in.contains(&account.name));
            if self.told.get(&key) != Some(&state) {
                give(fact(&state, now_ns));
            }
            current.insert(key, state);
        }
        for ((uid, name), _) in self.told.iter().filter(|(key, _)| !current.contains_key(*key)) {
            let ended = FactBuilder::new(Source::Users, user::KIND, Change::Ended, now_ns)
                .number(user::uid, u64::from(*uid))
                .text(user::name, name, Room::Key);
            give(ended.build());
        }
        self.told = current;
    }
}

fn fact((account, logged_in): &(Account, bool), now_ns: u64) -> CollectedFact {
    FactBuilder::new(Source::Users, user::KIND, Change::Whole, now_ns)
        .number(user::uid, u64::from(account.uid))
        .text(user::name, &account.name, Room::Key)
        .number(user::gid, u64::from(account.gid))
        .text(user::home, &account.home, Room::Path)
        .text(user::shell, &account.shell, Room::Path)
        .value(user::logged_in, OwnedValue::Bool(*logged_in))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:/bin/sh\n\
        nonsense\n:x:1:1::/:/\nana:x:1000:1000:Ana,,,:/home/ana:/bin/zsh\n";

    #[test]
    fn accounts_are_read_and_nonsense_is_not() {
        let accounts = parse_accounts(PASSWD);
        let names: Vec<_> = accounts.iter().map(|account| &*account.name).collect();
        assert_eq!(names, [&b"root"[..], b"toor", b"ana"]);
        assert_eq!((accounts[2].uid, &*accounts[2].shell), (1000, &b"/bin/zsh"[..]));
    }

    #[test]
    fn only_changes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        std::fs::write(&passwd, PASSWD).unwrap();
        let mut collector = UserCollector::new(&passwd, &folder.path().join("utmp"));
        let collect = |collector: &mut UserCollector| {
            let mut facts = Vec::new();
            collector.collect(1, |fact| facts.push(fact));
            facts
        };
        assert_eq!(collect(&mut collector).len(), 3);
        assert_eq!(collect(&mut collector), []);
        std::fs::write(&passwd, &PASSWD[..54]).unwrap();
        let facts = collect(&mut collector);
        assert_eq!(facts.len(), 1);
        assert_eq!(facts[0].change, Change::Ended);
        assert_eq!(facts[0].text(user::name), Some("ana"));
        collector.tell_again();
        assert_eq!(collect(&mut collector).len(), 2);
        assert_eq!(UserNames::new(&passwd).name_of(0).as_deref(), Some(&b"root"[..]));
    }

    #[test]
    fn open_sessions_are_told_from_closed_ones() {
        let record = |kind: u16, name: &[u8]| {
            let mut record = vec![0; 384];
            record[..2].copy_from_slice(&{
                let mut bytes = Vec::new();
                native::push_u16(&mut bytes, kind);
                bytes
            });
            record[44..44 + name.len()].copy_from_slice(name);
            record
        };
        let mut utmp = record(7, b"ana");
        utmp.extend(record(8, b"bob"));
        utmp.extend_from_slice(&[7; 100]);
        assert_eq!(parse_logged_in(&utmp), BTreeSet::from([b"ana"[..].into()]));
    }
}
