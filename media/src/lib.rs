//! Playlists, objects, chunks, descriptors and their signatures.
