//! What an operator reads when a configuration is wrong, word for word; and that a right one is
//! taken as written.
//!
//! Not here: a role's own sections.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_net::config::{
    self, Config, ConfigError, ConfigErrorKind, LogLevel, Period, Refusal, Server, Size,
};
use lapwing_net::identity::Role;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    server: Server,
    detection: Detection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detection {
    sensors_max: u32,
    cache: Size,
    checkpoint_every: Period,
    #[serde(default)]
    rules_dir: Option<PathBuf>,
}

impl Config for Example {
    const ROLES: &'static [Role] = &[Role::Detection];
    const EXAMPLE: &'static str = EXAMPLE;

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        paths.extend(self.detection.rules_dir.iter_mut());
        paths
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.detection.sensors_max {
            0 => Err(Refusal::new(
                "detection.sensors_max",
                "no sensor could connect",
                "write at least 1",
            )),
            _ => Ok(()),
        }
    }
}

const EXAMPLE: &str = r#"# The section every server has.
[server]
# Which server this file is for.
role = "detection"
# Its name.
name = "d1"
# Its store.
data_dir = "data"
# The installation.
deployment = "000102030405060708090a0b0c0d0e0f"
# Where it listens.
listen = ["127.0.0.1:443", "[::1]:443"]
# The digest of the token for the metrics.
#metrics_token_file = "metrics.sha256"
# The least important level that is logged.
#log_level = "info"

[server.tls]
# Its certificate.
cert = "d1.pem"
# Its key.
key = "/etc/lapwing/d1.key"
# The authority that signed it.
ca = "ca.pem"
# The authorities of its clients.
#client_ca = ["ca.pem", "vendor.pem"]

[detection]
# Sensors at once.
sensors_max = 1000
# The store's cache.
cache = "64 MiB"
# Between two checkpoints.
checkpoint_every = "30 s"
# Where rules are.
#rules_dir = "rules"
"#;

fn parse(text: &str) -> Result<Example, ConfigError> {
    config::parse(Path::new("/etc/lapwing/d1.toml"), text)
}

/// The example with one line changed.
fn with_line(old: &str, new: &str) -> ConfigError {
    assert!(EXAMPLE.contains(old), "the example has no {old:?}");
    parse(&EXAMPLE.replace(old, new)).unwrap_err()
}

#[test]
fn the_example_parses_with_and_without_its_optional_keys() {
    let example = config::check_example::<Example>().unwrap();
    assert_eq!(example.server.name, "d1");
    assert_eq!(example.server.log_level, LogLevel::Info);
    assert_eq!(example.detection.cache.bytes(), 64 << 20);
    assert_eq!(example.detection.checkpoint_every.0, Duration::from_secs(30));
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let example = parse(&EXAMPLE.replace("#rules_dir", "rules_dir")).unwrap();
    assert_eq!(example.server.data_dir, Path::new("/etc/lapwing/data"));
    assert_eq!(example.server.tls.cert, Path::new("/etc/lapwing/d1.pem"));
    assert_eq!(example.server.tls.key, Path::new("/etc/lapwing/d1.key"));
    assert_eq!(example.detection.rules_dir.as_deref(), Some(Path::new("/etc/lapwing/rules")));
}

#[test]
fn an_unknown_key_names_its_neighbour() {
    let error = with_line("listen =", "lisen =");
    assert_eq!(error.kind, ConfigErrorKind::UnknownKey);
    assert_eq!(
        error.to_string(),
        "/etc/lapwing/d1.toml, line 12: `server.lisen`: unknown key; write `listen`"
    );
}

#[test]
fn an_unknown_key_without_a_neighbour_points_to_the_example() {
    assert_eq!(
        with_line("sensors_max", "zzz").to_string(),
        "/etc/lapwing/d1.toml, line 30: `detection.zzz`: unknown key; \
         `lapwing config example detection` prints a complete file"
    );
}

#[test]
fn an_unknown_section_is_an_unknown_key() {
    let error = with_line("[detection]", "[detecton]");
    assert_eq!(
        error.to_string(),
        "/etc/lapwing/d1.toml, line 28: `detecton`: unknown key; write `detection`"
    );
}

#[test]
fn a_missing_key_is_named_with_its_section() {
    let error = with_line("name = \"d1\"\n", "\n");
    assert_eq!(error.kind, ConfigErrorKind::MissingKey);
    assert_eq!(
        error.to_string(),
        "/etc/lapwing/d1.toml, line 2: `server.name`: the key is missing; \
         `lapwing config example detection` prints a complete file"
    );
}

#[test]
fn wrong_quantities_say_how_to_write_them() {
    assert_eq!(
        with_line("\"64 MiB\"", "\"64 MB\"").to_string(),
        "/etc/lapwing/d1.toml, line 32: `detection.cache`: \"64 MB\" is not a size; \
         write a whole number and B, KiB, MiB or GiB, such as \"64 KiB\""
    );
    assert_eq!(
        with_line("\"30 s\"", "30").to_string(),
        "/etc/lapwing/d1.toml, line 34: `detection.checkpoint_every`: \"30\" is not a duration; \
         write a whole number and ms, s, m, h or d, such as \"5 s\""
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let error = with_line("sensors_max = 1000", "sensors_max = \"many\"");
    assert_eq!(error.kind, ConfigErrorKind::WrongValue);
    assert_eq!(
        error.to_string(),
        "/etc/lapwing/d1.toml, line 30: `detection.sensors_max`: invalid type: string \"many\", \
         expected u32; `lapwing config example detection` prints a complete file"
    );
}

#[test]
fn what_is_not_toml_names_the_line() {
    let error = with_line("name = \"d1\"", "name = \"d1");
    assert_eq!(error.kind, ConfigErrorKind::Syntax);
    assert_eq!(error.line, Some(6));
}

#[test]
fn the_checks_of_common_and_own_sections_name_the_line() {
    assert_eq!(
        with_line("\"127.0.0.1:443\", \"[::1]:443\"", "").to_string(),
        "/etc/lapwing/d1.toml, line 12: `server.listen`: there is no address to listen on; \
         write at least one, such as [\"127.0.0.1:8443\"]"
    );
    assert_eq!(
        with_line("1000", "0").to_string(),
        "/etc/lapwing/d1.toml, line 30: `detection.sensors_max`: no sensor could connect; \
         write at least 1"
    );
    assert_eq!(
        with_line("role = \"detection\"", "role = \"fleet\"").to_string(),
        "/etc/lapwing/d1.toml, line 4: `server.role`: this file is for fleet, not for detection; \
         start `lapwing fleet` with it, or name another file"
    );
}

#[test]
fn an_id_is_32_digits() {
    assert_eq!(
        with_line("000102030405060708090a0b0c0d0e0f", "0001").to_string(),
        "/etc/lapwing/d1.toml, line 10: `server.deployment`: \"0001\" is not an id; \
         write its 32 lower-case hexadecimal digits"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = config::load::<Example>(Path::new("/nowhere/d1.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/d1.toml: there is no such file; name an existing file");
}

#[test]
fn the_role_of_a_file_is_found_without_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d1.toml");
    std::fs::write(&file, EXAMPLE).unwrap();
    assert_eq!(config::role_of(&file), Ok(Role::Detection));
    std::fs::write(&file, EXAMPLE.replace("role = \"detection\"", "role = \"detecton\"")).unwrap();
    let error = config::role_of(&file).unwrap_err();
    assert_eq!((error.line, error.key.as_deref()), (Some(4), Some("server.role")));
}

#[cfg(unix)]
#[test]
fn a_secret_that_everyone_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = config::Secret::read(&file).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("every user of this machine can read the secret; chmod 600 the file")
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let secret = config::Secret::read(&file).unwrap();
    assert_eq!(secret.expose(), "hunter2");
    assert!(!format!("{secret:?}").contains("hunter2"));
}
