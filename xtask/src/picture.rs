//! `cargo xtask picture`: a true picture of the demo for the README.
//!
//! The demo runs in a terminal of tmux's; what is on that screen becomes an SVG, character for character and
//! colour for colour. Nothing is drawn by hand, so the picture can be made again whenever the screen changes.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{release_directory, workspace};
use crate::console::say;

const COLUMNS: usize = 128;
const ROWS: usize = 26;

/// Where the README expects it.
const PLACE: &str = "cli/picture/demo.svg";

const SESSION: &str = "espalier-picture";

/// Size of a character in the picture.
const CELL: (usize, usize) = (8, 17);
const MARGIN: usize = 12;

/// Runs the demo for some time and keeps what it shows.
///
/// # Errors
///
/// If tmux is not there, or the demo shows no tree.
pub(crate) fn take(after: Duration) -> Result<()> {
    let program = release_directory()?.join("espalier");
    ensure!(
        program.is_file(),
        "build the programs first: cargo xtask demo"
    );
    let size = [COLUMNS.to_string(), ROWS.to_string()];
    let demo = format!("exec '{}' demo", program.display());
    tmux(&[
        "new-session",
        "-d",
        "-s",
        SESSION,
        "-x",
        &size[0],
        "-y",
        &size[1],
        &demo,
    ])?;
    let session = Session;
    let screen = session.screen_after(after)?;
    drop(session);
    let path = workspace().join(PLACE);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&path, svg(&screen)).with_context(|| format!("{}", path.display()))?;
    say(format!(
        "{PLACE} is what the demo showed after {} s",
        after.as_secs()
    ));
    Ok(())
}

/// The terminal; it ends, and the demo with it, when dropped.
struct Session;

impl Session {
    fn screen_after(&self, time: Duration) -> Result<String> {
        sleep(time);
        let screen = tmux(&["capture-pane", "-e", "-p", "-t", SESSION])?;
        if !screen.contains("watch the farthest peer") {
            bail!("the tree has not formed yet:\n{screen}");
        }
        Ok(screen)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The demo ends in order when asked by its key; then the session has nothing left to run.
        let _gone = tmux(&["send-keys", "-t", SESSION, "q"]);
        sleep(Duration::from_secs(5));
        let _gone = tmux(&["kill-session", "-t", SESSION]);
    }
}

fn tmux(arguments: &[&str]) -> Result<String> {
    let output = Command::new("tmux")
        .args(arguments)
        .output()
        .context("tmux did not run: apt-get install tmux")?;
    ensure!(
        output.status.success(),
        "tmux: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How characters look, as the escape sequences before them said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
    dim: bool,
}

impl Look {
    /// Follows one `ESC [ … m`. Of the 256 colours only the first sixteen are known: others are not ours.
    fn follow(&mut self, codes: &str) {
        let mut codes = codes.split(';').map(|code| code.parse::<u8>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                22 => (self.bold, self.dim) = (false, false),
                30..=37 => self.foreground = Some(code - 30),
                90..=97 => self.foreground = Some(code - 90 + 8),
                38 => self.foreground = indexed(&mut codes),
                39 => self.foreground = None,
                40..=47 => self.background = Some(code - 40),
                100..=107 => self.background = Some(code - 100 + 8),
                48 => self.background = indexed(&mut codes),
                49 => self.background = None,
                _ => {}
            }
        }
    }

    fn ink(self) -> &'static str {
        self.foreground
            .map_or(if self.dim { "#8b949e" } else { "#d7dde4" }, colour)
    }
}

/// Reads what follows 38 or 48: `5;n`, or `2;r;g;b`, which has no index.
fn indexed(codes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    match codes.next() {
        Some(5) => codes.next(),
        Some(2) => {
            codes.take(3).for_each(drop);
            None
        }
        _ => None,
    }
}

fn colour(index: u8) -> &'static str {
    const COLOURS: [&str; 16] = [
        "#10151b", "#e5534b", "#57ab5a", "#d9a441", "#539bf5", "#b083f0", "#39c5cf", "#d7dde4",
        "#6b7682", "#ff938a", "#6bc46d", "#eac55f", "#6cb6ff", "#dcbdfb", "#56d4dd", "#ffffff",
    ];
    COLOURS
        .get(usize::from(index))
        .copied()
        .unwrap_or("#d7dde4")
}

/// Draws a screen with its escape sequences.
fn svg(screen: &str) -> String {
    let (width, height) = (COLUMNS * CELL.0 + 2 * MARGIN, ROWS * CELL.1 + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" \
         font-size=\"13.28\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#10151b\"/>\n"
    );
    let mut look = Look::default();
    for (row, line) in screen.lines().enumerate() {
        let mut column = 0;
        for (run, text) in runs(line, &mut look) {
            let length = text.chars().count();
            draw(&mut out, run, &text, (column, row), length);
            column += length;
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Splits a line where its look changes; the look goes on in the next line.
fn runs(line: &str, look: &mut Look) -> Vec<(Look, String)> {
    let mut runs = Vec::new();
    let mut rest = line;
    loop {
        let (text, behind) = rest.split_once("\u{1b}[").unwrap_or((rest, ""));
        if !text.is_empty() {
            runs.push((*look, text.to_owned()));
        }
        let Some((codes, after)) = behind.split_once('m') else {
            return runs;
        };
        look.follow(codes);
        rest = after;
    }
}

fn draw(out: &mut String, look: Look, text: &str, (column, row): (usize, usize), length: usize) {
    let (x, y) = (MARGIN + column * CELL.0, MARGIN + row * CELL.1);
    let (width, height) = (length * CELL.0, CELL.1);
    let infallible = "invariant: a String takes every text";
    if let Some(background) = look.background.filter(|index| *index != 0) {
        let fill = colour(background);
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        )
        .expect(infallible);
    }
    let weight = if look.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let (ink, baseline) = (look.ink(), y + 13);
    for (offset, word) in words(text) {
        let x = x + offset * CELL.0;
        let width = word.chars().count() * CELL.0;
        // Each word is stretched to its cells: fonts differ, columns must not.
        writeln!(
            out,
            "<text x=\"{x}\" y=\"{baseline}\" textLength=\"{width}\" \
             lengthAdjust=\"spacingAndGlyphs\" fill=\"{ink}\"{weight}>{}</text>",
            escaped(word)
        )
        .expect(infallible);
    }
}

/// The words of a text, and how many characters are before each.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut offset = 0;
    for word in text.split(' ') {
        if !word.is_empty() {
            words.push((offset, word));
        }
        offset += word.chars().count() + 1;
    }
    words
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_their_sequences_over_lines() {
        let mut look = Look::default();
        let first = runs("a\u{1b}[1;32mb\u{1b}[0mc\u{1b}[33m", &mut look);
        let green = Look {
            foreground: Some(2),
            bold: true,
            ..Look::default()
        };
        assert_eq!(
            first,
            [
                (Look::default(), "a".to_owned()),
                (green, "b".to_owned()),
                (Look::default(), "c".to_owned())
            ]
        );
        let second = runs("d\u{1b}[39me", &mut look);
        assert_eq!(second[0].0.foreground, Some(3));
        assert_eq!(second[1].0.foreground, None);
    }

    #[test]
    fn the_256_colours_do_not_spill_into_other_attributes() {
        let mut look = Look::default();
        look.follow("38;5;2;48;5;8;1");
        assert_eq!(
            look,
            Look {
                foreground: Some(2),
                background: Some(8),
                bold: true,
                dim: false
            }
        );
        look.follow("38;2;1;2;3");
        assert_eq!(
            look,
            Look {
                foreground: None,
                background: Some(8),
                bold: true,
                dim: false
            }
        );
    }

    #[test]
    fn words_keep_their_columns() {
        assert_eq!(words("  a bc  │"), [(2, "a"), (4, "bc"), (8, "│")]);
        assert_eq!(words("   "), []);
    }

    #[test]
    fn text_cannot_leave_the_picture() {
        let picture = svg("<script>&\u{1b}[42m x\u{1b}[0m");
        assert!(picture.contains("&lt;script&gt;&amp;</text>"), "{picture}");
        assert!(picture.contains("fill=\"#57ab5a\"/>"), "{picture}");
        assert!(picture.ends_with("</svg>\n"));
    }
}
