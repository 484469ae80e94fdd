//! Exit codes: what a script can tell apart without reading the message.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done as asked.
    Done = 0,
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line or the configuration is wrong; nothing was attempted.
    Usage = 2,
    /// What was asked for is not there: a missing file, key or block.
    NotFound = 3,
    /// Bytes or records do not say what they should: a bad checksum, a malformed trace.
    Corrupt = 4,
    /// The daemon does not answer at the given address.
    Unreachable = 5,
    /// The daemon or the machine refused: over capacity, over quota, not allowed.
    Refused = 6,
}

/// The table of exit codes as `--help` and the man page show it.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failure
  2  wrong command line or configuration
  3  not found: a file, a key or a block
  4  corrupt data found
  5  daemon unreachable
  6  refused: over capacity, over quota or not allowed";

impl Exit {
    /// The meaning of the exit code of a process that is ours; a failure if it is none of these.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Usage,
            3 => Self::NotFound,
            4 => Self::Corrupt,
            5 => Self::Unreachable,
            6 => Self::Refused,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        for exit in [
            Exit::Done,
            Exit::Failure,
            Exit::Usage,
            Exit::NotFound,
            Exit::Corrupt,
            Exit::Unreachable,
            Exit::Refused,
        ] {
            let code = format!("\n  {}  ", exit as u8);
            assert!(HELP.contains(&code), "{exit:?} is missing from the help");
            assert_eq!(Exit::from_code(exit as u8), exit);
        }
    }
}
