//! The metadata state machine: a pure function of commands.
