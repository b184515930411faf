//! Why `ctl` has no answer, what to do, and how it exits.

use std::fmt;

use lapwing_net::http::HttpError;
use lapwing_net::logging::escaped;
use lapwing_protocol::code::Code;
use serde_json::Value;

use crate::exit::Exit;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) exit: Exit,
    message: String,
    remedy: String,
}

impl Problem {
    pub(super) fn new(exit: Exit, message: impl Into<String>, remedy: &str) -> Self {
        Self { exit, message: message.into(), remedy: remedy.to_owned() }
    }

    pub(super) fn usage(message: impl Into<String>, remedy: &str) -> Self {
        Self::new(Exit::Usage, message, remedy)
    }

    /// The server refused: its body is `{code, name, message, remedy}`.
    pub(super) fn of_answer(status: u16, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let code = value.get("code").and_then(Value::as_u64);
        match code.and_then(|code| u16::try_from(code).ok()) {
            Some(code) => Self {
                exit: Exit::of_code(Code(code)),
                message: format!("{} ({} {code})", text("message"), text("name")),
                remedy: text("remedy").to_owned(),
            },
            None => Self::new(
                Exit::Failed,
                format!("the server answered {status} and no error of the API"),
                "check that --server names a Lapwing WebApp",
            ),
        }
    }

    /// There is no whole answer.
    pub(super) fn of_http(error: &HttpError, url: &str) -> Self {
        let message = format!("{url}: {error}");
        match error {
            HttpError::BadUrl(_) => Self::usage(message, "correct --server"),
            HttpError::Body(_) => Self::new(Exit::Failed, message, "try again; ask for less"),
            HttpError::Exchange(_) => {
                let remedy = "something answers there, but not this platform's WebApp: check that \
                              address and CA belong together (a ready file names both)";
                Self::new(Exit::Unreachable, message, remedy)
            }
            HttpError::UnknownHost(_) | HttpError::Connect(_) | HttpError::TimedOut => {
                let remedy = "start the platform (`lapwing up`), or name another with --ready-file \
                              or --server";
                Self::new(Exit::Unreachable, message, remedy)
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.message))?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n  {}", escaped(&self.remedy)) }
    }
}
