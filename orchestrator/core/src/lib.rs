//! The planner, the channel state machine, the session table and the dispatch of effects: pure and deterministic.
