//! One run of `up`: from the lock to the drain.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lapwing_net::logging;
use lapwing_net::runtime::{self, Executor};
use lapwing_net::shutdown::{self, Shutdown};
use lapwing_protocol::registration::ServerRole;
use lapwing_protocol::supervision::ChildState;
use serde_json::Value;
use smol::Timer;

use super::children::{Children, Program};
use super::data_folder::DataFolder;
use super::plan::{Plan, PlannedServer};
use super::ready::Ready;
use super::{Options, Wanted, answering, files, supervisor, terminal};

/// How long the sensor may take until the page shows it; `up` is ready without it then.
const SENSOR_TIME: Duration = Duration::from_secs(30);
/// Pause between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is looked whether the vendor's manifest is to be signed anew.
const RENEW_EVERY: Duration = Duration::from_secs(86_400);

/// Runs until a signal.
pub(super) fn run(options: &Options) -> Result<(), String> {
    logging::start(log::LevelFilter::Warn);
    let data = DataFolder::new(&options.data).map_err(|error| {
        let remedy = "name a folder that you may write with --data DIR";
        format!("{}: {error}; {remedy}", options.data.display())
    })?;
    let _lock = data.lock()?;
    if let Some(file) = &options.ready_file {
        // An old one would tell scripts of servers that do not answer yet.
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_file(data.ready());
    let plan = Plan::make(&data.plan(), options).map_err(|error| error.to_string())?;
    plan.check_ports().map_err(|error| error.to_string())?;
    terminal::step(&format!("data in {}", data.root().display()));
    files::write(&data, &plan)?;
    let executable = std::env::current_exe()
        .map_err(|error| format!("this program's own file cannot be found: {error}"))?;
    runtime::run(2, |executor, trigger, stop| {
        let run = Run { data, plan, options: options.clone(), executable, executor, stop };
        async move {
            let signals = run.executor.spawn(async move { shutdown::on_signal(trigger).await });
            let ended = run.run().await;
            drop(signals);
            ended
        }
    })
}

struct Run {
    data: DataFolder,
    plan: Plan,
    options: Options,
    executable: PathBuf,
    executor: Executor,
    stop: Shutdown,
}

impl Run {
    async fn run(&self) -> Result<(), String> {
        let children = Children::default();
        supervisor::start(&self.data, &self.plan, &children, &self.executor, &self.stop)?;
        let started = smol::future::or(async { self.start(&children).await.map(Some) }, async {
            self.stop.begun().await;
            Ok(None)
        })
        .await;
        let ended = match started {
            Ok(Some(sensor)) => self.stay(&children, sensor.as_ref()).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        terminal::step("stopping");
        children.stop_all(&self.executor).await;
        let _ = std::fs::remove_file(self.data.ready());
        ended
    }

    /// Starts everything and waits until it answers; the sensor as the page shows it.
    async fn start(&self, children: &Children) -> Result<Option<Value>, String> {
        // Those that ask come after those that are asked: nobody begins by waiting out a backoff.
        let asks = |server: &&PlannedServer| {
            ["malops", "tagging", "fleet", "webapp"].contains(&server.role.as_str())
        };
        let (second, first): (Vec<&PlannedServer>, Vec<_>) =
            self.plan.started().into_iter().partition(asks);
        for group in [first, second] {
            for server in &group {
                children.start(&self.executor, self.program(server));
            }
            for server in &group {
                answering::wait(&self.data, server, children).await?;
                terminal::step(&format!("{} answers", server.name));
            }
        }
        if self.options.sensor == Wanted::No {
            return Ok(None);
        }
        children.start(&self.executor, self.sensor_program());
        let sensor = self.wait_for_sensor().await?;
        if sensor.is_some() {
            children.answered("sensor");
            terminal::step("the sensor is online");
        }
        Ok(sensor)
    }

    /// Tells where everything is, and stays until the shutdown; a new process is told anew.
    async fn stay(&self, children: &Children, sensor: Option<&Value>) -> Result<(), String> {
        let told = self.data.secret("password-told");
        let password = match told.exists() {
            true => None,
            false => files::read(&self.data.secret("first-password")).ok(),
        };
        let id = sensor.and_then(|sensor| sensor.get("id")).and_then(Value::as_str);
        let ready = Ready {
            data: &self.data,
            plan: &self.plan,
            children,
            password: password.as_deref(),
            sensor: id,
        };
        let file = self.options.ready_file.as_deref();
        let news = children.listen();
        ready.write(file)?;
        terminal::summary(&ready, sensor);
        if password.is_some() {
            // From now on the account's password is its user's own; the file has done its work.
            std::fs::write(&told, "").map_err(|error| format!("{}: {error}", told.display()))?;
            let _ = std::fs::remove_file(self.data.secret("first-password"));
        }
        let watching = async {
            while news.recv().await.is_ok() {
                self.look_at_restarted(children);
                if let Err(error) = ready.write(file) {
                    log::error!("{error}");
                }
            }
        };
        let renewing = async {
            loop {
                Timer::after(RENEW_EVERY).await;
                if let Err(error) = files::repository(&self.data) {
                    log::error!("the vendor's manifest is not signed anew: {error}");
                }
            }
        };
        smol::future::or(self.stop.begun(), smol::future::or(watching, renewing)).await;
        Ok(())
    }

    /// Notes when servers that were started again answer.
    fn look_at_restarted(&self, children: &Children) {
        for child in children.list() {
            if child.state != ChildState::Starting || child.pid.is_none() {
                continue;
            }
            let Some(server) = self.plan.named(&child.program.name).cloned() else {
                // The sensor listens nowhere: that it runs is what can be said.
                children.answered(&child.program.name);
                continue;
            };
            let (data, children) = (self.data.clone(), children.clone());
            let looking = async move {
                if let Err(error) = answering::wait(&data, &server, &children).await {
                    log::warn!("{error}");
                }
            };
            self.executor.spawn(looking).detach();
        }
    }

    fn program(&self, server: &PlannedServer) -> Program {
        let command = match server.role.as_str() {
            "intel-private" | "intel-global" => "intel",
            role => role,
        };
        let config = self.data.config(&server.name).to_string_lossy().into_owned();
        Program {
            name: server.name.clone(),
            role: role_of(&server.role),
            executable: self.executable.clone(),
            arguments: [command, "--config", &config, "--with-parent"].map(String::from).to_vec(),
            log: self.data.log(&server.name),
        }
    }

    fn sensor_program(&self) -> Program {
        let config = self.data.config("sensor").to_string_lossy().into_owned();
        let arguments = ["sensor", "--with-parent", "run", "--config", &config];
        Program {
            name: String::from("sensor"),
            role: None,
            executable: self.executable.clone(),
            arguments: arguments.map(String::from).to_vec(),
            log: self.data.log("sensor"),
        }
    }

    /// Waits until the WebApp lists this machine's sensor as online.
    async fn wait_for_sensor(&self) -> Result<Option<Value>, String> {
        let Some(webapp) = self.plan.named("webapp") else { return Ok(None) };
        let token = files::read(&self.data.secret("api-token"))?;
        let client = answering::client(&self.data, webapp)?.with_token(&token);
        let address = webapp.addresses.first().copied().ok_or("the plan has no address")?;
        let url = format!("https://{}/api/v1/sensors", answering::reachable(address));
        let began = Instant::now();
        while began.elapsed() < SENSOR_TIME {
            let own = self.own_sensor().await;
            if let (Some(own), Ok(answer)) = (own, client.get(&url).await) {
                let sensors: Vec<Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
                let is_own =
                    |sensor: &Value| sensor.get("id").and_then(Value::as_str) == Some(own.as_str());
                let found = sensors.into_iter().find(|sensor| is_own(sensor));
                // After a restart the collectors are as the last run left them, stopped, until
                // this run's first word.
                let is_online = |sensor: &Value| {
                    let parts = sensor.get("collectors").and_then(Value::as_array);
                    let is_stopped = |part: &Value| {
                        part.get("status").and_then(Value::as_str) == Some("stopped")
                    };
                    let has_told = parts.is_some_and(|parts| !parts.iter().all(is_stopped));
                    let text = |key: &str| sensor.get(key).and_then(Value::as_str);
                    text("status") == Some("Online")
                        && (has_told || text("collection") == Some("disabled"))
                };
                if let Some(sensor) = found.filter(is_online) {
                    return Ok(Some(sensor));
                }
            }
            Timer::after(LOOK_EVERY).await;
        }
        log::warn!(
            "the sensor is not online after {} s; its log is {}",
            SENSOR_TIME.as_secs(),
            self.data.log("sensor").display()
        );
        Ok(None)
    }

    /// The id that this machine's own sensor was given, once it was.
    async fn own_sensor(&self) -> Option<String> {
        let config = self.data.config("sensor");
        let mut status = smol::process::Command::new(&self.executable);
        status.args(["sensor", "status", "--json", "--config"]).arg(&config);
        let output = status.output().await.ok()?;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status.get("id").and_then(Value::as_str).map(String::from)
    }
}

fn role_of(name: &str) -> Option<ServerRole> {
    let roles = [
        ServerRole::Registration,
        ServerRole::Detection,
        ServerRole::Update,
        ServerRole::IntelPrivate,
        ServerRole::IntelGlobal,
        ServerRole::WebApp,
        ServerRole::MalOps,
        ServerRole::Tagging,
        ServerRole::Fleet,
    ];
    roles.into_iter().find(|role| role.name() == name)
}
