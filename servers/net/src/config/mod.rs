//! Configuration files: TOML, one file a server, every mistake named by file, line, key and remedy.
//!
//! Not here: defaults of a role's own section (they live with the role) and anything that opens a
//! socket. Invariants: an unknown key is refused, never ignored; a relative path means "relative to
//! the folder of the configuration file"; a secret never stands in the file itself but in a file
//! that it names.

mod error;
mod locate;
mod quantity;
mod secret;
mod server;
mod storage;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use error::{ConfigError, ConfigErrorKind, Refusal};
pub use quantity::{Period, Size};
pub use secret::{Secret, SecretError, TokenDigest};
pub use server::{LogLevel, Server, ServerLimits, Tls, identifier};
pub use storage::{Backup, Storage};

use crate::identity::Role;
use locate::Locations;

/// The largest configuration file that is read: far above any real one, far below what would hurt.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The configuration of one role: its own sections beside the common `[server]`.
///
/// Derive `serde::Deserialize` with `#[serde(deny_unknown_fields)]` on every struct of it: that is
/// what lets [`load`] refuse a misspelt key and name its nearest neighbour.
pub trait Config: DeserializeOwned {
    /// The roles that such a file may configure; one, but for the two threat intelligence servers.
    const ROLES: &'static [Role];

    /// A complete file with a comment above every key. A key that may be left out is written `#key
    /// = value` (no blank after `#`), prose is written `# like this`. [`check_example`] holds it to
    /// that.
    const EXAMPLE: &'static str;

    /// The common section.
    fn server(&self) -> &Server;

    /// Every path in the file, so that relative ones can be resolved. Begin with [`Server::paths`].
    fn paths(&mut self) -> Vec<&mut PathBuf>;

    /// What the types cannot say: ranges, and keys that need each other.
    ///
    /// # Errors
    /// The first key that is wrong, by its dotted name.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Reads and checks a configuration file. Relative paths in it become absolute.
///
/// # Errors
/// The file cannot be read, is not TOML, has a key that is unknown, missing or wrong.
pub fn load<T: Config>(path: &Path) -> Result<T, ConfigError> {
    let text = read_text(path)?;
    parse(path, &text)
}

/// As [`load`], for text already read; `file` names it in errors and its folder anchors relative
/// paths.
///
/// # Errors
/// As [`load`], but for reading.
pub fn parse<T: Config>(file: &Path, text: &str) -> Result<T, ConfigError> {
    let locations =
        Locations::parse(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
    let mut config: T = toml::from_str(text)
        .map_err(|error| ConfigError::from_serde(file, T::ROLES, &locations, &error))?;
    check_role(config.server().role, T::ROLES)
        .and_then(|()| config.server().check())
        .and_then(|()| config.check())
        .map_err(|refusal| ConfigError::refused(file, &locations, refusal))?;
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let anchor = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    for path in config.paths() {
        if path.is_relative() {
            *path = anchor.join(&*path);
        }
    }
    Ok(config)
}

/// Finds which role a file is for without knowing its type: the `role` key of `[server]`.
///
/// # Errors
/// The file cannot be read, is not TOML, or does not say.
pub fn role_of(path: &Path) -> Result<Role, ConfigError> {
    let text = read_text(path)?;
    let locations =
        Locations::parse(&text).map_err(|error| ConfigError::syntax(path, &text, &error))?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| ConfigError::syntax(path, &text, &error))?;
    let named =
        table.get("server").and_then(|server| server.get("role")).and_then(|role| role.as_str());
    named.and_then(|name| name.parse().ok()).ok_or_else(|| {
        let problem = match named {
            Some(name) => format!("{name:?} is not a role"),
            None => String::from("the file does not say which server it configures"),
        };
        let remedy = format!("write one of {}", Role::names().join(", "));
        ConfigError::refused(path, &locations, Refusal::new("server.role", problem, remedy))
    })
}

/// For a role's tests: its example parses, every key has a comment above it, and so it is with
/// every optional key (`#key = value`) put in force.
///
/// # Errors
/// What is wrong with the example, in words.
pub fn check_example<T: Config>() -> Result<T, String> {
    let file = PathBuf::from("example.toml");
    let mut all_keys = String::new();
    let mut previous_is_comment = false;
    for (index, line) in T::EXAMPLE.lines().enumerate() {
        let prose = line.starts_with("# ") || line == "#";
        let bare = if prose { "" } else { line.strip_prefix('#').unwrap_or(line) };
        let is_key = bare.contains('=') && !bare.starts_with([' ', ']', '}', '"']);
        if is_key && !previous_is_comment {
            return Err(format!("line {}: no comment above `{bare}`", index + 1));
        }
        previous_is_comment = prose;
        all_keys.push_str(bare);
        all_keys.push('\n');
    }
    parse::<T>(&file, &all_keys).map_err(|error| format!("with every optional key: {error}"))?;
    parse::<T>(&file, T::EXAMPLE).map_err(|error| error.to_string())
}

fn check_role(role: Role, accepted: &[Role]) -> Result<(), Refusal> {
    if accepted.contains(&role) {
        return Ok(());
    }
    let names: Vec<&str> = accepted.iter().map(|role| role.name()).collect();
    Err(Refusal::new(
        "server.role",
        format!("this file is for {role}, not for {}", names.join(" or ")),
        format!("start `lapwing {role}` with it, or name another file"),
    ))
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let length =
        std::fs::metadata(path).map_err(|error| ConfigError::unreadable(path, &error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(ConfigError::too_long(path, length));
    }
    std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))
}
