//! The vendor's side: makes the signing key, gathers targets from a folder, signs a manifest and
//! publishes both where an Update server finds them.
//!
//! Not here: serving. Invariants: the secret key is written with mode 0600 and shown nowhere; a
//! manifest is published only after its targets are complete on the disk; versions only go up.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signer as _, SigningKey};
use lapwing_net::durable_file::{self, Access};
use lapwing_server_core::manifest::{
    Manifest, ManifestError, TARGET_LENGTH_MAX, Target, envelope, hex, is_target_name,
    open_envelope,
};
use sha2::{Digest as _, Sha256};

use crate::repository::{MANIFEST_FILE, TARGETS_FOLDER};

/// The vendor's signing key.
pub struct VendorKey(SigningKey);

/// A file to publish, and for what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What it is a package of: `sensor`, `server`, `rules`, `intel`.
    pub component: String,
    /// For which operating system; `any` for all.
    pub os: String,
    /// For which processor architecture; `any` for all.
    pub arch: String,
    /// Its version.
    pub version: String,
}

/// Why something cannot be published.
#[derive(Debug)]
pub enum VendorError {
    /// A file cannot be read or written.
    File {
        /// The file.
        file: PathBuf,
        /// The file system's word.
        error: io::Error,
    },
    /// A file is not the vendor's key.
    NotAKey {
        /// The file.
        file: PathBuf,
    },
    /// The operating system gives no random bytes.
    NoRandomness,
    /// A file's name cannot be that of a target.
    BadName {
        /// The file.
        file: PathBuf,
    },
    /// The manifest would not be taken.
    Manifest(ManifestError),
}

impl fmt::Display for VendorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, error } => write!(f, "{}: {error}", file.display()),
            Self::NotAKey { file } => write!(
                f,
                "{}: this is not an Ed25519 private key in PEM; restore the vendor's key",
                file.display()
            ),
            Self::NoRandomness => f.write_str("the operating system gives no random bytes"),
            Self::BadName { file } => write!(
                f,
                "{}: a target's name has 1 to 128 letters, digits, `.`, `_`, `-` and `+`, and begins \
                 with a letter or digit; rename the file",
                file.display()
            ),
            Self::Manifest(error) => write!(f, "the manifest would not be taken: {error}"),
        }
    }
}

impl std::error::Error for VendorError {}

impl VendorKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn create() -> Result<Self, VendorError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| VendorError::NoRandomness)?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// Loads a key that [`Self::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn load(file: &Path) -> Result<Self, VendorError> {
        let pem = fs::read_to_string(file).map_err(|error| failed(file, error))?;
        SigningKey::from_pkcs8_pem(&pem)
            .map(Self)
            .map_err(|_| VendorError::NotAKey { file: file.to_path_buf() })
    }

    /// Writes the secret key (PKCS #8 PEM, mode 0600) and the public key (64 hexadecimal digits).
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, secret: &Path, public: &Path) -> Result<(), VendorError> {
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| failed(secret, io::Error::other(error.to_string())))?;
        durable_file::write(secret, pem.as_bytes(), Access::Owner)
            .map_err(|error| failed(secret, error))?;
        let text = format!("{}\n", hex(&self.public()));
        durable_file::write(public, text.as_bytes(), Access::Everyone)
            .map_err(|error| failed(public, error))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a manifest: its file, in TUF's form.
    ///
    /// # Errors
    /// The manifest would not be taken by those who verify it.
    pub fn sign(&self, manifest: &Manifest) -> Result<Vec<u8>, VendorError> {
        manifest.check().map_err(VendorError::Manifest)?;
        let signed = manifest.to_bytes();
        let signature = self.0.sign(&signed).to_bytes();
        Ok(envelope(&signed, &self.public(), &signature))
    }
}

impl fmt::Debug for VendorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VendorKey({})", hex(&self.public()))
    }
}

/// Publishes `sources` as the repository in `folder`, in a manifest that ends at `expires_ms` (in
/// milliseconds since 1970; cut to a second). Its version is one above that of the manifest which
/// is there, 1 where there is none. Returns the manifest. Blocks on the disk.
///
/// # Errors
/// A file cannot be read or written, or the manifest would not be taken.
pub fn publish(
    key: &VendorKey,
    folder: &Path,
    expires_ms: u64,
    sources: &[Source],
) -> Result<Manifest, VendorError> {
    let targets_folder = folder.join(TARGETS_FOLDER);
    fs::create_dir_all(&targets_folder).map_err(|error| failed(&targets_folder, error))?;
    let version = published_version(key, folder)?.map_or(1, |version| version + 1);
    let mut targets = BTreeMap::new();
    for source in sources {
        let name = target_name(&source.path)?;
        let (length, sha256) = copy(&source.path, &targets_folder.join(&name))?;
        let Source { component, os, arch, version, .. } = source.clone();
        targets.insert(name, Target { length, sha256, component, os, arch, version });
    }
    let manifest = Manifest { version, expires_ms: expires_ms / 1_000 * 1_000, targets };
    let file = folder.join(MANIFEST_FILE);
    durable_file::write(&file, &key.sign(&manifest)?, Access::Everyone)
        .map_err(|error| failed(&file, error))?;
    Ok(manifest)
}

/// The files of a folder, in order of their names, all for the same component and platform. Folders
/// in it and files whose names begin with a dot are left out.
///
/// # Errors
/// The folder cannot be read.
pub fn sources_in(folder: &Path, like: &Source) -> Result<Vec<Source>, VendorError> {
    let unreadable = |error| failed(folder, error);
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type().map_err(unreadable)?.is_file() && !is_hidden {
            sources.push(Source { path: entry.path(), ..like.clone() });
        }
    }
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(sources)
}

/// The version of the manifest that is there, by its bytes; whether it has expired does not matter.
fn published_version(key: &VendorKey, folder: &Path) -> Result<Option<u64>, VendorError> {
    let file = folder.join(MANIFEST_FILE);
    let bytes = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| failed(&file, error))?,
    };
    let opened = open_envelope(&bytes, &key.public()).map_err(VendorError::Manifest)?;
    let manifest = Manifest::parse(opened.signed).map_err(VendorError::Manifest)?;
    Ok(Some(manifest.version))
}

fn target_name(path: &Path) -> Result<String, VendorError> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_target_name(name));
    name.map(str::to_owned).ok_or_else(|| VendorError::BadName { file: path.to_path_buf() })
}

/// Copies a file durably under another name and returns its length and SHA-256.
fn copy(from: &Path, to: &Path) -> Result<(u64, [u8; 32]), VendorError> {
    let mut source = File::open(from).map_err(|error| failed(from, error))?;
    let unfinished = to.with_file_name(format!(
        ".{}.new",
        to.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
    ));
    let write_failed = |error| failed(&unfinished, error);
    let mut target = File::create(&unfinished).map_err(write_failed)?;
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = source.read(&mut buffer).map_err(|error| failed(from, error))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        digest.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(write_failed)?;
    }
    if length > TARGET_LENGTH_MAX {
        return Err(failed(from, io::Error::other("the file is larger than a target may be")));
    }
    target.sync_all().map_err(write_failed)?;
    fs::rename(&unfinished, to).map_err(|error| failed(to, error))?;
    let folder = to.parent().unwrap_or_else(|| Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed(folder, error))?;
    Ok((length, digest.finalize().into()))
}

fn failed(file: &Path, error: io::Error) -> VendorError {
    VendorError::File { file: file.to_path_buf(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES_MS: u64 = 4_107_542_399_500;

    fn source(path: PathBuf) -> Source {
        let [component, os, arch, version] =
            ["sensor", "linux", "x86_64", "0.1.0"].map(String::from);
        Source { path, component, os, arch, version }
    }

    #[test]
    fn a_key_comes_back_from_its_file_and_the_secret_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, public) = (folder.path().join("vendor.pem"), folder.path().join("vendor.pub"));
        let key = VendorKey::create().unwrap();
        key.save(&secret, &public).unwrap();
        assert_eq!(VendorKey::load(&secret).unwrap().public(), key.public());
        assert_eq!(fs::read_to_string(&public).unwrap().trim(), hex(&key.public()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let shown = format!("{key:?}");
        assert!(!fs::read_to_string(&secret).unwrap().contains(&shown), "{shown}");
        fs::write(&secret, "nonsense").unwrap();
        assert!(matches!(VendorKey::load(&secret), Err(VendorError::NotAKey { .. })));
    }

    #[test]
    fn each_publication_has_the_next_version_and_its_own_targets() {
        let folder = tempfile::tempdir().unwrap();
        let (files, repository) = (folder.path().join("files"), folder.path().join("repository"));
        fs::create_dir(&files).unwrap();
        fs::write(files.join("lapwing-sensor"), b"abc").unwrap();
        fs::write(files.join(".hidden"), b"no").unwrap();
        let key = VendorKey::create().unwrap();
        let sources = sources_in(&files, &source(PathBuf::new())).unwrap();
        let first = publish(&key, &repository, EXPIRES_MS, &sources).unwrap();
        let second = publish(&key, &repository, EXPIRES_MS, &sources).unwrap();
        assert_eq!((first.version, second.version), (1, 2));
        let target = &second.targets["lapwing-sensor"];
        assert_eq!((target.length, second.targets.len()), (3, 1));
        assert!(hex(&target.sha256).starts_with("ba7816bf"));
        assert_eq!(fs::read(repository.join("targets/lapwing-sensor")).unwrap(), b"abc");
    }

    #[test]
    fn names_that_are_no_targets_and_anothers_repository_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b");
        fs::write(&file, b"abc").unwrap();
        let key = VendorKey::create().unwrap();
        let repository = folder.path().join("repository");
        let refused = publish(&key, &repository, EXPIRES_MS, &[source(file)]);
        assert!(matches!(refused, Err(VendorError::BadName { .. })));
        publish(&key, &repository, EXPIRES_MS, &[]).unwrap();
        let other = VendorKey::create().unwrap();
        let refused = publish(&other, &repository, EXPIRES_MS, &[]);
        assert!(matches!(refused, Err(VendorError::Manifest(ManifestError::OtherKey))));
    }
}
