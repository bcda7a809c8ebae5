//! Runs the checks, times them, and says at the end how it went.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::{say, time};
use crate::steps::{Action, STEPS, Step};
use crate::{pages, purity, tools};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                 # everything
  cargo xtask test --list
  cargo xtask test --only lint --only unit
  cargo xtask test --keep-going    # see every failure, not only the first")]
pub(crate) struct TestArgs {
    /// Only this check; may be repeated
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the checks and do nothing
    #[arg(long)]
    list: bool,
    /// Go on behind a failure
    #[arg(long)]
    keep_going: bool,
}

/// How a check went.
struct Outcome {
    step: &'static Step,
    /// Nothing: it did not run, because one before it failed.
    result: Option<Result<Counts>>,
    took: Duration,
}

/// How many tests a check has run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the checks that the arguments name.
///
/// # Errors
///
/// If one fails, or there is no such check.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let steps = select(&args.only)?;
    if args.list {
        for step in steps {
            say(format!(
                "{:<14} {:<48} {}",
                step.name,
                step.what,
                step.action.shown(step.name)
            ));
        }
        return Ok(());
    }
    let started = Instant::now();
    let mut outcomes = Vec::new();
    let mut broken = false;
    for step in steps {
        if broken && !args.keep_going {
            outcomes.push(Outcome {
                step,
                result: None,
                took: Duration::ZERO,
            });
            continue;
        }
        let outcome = run_step(step);
        broken |= matches!(outcome.result, Some(Err(_)));
        outcomes.push(outcome);
    }
    conclude(&outcomes, started.elapsed())
}

fn select(only: &[String]) -> Result<Vec<&'static Step>> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    for name in only {
        ensure!(
            names.contains(&name.as_str()),
            "there is no check {name}: {}",
            names.join(", ")
        );
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn run_step(step: &'static Step) -> Outcome {
    say(format!("\n==> {}: {}", step.name, step.what));
    let started = Instant::now();
    let result = match &step.action {
        Action::SetUp => tools::set_up().map(|()| Counts::default()),
        Action::Purity => purity::check().map(|()| Counts::default()),
        Action::Pages => pages::make().map(|()| Counts::default()),
        Action::Cargo(_) | Action::CargoWith(_, _) | Action::Npm(_, _) => {
            run_cargo(&step.action, step.name)
        }
    };
    let took = started.elapsed();
    if let Err(error) = &result {
        say(format!(
            "\n!!! {} FAILED after {}\n{error:#}\n!!! to repeat it: {}\n",
            step.name,
            time(took),
            step.action.shown(step.name)
        ));
    } else {
        say(format!("==> {} took {}", step.name, time(took)));
    }
    Outcome {
        step,
        result: Some(result),
        took,
    }
}

fn run_cargo(action: &Action, name: &str) -> Result<Counts> {
    let mut command = action.command().context("there is no command")?;
    say(action.shown(name));
    let counts = show_and_count(&mut command)?;
    match counts {
        Counted {
            status: true,
            counts,
        } => Ok(counts),
        Counted {
            status: false,
            counts: Counts { failed, .. },
        } if failed > 0 => {
            bail!("{failed} tests failed")
        }
        Counted { .. } => bail!("it did not end well"),
    }
}

struct Counted {
    status: bool,
    counts: Counts,
}

/// Runs a command, shows all it says on stderr, and counts the tests that it ran.
fn show_and_count(command: &mut Command) -> Result<Counted> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown} did not run"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let counts = std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| stdout.map_or(Counts::default(), show)),
            scope.spawn(|| stderr.map_or(Counts::default(), show)),
        ];
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_default())
            .fold(Counts::default(), Counts::plus)
    });
    let status = child.wait().with_context(|| format!("{shown} was lost"))?;
    Ok(Counted {
        status: status.success(),
        counts,
    })
}

fn show(output: impl Read) -> Counts {
    let mut counts = Counts::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        counts = counts.plus(counts_in(&plain(&line)));
        say(line);
    }
    counts
}

/// Removes the colours of a terminal.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, behind)| behind);
    }
    out + rest
}

/// Reads the closing lines of nextest and of libtest:
/// `Summary [ 0.049s] 18 tests run: 17 passed (1 slow), 1 failed, 2 skipped` and
/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn counts_in(line: &str) -> Counts {
    let result = if line.trim_start().starts_with("Summary [") {
        line.split_once("run: ").map(|(_, result)| result)
    } else {
        // What a failed test printed is shown indented: only the runner's own line starts at the margin.
        line.strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .map(|(_, r)| r)
    };
    let number = |word: &str| {
        result
            .into_iter()
            .flat_map(|result| result.split([',', ';']))
            .filter_map(|part| part.trim().split_once(' '))
            .filter(|(_, rest)| rest.split(' ').next() == Some(word))
            .filter_map(|(number, _)| number.parse::<u64>().ok())
            .sum::<u64>()
    };
    Counts {
        passed: number("passed"),
        failed: number("failed") + number("timed"),
        skipped: number("ignored"),
    }
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Says how each check went; the last line is the sum of all.
fn conclude(outcomes: &[Outcome], took: Duration) -> Result<()> {
    say("\n────────────");
    let mut counts = Counts::default();
    let mut failed = 0;
    for Outcome { step, result, took } in outcomes {
        let verdict = match result {
            None => "not run".to_owned(),
            Some(Err(_)) => {
                failed += 1;
                format!(
                    "FAILED   {:>7}   to repeat it: {}",
                    time(*took),
                    step.action.shown(step.name)
                )
            }
            Some(Ok(own)) => {
                counts = counts.plus(*own);
                let tests = if own.passed > 0 {
                    format!("   {} tests", own.passed)
                } else {
                    String::new()
                };
                format!("ok       {:>7}{tests}", time(*took))
            }
        };
        say(format!("{:<14} {verdict}", step.name));
    }
    let unrun = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_none())
        .count();
    let passed = outcomes.len() - failed - unrun;
    say(format!(
        "test result: {}. {} tests passed; {} ignored; {passed} of {} checks passed, {failed} failed, \
         {unrun} not run; finished in {}",
        if failed == 0 { "ok" } else { "FAILED" },
        counts.passed,
        counts.skipped,
        outcomes.len(),
        time(took)
    ));
    ensure!(failed == 0, "a check failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let table = [
            (
                "     Summary [   0.049s] 18 tests run: 18 passed, 0 skipped",
                (18, 0, 0),
            ),
            (
                "Summary [1.2s] 20 tests run: 17 passed (1 slow), 2 failed, 1 timed out, 90 skipped",
                (17, 3, 0),
            ),
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
                (3, 0, 1),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored",
                (3, 2, 0),
            ),
            (
                "    test result: FAILED. 0 passed; 1 failed; 0 ignored",
                (0, 0, 0),
            ),
            ("18 tests run: 18 passed", (0, 0, 0)),
            ("Summary [ 12 passed", (0, 0, 0)),
        ];
        for (line, (passed, failed, skipped)) in table {
            assert_eq!(
                counts_in(line),
                Counts {
                    passed,
                    failed,
                    skipped
                },
                "{line}"
            );
        }
    }

    #[test]
    fn colours_are_removed() {
        assert_eq!(
            plain("\u{1b}[32;1m     Summary\u{1b}[0m [x] 1"),
            "     Summary [x] 1"
        );
        assert_eq!(plain("no colours"), "no colours");
        assert_eq!(plain("cut \u{1b}[3"), "cut ");
    }

    #[test]
    fn output_on_either_side_is_counted_and_the_status_kept() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; \
                      echo 'Summary [1s] 4 tests run: 3 passed, 1 failed, 0 skipped' >&2; exit 3";
        let counted = show_and_count(Command::new("/bin/sh").args(["-c", script])).unwrap();
        assert!(!counted.status);
        assert_eq!(
            counted.counts,
            Counts {
                passed: 5,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn unknown_checks_are_refused_and_known_ones_keep_their_order() {
        assert!(select(&["lnit".to_owned()]).is_err());
        let names: Vec<&str> = select(&["e2e".to_owned(), "format".to_owned()])
            .unwrap()
            .iter()
            .map(|step| step.name)
            .collect();
        assert_eq!(names, ["format", "e2e"]);
        assert_eq!(select(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn one_failure_fails_all() {
        let outcome = |result| Outcome {
            step: &STEPS[0],
            result,
            took: Duration::ZERO,
        };
        assert!(conclude(&[outcome(Some(Ok(Counts::default())))], Duration::ZERO).is_ok());
        let bad = [outcome(Some(Err(anyhow::anyhow!("x")))), outcome(None)];
        assert!(conclude(&bad, Duration::ZERO).is_err());
    }
}
