//! Deterministic simulation of whole clusters of real shards.
