//! Exit codes, the same for every command.

use std::process::ExitCode;

use lapwing_protocol::code::Code;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// It failed.
    Failed,
    /// It was called wrongly.
    Usage,
    /// It answered, and something is missing of the answer.
    Partial,
    /// Policy or permission refuses it.
    Refused,
    /// Nobody answers.
    Unreachable,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
        }
    }

    /// What an error of the registry is to the shell.
    #[must_use]
    pub fn of_code(code: Code) -> Self {
        match code {
            Code::OK => Self::Done,
            Code::BAD_ARGUMENT => Self::Usage,
            Code::FORBIDDEN
            | Code::UNAUTHENTICATED
            | Code::REVOKED
            | Code::BAD_TOKEN
            | Code::BAD_SIGNATURE => Self::Refused,
            Code::UNREACHABLE | Code::TIMED_OUT => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;
    use lapwing_protocol::code::Code;

    #[test]
    fn each_blame_has_its_number() {
        let numbers = [
            (Code::OK, 0),
            (Code::INTERNAL, 1),
            (Code::NOT_FOUND, 1),
            (Code::BAD_ARGUMENT, 2),
            (Code::FORBIDDEN, 4),
            (Code::UNREACHABLE, 5),
        ];
        for (code, number) in numbers {
            assert_eq!(Exit::of_code(code).number(), number, "{code}");
        }
    }
}
