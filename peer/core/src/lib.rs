//! The relay engine: what to ask, verify, serve, and when to fall back. Pure.
