//! The name that an enrolment is given is the sensor's from then on.

use lapwing_sensor_os::config::Collect;
use lapwing_sensor_os::status::State;
use lapwing_sensor_os::{Agent, Config};

use crate::servers::{self, Servers, config};
use crate::{Running, error_of, sensor};

#[test]
fn the_name_given_at_enrolment_is_kept_and_the_configuration_goes_before_it() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let (registration, ca) = (servers.registration.to_string(), servers.path("ca.pem"));
    let (folder, ca) = (state.path().to_str().unwrap(), ca.to_str().unwrap());
    let enrolled = sensor(&[
        "enrol",
        "--registration",
        &registration,
        "--token",
        servers::TOKEN,
        "--ca",
        ca,
        "--state",
        folder,
        "--name",
        "reception-7",
    ]);
    assert!(enrolled.status.success(), "{}", error_of(&enrolled));
    let named = Running::start(&servers, state.path());
    assert_eq!(named.await_state(State::Online).name, "reception-7");
    named.stop();
    let text = format!("name = \"desk-8\"\n{}", config(&servers, state.path(), ""));
    let config = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    let agent = Agent::builder(config).collect(Collect::none()).build().unwrap();
    let renamed = Running::of(agent, state.path());
    assert_eq!(renamed.await_state(State::Online).name, "desk-8");
    renamed.stop();
}
