//! The metadata server: openraft, redb and tonic around the state machine.
