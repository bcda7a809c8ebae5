//! Watches an origin, signs its objects and serves their descriptors.
