//! What the origin serves.

use std::path::PathBuf;

use bytes::Bytes;
use time::OffsetDateTime;

use super::sample::LoopedSample;

/// Where files come from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A flat directory that an encoder writes into.
    Directory(PathBuf),
    /// The sample media of this repository.
    Sample(LoopedSample),
}

/// A file to serve.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) body: Bytes,
    pub(crate) content_type: &'static str,
    pub(crate) playlist: bool,
}

impl Content {
    /// Finds a file by its name; names that lead out of the directory are no names.
    pub(crate) async fn find(&self, name: &str) -> Option<File> {
        let (content_type, playlist) = kind(name)?;
        let body = match self {
            Self::Directory(directory) => {
                Bytes::from(tokio::fs::read(directory.join(name)).await.ok()?)
            }
            Self::Sample(sample) => from_sample(sample, name)?,
        };
        Some(File {
            body,
            content_type,
            playlist,
        })
    }
}

fn from_sample(sample: &LoopedSample, name: &str) -> Option<Bytes> {
    let now = OffsetDateTime::now_utc();
    match name {
        "master.m3u8" => Some(Bytes::from_static(LoopedSample::master().as_bytes())),
        "index.m3u8" => Some(Bytes::from(sample.playlist(now))),
        segment => sample.segment(segment, now),
    }
}

/// The content type of a name that may be served, and whether it is a playlist's.
fn kind(name: &str) -> Option<(&'static str, bool)> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !plain || name.starts_with('.') {
        return None;
    }
    match name.rsplit_once('.')?.1 {
        "m3u8" => Some(("application/vnd.apple.mpegurl", true)),
        "ts" => Some(("video/mp2t", false)),
        "m4s" => Some(("video/iso.segment", false)),
        "mp4" => Some(("video/mp4", false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_of_media_are_served() {
        for name in [
            "../secret.ts",
            "/etc/passwd",
            ".hidden.ts",
            "a/b.ts",
            "x.tmp",
            "ts",
            "",
            "a b.ts",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
        assert_eq!(
            kind("master.m3u8"),
            Some(("application/vnd.apple.mpegurl", true))
        );
        assert_eq!(kind("segment-17.ts"), Some(("video/mp2t", false)));
    }

    #[tokio::test]
    async fn a_directory_s_files_are_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let content = Content::Directory(directory.path().to_owned());
        assert!(content.find("index.m3u8").await.is_none());
        for text in ["one", "two"] {
            std::fs::write(directory.path().join("index.m3u8"), text).unwrap();
            assert_eq!(content.find("index.m3u8").await.unwrap().body, text);
        }
    }
}
