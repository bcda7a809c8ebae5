//! What every Espalier program shares: exit codes, logging, shutdown signals, command-line values.
