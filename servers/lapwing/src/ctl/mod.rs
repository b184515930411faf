//! `lapwing ctl`: the operator's command, over `/api/v1` and nothing else.
//!
//! Not here: what an answer means (the WebApp says it). Reading order: `arguments` (nouns and
//! verbs), `connection` (where and as whom), `verbs` (what each asks), `table` (how people see it).
//!
//! Invariants: one JSON object or array on standard output with `--json`, one a line where it
//! streams; everything else on standard error; control characters of hostile strings are escaped
//! for a terminal; a verb that is not there yet exits with 2 and says what works instead.

mod arguments;
mod connection;
mod follow;
mod ledger;
mod naming;
mod nouns;
mod problem;
mod table;
mod verbs;

use argh::FromArgs as _;

use crate::command::early_exit;
use crate::exit::Exit;
use arguments::Ctl;
use connection::Connection;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Table,
}

/// Runs `lapwing ctl ARGUMENTS`.
pub(crate) fn main(arguments: &[String]) -> Exit {
    let (json, texts): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| *argument == "--json");
    let texts = connection_first(&texts);
    let ctl = match Ctl::from_args(&["lapwing", "ctl"], &texts) {
        Ok(ctl) => ctl,
        Err(early) if early.status.is_ok() => return early_exit(&early),
        Err(early) => return later(&texts).unwrap_or_else(|| early_exit(&early)),
    };
    let form = if json.is_empty() && !ctl.json { Form::Table } else { Form::Json };
    if let Some(text) = nouns::not_there_yet(&ctl.noun) {
        eprintln!("{text}");
        return Exit::Usage;
    }
    let ended = verbs::check(&ctl.noun)
        .and_then(|()| Connection::open(&ctl))
        .and_then(|connection| smol::block_on(verbs::run(&connection, form, ctl.noun)));
    match ended {
        Ok(exit) => exit,
        Err(problem) => {
            eprintln!("lapwing ctl: {problem}");
            problem.exit
        }
    }
}

/// A verb that is not there yet says so whatever options follow it, which it cannot know.
fn later(arguments: &[&str]) -> Option<Exit> {
    let at = arguments.iter().position(|word| !word.starts_with("--"))?;
    let words = arguments.get(at..)?;
    let (noun, verb) = (words.first()?, words.get(1)?);
    let ctl = Ctl::from_args(&["lapwing", "ctl"], &[noun, verb]).ok()?;
    eprintln!("{}", nouns::not_there_yet(&ctl.noun)?);
    Some(Exit::Usage)
}

/// The options that say where the platform is may stand anywhere; argh wants them before the noun.
fn connection_first<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    const OPTIONS: [&str; 4] = ["--ready-file", "--server", "--token-file", "--ca"];
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if OPTIONS.contains(argument) {
            first.push(*argument);
            first.extend(arguments.next());
        } else {
            rest.push(*argument);
        }
    }
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use super::{connection_first, later, main};
    use crate::exit::Exit;

    fn run(words: &[&str]) -> Exit {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        main(&words)
    }

    #[test]
    fn wrong_calls_are_usage_and_help_is_done() {
        assert_eq!(run(&["--help"]), Exit::Done);
        assert_eq!(run(&["sensors", "--help"]), Exit::Done);
        assert_eq!(run(&["malops", "list", "--help"]), Exit::Done);
        assert_eq!(run(&[]), Exit::Usage);
        assert_eq!(run(&["sensors", "dance"]), Exit::Usage);
        assert_eq!(run(&["malops", "show"]), Exit::Usage);
        assert_eq!(run(&["reputation", "add", "--hash", "00", "--block", "--allow"]), Exit::Usage);
    }

    #[test]
    fn where_the_platform_is_may_be_said_anywhere() {
        let words = ["sensors", "list", "--ready-file", "f"];
        assert_eq!(connection_first(&words), ["--ready-file", "f", "sensors", "list"]);
        assert_eq!(connection_first(&["sensors", "--ca"]), ["--ca", "sensors"]);
    }

    #[test]
    fn verbs_that_are_not_there_yet_are_usage_whatever_follows() {
        for words in [
            ["sensors", "isolate", "a"],
            ["rules", "list", "--json"],
            ["rules", "enable", "all"],
            ["updates", "deploy", "b"],
            ["policies", "show", "c"],
            ["packages", "build", "--os"],
            ["tokens", "create", "--enrol"],
        ] {
            assert_eq!(run(&words), Exit::Usage, "{words:?}");
        }
        assert_eq!(later(&["tokens", "create", "--enrol", "--uses", "3"]), Some(Exit::Usage));
        assert_eq!(later(&["sensors", "list", "--dance"]), None);
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let validity = std::time::Duration::from_secs(60);
        let now_ms = lapwing_net::clock::unix_ms();
        let authority =
            lapwing_net::authority::Authority::create(now_ms, "test", validity).unwrap();
        std::fs::write(path("ca.pem"), authority.certificate_pem()).unwrap();
        std::fs::write(path("token"), "secret").unwrap();
        let (ca, token) = (path("ca.pem"), path("token"));
        let server = ["--server", "https://127.0.0.1:1", "--ca", &ca, "--token-file", &token];
        let words: Vec<&str> = server.into_iter().chain(["sensors", "list"]).collect();
        assert_eq!(run(&words), Exit::Unreachable);
    }
}
