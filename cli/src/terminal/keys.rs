//! Keys that a live view understands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

/// How soon the reading thread notices that nobody wants keys any more.
const POLL: Duration = Duration::from_millis(100);

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// End the view: q, Escape, or Ctrl-C, which raw mode turns from a signal into a key.
    Quit,
    Up,
    Down,
    /// Start again what has ended.
    Restart,
    /// The terminal has another size.
    Redraw,
}

/// The keyboard, read by a thread of its own: the terminal has no other way to wait for two things.
pub(crate) struct Keys {
    keys: mpsc::Receiver<Key>,
    closed: Arc<AtomicBool>,
}

impl Keys {
    /// Starts to read; the terminal must be in raw mode.
    pub(crate) fn open() -> Self {
        let (sender, keys) = mpsc::channel(16);
        let closed = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closed);
        std::thread::spawn(move || read(&sender, &stop));
        Self { keys, closed }
    }

    /// Waits for the next key; `None` when the keyboard is gone.
    pub(crate) async fn next(&mut self) -> Option<Key> {
        self.keys.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

fn read(sender: &mpsc::Sender<Key>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match event::poll(POLL) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if let Some(key) = meaning(&event)
                    && sender.blocking_send(key).is_err()
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key_meaning(*key),
        Event::Resize(_, _) => Some(Key::Redraw),
        Event::Key(_)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Mouse(_)
        | Event::Paste(_) => None,
    }
}

fn key_meaning(key: KeyEvent) -> Option<Key> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (control && matches!(key.code, KeyCode::Char('c' | 'd')))
    {
        Some(Key::Quit)
    } else if matches!(key.code, KeyCode::Up | KeyCode::Char('k')) {
        Some(Key::Up)
    } else if matches!(key.code, KeyCode::Down | KeyCode::Char('j')) {
        Some(Key::Down)
    } else if key.code == KeyCode::Char('r') && !control {
        Some(Key::Restart)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_meanings() {
        let table = [
            (KeyCode::Char('q'), KeyModifiers::NONE, Some(Key::Quit)),
            (KeyCode::Esc, KeyModifiers::NONE, Some(Key::Quit)),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Key::Quit)),
            (KeyCode::Char('c'), KeyModifiers::NONE, None),
            (KeyCode::Up, KeyModifiers::NONE, Some(Key::Up)),
            (KeyCode::Down, KeyModifiers::NONE, Some(Key::Down)),
            (KeyCode::Char('r'), KeyModifiers::NONE, Some(Key::Restart)),
            (KeyCode::Char('r'), KeyModifiers::CONTROL, None),
            (KeyCode::Enter, KeyModifiers::NONE, None),
        ];
        for (code, modifiers, expected) in table {
            assert_eq!(
                meaning(&Event::Key(KeyEvent::new(code, modifiers))),
                expected,
                "{code:?}"
            );
        }
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
