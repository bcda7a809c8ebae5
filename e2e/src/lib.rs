//! End-to-end tests with real processes: ffmpeg, nginx, orchestrator, peers.
