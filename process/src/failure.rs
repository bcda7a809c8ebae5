//! Why a program ends with something else than 0, in words for the person who started it.

use std::error::Error;
use std::fmt;

use crate::ExitCode;

/// What happened, why, and what to do next, with the exit code that goes with it.
///
/// ```
/// use espalier_process::{ExitCode, Failure};
///
/// let failure = Failure::unreachable("no orchestrator answers at http://127.0.0.1:7300")
///     .because("connection refused")
///     .next("start one with `espalier-orchestrator --dev`, or name another with --endpoint");
/// assert_eq!(failure.code(), ExitCode::Unreachable);
/// assert!(failure.to_string().starts_with("no orchestrator answers"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: ExitCode,
    what: String,
    why: Vec<String>,
    next: Option<String>,
}

impl Failure {
    /// Makes a failure of the program itself: exit code 1.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::new(ExitCode::Failed, what)
    }

    /// Makes a failure of whoever wrote the arguments or the configuration: exit code 64.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::new(ExitCode::Usage, what)
    }

    /// Makes a failure to reach what the program depends on: exit code 69.
    pub fn unreachable(what: impl fmt::Display) -> Self {
        Self::new(ExitCode::Unreachable, what)
    }

    /// Makes a failure with the exit code given.
    pub fn new(code: ExitCode, what: impl fmt::Display) -> Self {
        Self {
            code,
            what: what.to_string(),
            why: Vec::new(),
            next: None,
        }
    }

    /// Adds a reason. Several reasons are printed in the order in which they were added.
    #[must_use]
    pub fn because(mut self, why: impl fmt::Display) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Adds an error and everything that it names as its source, one reason each.
    ///
    /// Errors whose text already contains that of their source say it once.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + '_)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !self.why.iter().any(|said| said.contains(&text)) {
                self.why.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// Says what to do next; replaces what was said before.
    #[must_use]
    pub fn next(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// The exit code that the program ends with.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        self.code
    }

    /// The failure as one JSON object on one line, for `--log-format json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "level": "ERROR",
            "what": self.what,
            "why": self.why,
            "next": self.next,
            "exit_code": self.code.number(),
        })
        .to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)?;
        for why in &self.why {
            write!(out, "\n  why:  {}", why.replace('\n', "\n        "))?;
        }
        if let Some(next) = &self.next {
            write!(out, "\n  next: {}", next.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Turns any error into a [`Failure`] where it leaves the program.
pub trait OrFail<T> {
    /// Says what failed; the error and its sources become the reasons. Exit code 1.
    ///
    /// # Errors
    ///
    /// The error of `self`, as a failure.
    fn or_fail(self, what: impl fmt::Display) -> Result<T, Failure>;

    /// Like [`OrFail::or_fail`], with exit code 64.
    ///
    /// # Errors
    ///
    /// The error of `self`, as a failure.
    fn or_usage(self, what: impl fmt::Display) -> Result<T, Failure>;

    /// Like [`OrFail::or_fail`], with exit code 69.
    ///
    /// # Errors
    ///
    /// The error of `self`, as a failure.
    fn or_unreachable(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Error> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(what).caused_by(&error))
    }

    fn or_usage(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::usage(what).caused_by(&error))
    }

    fn or_unreachable(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::unreachable(what).caused_by(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn says_what_why_and_next_in_that_order() {
        let error = Outer(std::io::Error::other("disk is gone"));
        let failure = Failure::failed("the node did not start")
            .caused_by(&error)
            .next("see the log");
        assert_eq!(
            failure.to_string(),
            "the node did not start\n  why:  cannot open the store\n  why:  disk is gone\n  next: see the log"
        );
    }

    #[test]
    fn a_source_that_was_said_already_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading failed: {0}")]
        struct Repeats(#[source] std::io::Error);
        let failure =
            Failure::failed("no").caused_by(&Repeats(std::io::Error::other("disk is gone")));
        assert_eq!(
            failure.to_string(),
            "no\n  why:  reading failed: disk is gone"
        );
    }

    #[test]
    fn several_lines_stay_aligned() {
        let failure =
            Failure::usage("node.toml has 2 mistakes").because("listen: empty\nissuers: none");
        assert_eq!(
            failure.to_string(),
            "node.toml has 2 mistakes\n  why:  listen: empty\n        issuers: none"
        );
    }

    #[test]
    fn json_carries_the_exit_code() {
        let json: serde_json::Value =
            serde_json::from_str(&Failure::unreachable("x").because("y").to_json()).unwrap();
        assert_eq!(json["exit_code"], 69);
        assert_eq!(json["why"][0], "y");
        assert_eq!(json["next"], serde_json::Value::Null);
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        let table = [
            (Failure::failed(""), 1),
            (Failure::usage(""), 64),
            (Failure::unreachable(""), 69),
            (Err::<(), _>(std::fmt::Error).or_fail("").unwrap_err(), 1),
            (Err::<(), _>(std::fmt::Error).or_usage("").unwrap_err(), 64),
            (
                Err::<(), _>(std::fmt::Error)
                    .or_unreachable("")
                    .unwrap_err(),
                69,
            ),
        ];
        for (failure, code) in table {
            assert_eq!(failure.code().number(), code);
        }
    }
}
