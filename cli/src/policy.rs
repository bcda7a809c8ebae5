//! A channel's policy as a TOML file.

use std::path::Path;

use espalier_process::{BitRate, Failure, OrFail};
use espalier_proto::v1::Policy;
use serde::Deserialize;

/// The file's form: the fields of `espalier.v1.Policy`, with the rate as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    target_roots: Option<u32>,
    max_planned_roots: Option<u32>,
    max_depth: Option<u32>,
    overhead_permille: Option<u32>,
    max_children: Option<u32>,
    cdn_lease: Option<BitRateText>,
}

/// `"8mbit"`, or a number of bits per second.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BitRateText {
    Number(u64),
    Text(String),
}

/// Reads a policy. Limits are the orchestrator's to check.
///
/// # Errors
///
/// A usage failure for a file that cannot be read or understood.
pub(crate) fn read(path: &Path) -> Result<Policy, Failure> {
    let text = std::fs::read_to_string(path)
        .or_usage(format!("cannot read the policy {}", path.display()))?;
    parse(&text).map_err(|why| {
        Failure::usage(format!("{} is no policy", path.display()))
            .because(why)
            .next("`espalier channel create --help` lists what a policy may name")
    })
}

fn parse(text: &str) -> Result<Policy, String> {
    let file: PolicyFile = toml::from_str(text).map_err(|error| error.to_string())?;
    Ok(Policy {
        target_roots: file.target_roots,
        max_planned_roots: file.max_planned_roots,
        max_depth: file.max_depth,
        overhead_permille: file.overhead_permille,
        max_children: file.max_children,
        cdn_lease_bps: file.cdn_lease.map(rate).transpose()?,
    })
}

fn rate(text: BitRateText) -> Result<u64, String> {
    match text {
        BitRateText::Number(bits) => Ok(bits),
        BitRateText::Text(text) => text
            .parse::<BitRate>()
            .map(BitRate::bits_per_second)
            .map_err(|error| format!("cdn_lease: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let policy = parse(
            "target_roots = 2\nmax_planned_roots = 9\nmax_depth = 6\noverhead_permille = 1150\n\
             max_children = 4\ncdn_lease = \"8mbit\"",
        )
        .unwrap();
        assert_eq!(
            policy,
            Policy {
                target_roots: Some(2),
                max_planned_roots: Some(9),
                max_depth: Some(6),
                overhead_permille: Some(1150),
                max_children: Some(4),
                cdn_lease_bps: Some(8_000_000),
            }
        );
    }

    #[test]
    fn an_empty_file_takes_every_default() {
        assert_eq!(parse(""), Ok(Policy::default()));
        assert_eq!(parse("cdn_lease = 5").unwrap().cdn_lease_bps, Some(5));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("max_dept = 3", "max_dept"),
            ("max_depth = -1", "max_depth"),
            ("max_depth = \"deep\"", "max_depth"),
            ("cdn_lease = \"8mb\"", "cdn_lease"),
            ("max_depth", "line 1"),
        ];
        for (text, expected) in table {
            let why = parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}
