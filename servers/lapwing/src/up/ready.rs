//! The file that tells scripts where everything is. It appears whole, by rename.

use lapwing_net::durable_file::{self, Access};
use serde_json::{Map, Value, json};

use super::answering::reachable;
use super::children::Children;
use super::data_folder::DataFolder;
use super::files::read;
use super::plan::Plan;
use super::terminal::data_flag;

/// What is in the file.
pub(super) struct Ready<'a> {
    pub(super) data: &'a DataFolder,
    pub(super) plan: &'a Plan,
    pub(super) children: &'a Children,
    /// The first password, while it is the account's.
    pub(super) password: Option<&'a str>,
    /// The sensor's id, once it has one.
    pub(super) sensor: Option<&'a str>,
}

impl Ready<'_> {
    /// Writes it to DATA/ready.json and to `file`.
    pub(super) fn write(&self, file: Option<&std::path::Path>) -> Result<(), String> {
        let mut text = serde_json::to_string_pretty(&self.value()?)
            .map_err(|error| format!("the ready file: {error}"))?;
        text.push('\n');
        let own = self.data.ready();
        for path in [Some(own.as_path()), file].into_iter().flatten() {
            durable_file::write(path, text.as_bytes(), Access::Owner)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn value(&self) -> Result<Value, String> {
        let address =
            |name: &str| self.plan.address(name).map(|address| reachable(address).to_string());
        let registration = self.plan.has_registration.then(|| address("registration")).flatten();
        Ok(json!({
            "web": self.web(),
            "ca_file": self.data.authority("organisation.pem"),
            "vendor_ca_file": self.data.authority("vendor.pem"),
            "user": "admin",
            "password": self.password,
            "reset_password": format!("lapwing ctl{} users reset-password admin", data_flag(self)),
            "api_token": read(&self.data.secret("api-token"))?,
            "enrolment_token": read(&self.data.secret("enrolment-token"))?,
            "registration": registration,
            "update": address("update"),
            "intel_private": address("intel-private"),
            "intel_global": address("intel-global"),
            "detection": self.detections(),
            "sensor": self.sensor_value(),
            "metrics": self.metrics(),
            "pid": std::process::id(),
            "data": self.data.root(),
        }))
    }

    /// Where the page is.
    pub(super) fn web(&self) -> String {
        let address = self.plan.address("webapp").map(reachable);
        address.map(|address| format!("https://{address}/")).unwrap_or_default()
    }

    fn detections(&self) -> Vec<Value> {
        let detections = self.plan.detections().into_iter();
        detections
            .map(|server| {
                let at = |position: usize| {
                    server.addresses.get(position).map(|address| reachable(*address).to_string())
                };
                json!({
                    "name": server.name,
                    "sensor": at(0),
                    "console": at(1),
                    "malware": at(2),
                    "pid": self.pid(&server.name),
                    "data": self.data.server(&server.name),
                })
            })
            .collect()
    }

    fn sensor_value(&self) -> Value {
        match self.children.status("sensor") {
            Some(child) => json!({
                "id": self.sensor,
                "config": self.data.config("sensor"),
                "pid": child.pid,
            }),
            None => Value::Null,
        }
    }

    fn metrics(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        for server in self.plan.started() {
            if let Some(address) = server.addresses.first() {
                let key = server.name.replace('-', "_");
                let url = format!("https://{}/metrics", reachable(*address));
                metrics.insert(key, Value::String(url));
            }
        }
        metrics
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.children.status(name).and_then(|child| child.pid)
    }
}
