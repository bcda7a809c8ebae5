//! Calls an engine and survives its panics.
//!
//! A broken invariant is a panic. The engine that panicked is not looked at again; the event that it
//! panicked at is tried once more on the engine that replaces it. If that one panics too, the event is at
//! fault: it is dropped and the channel is degraded. This module only keeps that account.

use std::panic::{AssertUnwindSafe, catch_unwind};

use espalier_orchestrator_core::ChannelEvent;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It was handled.
    Done,
    /// The engine panicked. It has to be replaced before anything else happens.
    Panicked,
}

/// Runs `call`, which may panic.
pub(super) fn attempt(call: impl FnOnce()) -> Attempt {
    // Nothing that `call` touched is used after a panic: the caller replaces the engine.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(()) => Attempt::Done,
        Err(_panic) => Attempt::Panicked,
    }
}

/// Handles one event, at most twice, with a new engine in between; returns whether it was dropped.
pub(super) fn twice<E>(
    engine: &mut E,
    event: &ChannelEvent,
    mut handle: impl FnMut(&mut E, ChannelEvent),
    mut replace: impl FnMut(&mut E),
) -> bool {
    for _ in 0..2 {
        match attempt(|| handle(engine, event.clone())) {
            Attempt::Done => return false,
            Attempt::Panicked => replace(engine),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts down at each call and panics until zero.
    struct Fragile {
        panics: u32,
        handled: u32,
        made: u32,
    }

    fn run(panics: u32) -> (bool, Fragile) {
        let mut engine = Fragile {
            panics,
            handled: 0,
            made: 1,
        };
        let dropped = twice(
            &mut engine,
            &ChannelEvent::Tick,
            |engine, _event| {
                if engine.panics > 0 {
                    engine.panics -= 1;
                    panic!("an invariant does not hold");
                }
                engine.handled += 1;
            },
            |engine| engine.made += 1,
        );
        (dropped, engine)
    }

    #[test]
    fn an_event_is_retried_once_on_a_new_engine_and_then_dropped() {
        for (panics, dropped, handled, made) in
            [(0, false, 1, 1), (1, false, 1, 2), (2, true, 0, 3)]
        {
            let (was_dropped, engine) = run(panics);
            assert_eq!(
                (was_dropped, engine.handled, engine.made),
                (dropped, handled, made),
                "{panics}"
            );
        }
    }
}
