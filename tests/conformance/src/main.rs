//! The binary `lapwing-conformance`: the library's command line and nothing else.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into()).collect();
    lapwing_conformance::command::main(&arguments)
}
