//! The logs of a scene's processes: looked through at its end, kept when it failed.

use std::fs;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::binaries::report_directory;

/// Every log below a directory.
pub(crate) fn all(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_log = path
                .extension()
                .is_some_and(|ext| ext == "log" || ext == "out");
            if path.is_dir() {
                pending.push(path);
            } else if is_log && let Ok(bytes) = fs::read(&path) {
                found.push((path, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    found.sort();
    found
}

/// The last lines of a log.
pub(crate) fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Copies the logs to where they outlive the scene, and prints their ends.
pub(crate) fn keep(name: &str, directory: &Path) {
    let Ok(target) = report_directory().map(|reports| reports.join("logs").join(name)) else {
        return;
    };
    // Logs of an earlier failure would only mislead.
    let _stale: Result<(), _> = fs::remove_dir_all(&target);
    if let Err(error) = fs::create_dir_all(&target) {
        return eprintln!("logs are lost: {error}");
    }
    for (path, text) in all(directory) {
        let file = path
            .strip_prefix(directory)
            .unwrap_or(&path)
            .display()
            .to_string()
            .replace('/', "-");
        eprintln!("---- the end of {file}\n{}", end_of(&text));
        if let Err(error) = fs::write(target.join(&file), text) {
            eprintln!("{file} is lost: {error}");
        }
    }
    let access = directory.join("nginx").join("access.json");
    // nginx may not have been started.
    let _copied: Result<u64, _> = fs::copy(access, target.join("nginx-access.json"));
    eprintln!("---- all logs: {}", target.display());
}

/// When a log first had a line with all of these words, in milliseconds since the Unix epoch.
pub(crate) fn first_logged_ms(log: &str, words: &[&str]) -> Option<i64> {
    let line = log
        .lines()
        .find(|line| words.iter().all(|word| line.contains(word)))?;
    let at = OffsetDateTime::parse(line.split_whitespace().next()?, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::first_logged_ms;

    #[test]
    fn finds_when_a_line_was_logged() {
        let log = "2026-11-23T11:52:26.135078Z  INFO link neighbour=a state=Up detail=\"\"\n\
                   2026-11-23T11:52:27.5Z  INFO link neighbour=a state=Corrupt detail=\"x\"\n";
        let found = first_logged_ms(log, &["neighbour=a ", "state=Corrupt"]);
        assert_eq!(found, Some(1_795_434_747_500));
        assert_eq!(first_logged_ms(log, &["neighbour=b "]), None);
        assert_eq!(first_logged_ms("no date at all", &["date"]), None);
    }
}
