//! Every check there is, in the order in which they run: cheap ones first.

use std::process::Command;

use crate::cargo::{cargo, release_directory, workspace};

/// A named check.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) action: Action,
}

/// What a check does.
pub(crate) enum Action {
    /// Installs missing tools.
    SetUp,
    /// Runs cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// Runs cargo with these arguments and one variable.
    CargoWith(&'static [&'static str], (&'static str, &'static str)),
    /// Looks at what the pure crates depend on.
    Purity,
    /// Installs and builds the packages for browsers.
    Pages,
    /// Runs npm in this directory, with these arguments.
    Npm(&'static str, &'static [&'static str]),
}

use Action::{Cargo, CargoWith, Npm, Pages, Purity, SetUp};

/// One profile and one selection of packages, so that nothing is built twice: with another selection
/// cargo would choose other features of shared dependencies.
#[rustfmt::skip]
pub(crate) const STEPS: &[Step] = &[
    Step { name: "tools", what: "what the checks need is there", action: SetUp },
    Step { name: "format", what: "rustfmt has nothing to change",
           action: Cargo(&["fmt", "--all", "--check"]) },
    Step { name: "purity", what: "the pure crates reach no runtime and no socket", action: Purity },
    Step { name: "deny", what: "licences, bans and sources of every dependency",
           action: Cargo(&["deny", "--log-level=error", "check", "bans", "licenses", "sources"]) },
    Step { name: "web: packages", what: "what browsers load is built, the pages before the node that embeds them",
           action: Pages },
    Step { name: "lint", what: "clippy is content",
           action: Cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]) },
    Step { name: "docs", what: "rustdoc is content",
           action: CargoWith(&["doc", "--release", "--workspace", "--no-deps"], ("RUSTDOCFLAGS", "-D warnings")) },
    Step { name: "build", what: "programs, tests and benchmarks are built",
           action: Cargo(&["build", "--release", "--workspace", "--all-targets"]) },
    Step { name: "unit", what: "unit, property and integration tests",
           action: Cargo(&["nextest", "run", "--release", "--workspace", "--filterset", "not package(espalier-e2e)"]) },
    Step { name: "doctests", what: "the examples in the documentation work",
           action: Cargo(&["test", "--release", "--workspace", "--doc"]) },
    Step { name: "web: lint", what: "TypeScript's compiler, eslint and prettier are content",
           action: Npm("web", &["run", "lint"]) },
    Step { name: "web: unit", what: "vectors, conformance and hostile bytes in TypeScript",
           action: Npm("web", &["test"]) },
    Step { name: "web: browser", what: "viewers in Chromium and native ones, in one tree",
           action: Npm("web", &["run", "browser"]) },
    Step { name: "web: dashboard", what: "the dashboard in Chromium, with 1,000 peers",
           action: Npm("web/dashboard", &["run", "browser"]) },
    Step { name: "e2e", what: "end to end, with real processes",
           action: Cargo(&["nextest", "run", "--release", "--workspace", "--filterset", "package(espalier-e2e)", "--test-threads=1"]) },
];

impl Action {
    /// The command to run; nothing for what xtask does itself.
    pub(crate) fn command(&self) -> Option<Command> {
        match self {
            SetUp | Purity | Pages => None,
            Cargo(arguments) => Some(cargo(arguments.iter().copied())),
            Npm(package, arguments) => {
                let mut command = Command::new("npm");
                command
                    .current_dir(workspace().join(package))
                    .args(*arguments);
                if let Ok(programs) = release_directory() {
                    command.env("ESPALIER_BIN_DIR", programs);
                }
                Some(command)
            }
            CargoWith(arguments, (name, value)) => {
                let mut command = cargo(arguments.iter().copied());
                command.env(name, value);
                Some(command)
            }
        }
    }

    /// The command as a person would type it.
    pub(crate) fn shown(&self, name: &str) -> String {
        match self {
            SetUp | Purity | Pages => format!("cargo xtask test --only '{name}'"),
            Cargo(arguments) => format!("cargo {}", words(arguments)),
            Npm(package, arguments) => format!("(cd {package} && npm {})", words(arguments)),
            CargoWith(arguments, (name, value)) => {
                format!("{name}='{value}' cargo {}", words(arguments))
            }
        }
    }
}

fn words(arguments: &[&str]) -> String {
    let quoted = |word: &&str| {
        if word.contains([' ', '(']) {
            format!("'{word}'")
        } else {
            (*word).to_owned()
        }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_tools_come_first_and_scenes_last() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(STEPS[..index].iter().all(|other| other.name != step.name));
        }
        assert_eq!(STEPS.first().map(|step| step.name), Some("tools"));
        assert_eq!(STEPS.last().map(|step| step.name), Some("e2e"));
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let shown = |name: &str| {
            STEPS
                .iter()
                .find(|step| step.name == name)
                .unwrap()
                .action
                .shown(name)
        };
        assert_eq!(shown("format"), "cargo fmt --all --check");
        assert_eq!(
            shown("docs"),
            "RUSTDOCFLAGS='-D warnings' cargo doc --release --workspace --no-deps"
        );
        assert!(shown("unit").ends_with("--filterset 'not package(espalier-e2e)'"));
    }
}
