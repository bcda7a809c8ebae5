//! The exit codes that scripts may depend on.

/// How a program ended, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// 0: it did what was asked.
    Ok,
    /// 1: it failed.
    Failed,
    /// 64 (`EX_USAGE`): the arguments or the configuration are wrong.
    Usage,
    /// 69 (`EX_UNAVAILABLE`): what it needs to talk to cannot be reached.
    Unreachable,
}

impl ExitCode {
    /// The number that the operating system sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unreachable => 69,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}
