//! The espalier command: demo, channels, tokens.
