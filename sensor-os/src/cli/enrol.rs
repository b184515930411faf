//! `enrol`: a token becomes an identity in a state folder.

use super::{BAD_USAGE, DONE, Enrol, FAILED, REFUSED, UNREACHABLE, complain};
use crate::config::is_address;
use crate::enrol::{EnrolError, Enrolment, enrol as enrol_at};
use crate::identity::{Identity, StateFolder};
use crate::one_call::CallError;
use crate::tls::Roots;
use crate::{logging, machine};

pub(super) fn enrol(arguments: &Enrol) -> i32 {
    logging::start(log::LevelFilter::Warn);
    let addresses: Vec<&String> =
        arguments.registration.iter().chain(&arguments.detection).collect();
    if addresses.is_empty() {
        complain(&"no server is named; write --registration or --detection and host:port");
        return BAD_USAGE;
    }
    if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
        complain(&format!("{wrong:?} is not host:port; write such as 192.0.2.10:443"));
        return BAD_USAGE;
    }
    let roots = match Roots::load(&arguments.ca) {
        Ok(roots) => roots,
        Err(error) => {
            complain(&format!("{}: {error}", arguments.ca.display()));
            return FAILED;
        }
    };
    let state = match StateFolder::open(&arguments.state) {
        Ok(state) => state,
        Err(error) => {
            complain(&error);
            return FAILED;
        }
    };
    match state.identity() {
        Ok(None) => {}
        Ok(Some(identity)) => {
            complain(&format!(
                "{}: this sensor has enrolled already, as {}; name another --state, or delete \
                 `identity` and `key.der` there to become another sensor",
                arguments.state.display(),
                identity.sensor
            ));
            return FAILED;
        }
        Err(error) => {
            complain(&error);
            return FAILED;
        }
    }
    // Before the enrolment, so that no identity is there without its name.
    if let Err(error) = state.save_name(arguments.name.as_deref()) {
        complain(&error);
        return FAILED;
    }
    let name = machine::name(arguments.name.as_deref());
    let mut code = FAILED;
    for address in addresses {
        let enrolment = Enrolment { address, roots: &roots, token: &arguments.token, name: &name };
        match smol::block_on(enrol_at(&state, &enrolment)) {
            Ok(identity) => return say(&identity, arguments),
            Err(error) => {
                complain(&format!("server {address}: {error}"));
                code = exit_code(&error);
                if !error.is_unreachable() {
                    break;
                }
            }
        }
    }
    code
}

fn say(identity: &Identity, arguments: &Enrol) -> i32 {
    println!("enrolled as {} of deployment {}", identity.sensor, identity.deployment);
    println!("identity in {}", arguments.state.display());
    DONE
}

fn exit_code(error: &EnrolError) -> i32 {
    match error {
        EnrolError::Call(CallError::Connection(_)) => UNREACHABLE,
        EnrolError::Call(CallError::Refused { .. }) => REFUSED,
        EnrolError::Call(CallError::BadAnswer(_) | CallError::TooLong)
        | EnrolError::BadAnswer(_)
        | EnrolError::State(_)
        | EnrolError::Request(_) => FAILED,
    }
}
