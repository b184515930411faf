//! The platform that is loaded, as its ready file tells.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What a ready file says.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) registration: Vec<String>,
    pub(super) detection: Vec<String>,
    pub(super) ca_file: PathBuf,
    pub(super) enrolment_token: String,
    pub(super) web: String,
    pub(super) api_token: String,
}

impl Target {
    /// Reads the ready file.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let ready = ready(file)?;
        let text = |key: &str| {
            let found = ready.get(key).and_then(Value::as_str).map(str::to_owned);
            found.ok_or_else(|| {
                format!(
                    "{}: it has no {key:?}; name the file that `lapwing up --ready-file FILE` wrote",
                    file.display()
                )
            })
        };
        let detection: Vec<String> = servers(&ready)
            .filter_map(|server| Some(server.get("sensor")?.as_str()?.to_owned()))
            .collect();
        let registration = ready.get("registration").and_then(Value::as_str).map(str::to_owned);
        if detection.is_empty() {
            return Err(format!("{}: it names no Detection server", file.display()));
        }
        Ok(Self {
            registration: registration.into_iter().collect(),
            detection,
            ca_file: text("ca_file")?.into(),
            enrolment_token: text("enrolment_token")?,
            web: text("web")?,
            api_token: text("api_token")?,
        })
    }

    /// Who signs up newcomers: Registration, or the first Detection server where there is none.
    pub(super) fn enroller(&self) -> &str {
        self.registration.first().or(self.detection.first()).map_or("", String::as_str)
    }
}

/// The process of each Detection server now.
pub(super) fn detection_pids(file: &Path) -> Vec<u32> {
    let Ok(ready) = ready(file) else { return Vec::new() };
    let pids = servers(&ready).filter_map(|server| server.get("pid")?.as_u64());
    pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
}

fn servers(ready: &Value) -> impl Iterator<Item = &Value> {
    ready.get("detection").and_then(Value::as_array).into_iter().flatten()
}

fn ready(file: &Path) -> Result<Value, String> {
    let named = |error: &dyn std::fmt::Display| {
        format!(
            "{}: {error}; name the file that `lapwing up --ready-file FILE` wrote",
            file.display()
        )
    };
    let text = std::fs::read(file).map_err(|error| named(&error))?;
    serde_json::from_slice(&text).map_err(|error| named(&error))
}
