//! The alternate screen.

use std::io;

use espalier_process::{Failure, OrFail, silence_terminal_logs};
use ratatui::{DefaultTerminal, Frame};

/// The terminal in raw mode on its alternate screen, until dropped.
pub(crate) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal; log lines that would be written over the picture are held back.
    ///
    /// # Errors
    ///
    /// If stdout is no terminal that can do this.
    pub(crate) fn open() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().or_fail("the terminal cannot show a live view")?;
        silence_terminal_logs(true);
        Ok(Self { terminal })
    }

    /// Draws one picture.
    ///
    /// # Errors
    ///
    /// If the terminal is gone.
    pub(crate) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        let drawn: io::Result<_> = self.terminal.draw(picture);
        drawn.map(|_| ()).or_fail("cannot draw on the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        silence_terminal_logs(false);
        ratatui::restore();
    }
}
