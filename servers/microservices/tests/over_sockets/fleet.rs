//! Orders become numbered commands at the sensors' Detection server, and outcomes close them, each
//! once, also over a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_microservices::fleet::{Config, Server};
use lapwing_net::identity::Role;
use lapwing_net::peer::{PeerClient, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, Outcome};
use lapwing_protocol::fleet::{
    ActionState, BatchQuery, BatchResult, CollectionState, FleetAction, FleetBatch, FleetSensor,
    SensorStatus,
};
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::ServerStatus;

use crate::deployment::{Deployment, call, refusal, run, until};
use crate::detection::Detection;

const SENSOR: SensorId = SensorId([9; 16]);

struct Fleet {
    webapp: PeerClient,
    address: SocketAddr,
    trigger: ShutdownTrigger,
    ended: smol::Task<()>,
}

impl Fleet {
    async fn start(deployment: &Deployment, executor: &Executor, detection: SocketAddr) -> Self {
        let text = deployment.server_section(Role::Fleet, "fleet", 2)
            + &format!(
                "[peers]\npoll_every = \"50 ms\"\n[[peers.detection]]\nname = \"d1\"\nconsole = \"{detection}\"\n"
            );
        let config: Config = deployment.config(&text);
        let (trigger, shutdown) = shutdown::pair();
        let server = {
            let executor = Arc::clone(executor);
            smol::unblock(move || Server::open(&config, &executor, &shutdown)).await.unwrap()
        };
        let address = server.addresses()[0];
        let ended = executor.spawn(async move { server.serve().await.unwrap() });
        let webapp = deployment.client(executor, (Role::Webapp, 3), Role::Fleet, address);
        Self { webapp, address, trigger, ended }
    }

    async fn stop(self) {
        self.trigger.begin();
        self.ended.await;
    }

    /// Waits until the sensor is shown as wanted.
    async fn shows(&self, what: &str, wanted: impl Fn(&FleetSensor<'_>) -> bool) {
        let webapp = &self.webapp;
        let wanted = &wanted;
        let look = || async move {
            let body = call(webapp, Method::FLEET_SENSORS, &[]).await.unwrap();
            let sensors = Items::<FleetSensor<'_>>::from_bytes(&body);
            let mut sensors = sensors.iter().map(Result::unwrap);
            sensors.any(|sensor| sensor.sensor == SENSOR && wanted(&sensor)).then_some(())
        };
        until(what, look).await;
    }

    async fn order(&self, action: Action) -> u64 {
        let body = call(&self.webapp, Method::FLEET_ACTION, &order(action)).await.unwrap();
        let batch: FleetBatch = from_body(&body).unwrap();
        assert_eq!(batch.sensors, 1);
        batch.batch
    }

    async fn reaches(&self, batch: u64, state: ActionState) {
        let webapp = &self.webapp;
        let look = || async move {
            let query = to_body(&BatchQuery { batch }).unwrap();
            let body = call(webapp, Method::FLEET_BATCH, &query).await.unwrap();
            let results = Items::<BatchResult<'_>>::from_bytes(&body);
            (results.iter().next().unwrap().unwrap().state == state).then_some(())
        };
        until(&format!("batch {batch} reaches {state:?}"), look).await;
    }
}

fn order(action: Action) -> Vec<u8> {
    let mut buffer = [0; 16];
    let sensors = Items::encode([SENSOR], &mut buffer).unwrap();
    to_body(&FleetAction { sensors, action, expires_after_ms: 0, author: "admin" }).unwrap()
}

#[test]
fn an_order_goes_to_the_sensors_server_and_its_outcome_closes_it() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Detection::start(&deployment, &executor, 1);
        detection.known.lock().unwrap().sensors.push(SENSOR);
        let fleet = Fleet::start(&deployment, &executor, detection.address).await;
        fleet
            .shows("the sensor is online", |sensor| {
                sensor.status == SensorStatus::Online
                    && sensor.server == ServerId([1; 16])
                    && sensor.server_name == "d1"
                    && sensor.collection == CollectionState::Enabled
            })
            .await;
        let batch = fleet.order(Action::StopCollection).await;
        fleet.reaches(batch, ActionState::Queued).await;
        fleet.shows("it is pending", |sensor| sensor.pending == 1).await;
        detection.carry_out(Outcome::Done);
        fleet.reaches(batch, ActionState::Finished(Outcome::Done)).await;
        fleet
            .shows("collection is stopped", |sensor| {
                sensor.collection == CollectionState::Disabled && sensor.pending == 0
            })
            .await;
        let text = deployment.metrics(Role::Fleet, fleet.address).await;
        assert!(text.contains("lapwing_fleet_outcomes_total 1\n"), "{text}");
        fleet.stop().await;
    });
}

#[test]
fn numbers_go_on_after_a_restart_and_nothing_is_put_twice() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Detection::start(&deployment, &executor, 1);
        detection.known.lock().unwrap().sensors.push(SENSOR);
        let fleet = Fleet::start(&deployment, &executor, detection.address).await;
        fleet.shows("the sensor is known", |_| true).await;
        let first = fleet.order(Action::Restart).await;
        fleet.reaches(first, ActionState::Queued).await;
        fleet.stop().await;
        detection.carry_out(Outcome::Interrupted);

        let fleet = Fleet::start(&deployment, &executor, detection.address).await;
        fleet.reaches(first, ActionState::Finished(Outcome::Interrupted)).await;
        let second = fleet.order(Action::Isolate).await;
        fleet.reaches(second, ActionState::Queued).await;
        let commands = detection.known.lock().unwrap().commands.clone();
        let numbers: Vec<u64> = commands.iter().map(|put| put.number.seq).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(commands[0].number.issuer, commands[1].number.issuer);
        fleet.stop().await;
    });
}

#[test]
fn a_command_waits_while_its_server_says_no_and_goes_when_it_says_yes() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Detection::start(&deployment, &executor, 1);
        {
            let mut known = detection.known.lock().unwrap();
            known.sensors.push(SENSOR);
            known.refuse = Some(Code::BUSY);
        }
        let fleet = Fleet::start(&deployment, &executor, detection.address).await;
        fleet.shows("the sensor is known", |_| true).await;
        let batch = fleet.order(Action::Restart).await;
        fleet.reaches(batch, ActionState::Pending).await;
        detection.known.lock().unwrap().refuse = None;
        fleet.reaches(batch, ActionState::Queued).await;
        assert_eq!(detection.known.lock().unwrap().commands.len(), 1);
        fleet.stop().await;
    });
}

#[test]
fn bad_orders_and_orders_of_other_servers_are_refused() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let nobody = ([127, 0, 0, 1], 9).into();
        let fleet = Fleet::start(&deployment, &executor, nobody).await;
        let malops = deployment.client(&executor, (Role::Malops, 4), Role::Fleet, fleet.address);
        let (code, _) = refusal(&malops, Method::FLEET_ACTION, &order(Action::Restart)).await;
        assert_eq!(code, Code::FORBIDDEN);
        let empty = FleetAction {
            sensors: Items::EMPTY,
            action: Action::Restart,
            expires_after_ms: 0,
            author: "admin",
        };
        let (code, _) =
            refusal(&fleet.webapp, Method::FLEET_ACTION, &to_body(&empty).unwrap()).await;
        assert_eq!(code, Code::BAD_ARGUMENT);
        let batch = fleet.order(Action::Restart).await;
        fleet.reaches(batch, ActionState::UnknownSensor).await;
        let query = to_body(&BatchQuery { batch: batch + 1 }).unwrap();
        let (code, _) = refusal(&fleet.webapp, Method::FLEET_BATCH, &query).await;
        assert_eq!(code, Code::NOT_FOUND);
        let webapp = &fleet.webapp;
        until("the trouble is told", || async move {
            let body = call(webapp, Method::STATUS, &[]).await.unwrap();
            let status: ServerStatus<'_> = from_body(&body).unwrap();
            status.trouble.contains("d1").then_some(())
        })
        .await;
        fleet.stop().await;
    });
}
