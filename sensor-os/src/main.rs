//! The binary `lapwing-sensor`: the library's command line and nothing else.

use std::process::exit;

fn main() {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => {
                eprintln!("error: {argument:?} is not UTF-8; name it otherwise");
                exit(2);
            }
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    exit(lapwing_sensor_os::cli(&["lapwing-sensor"], &arguments));
}
