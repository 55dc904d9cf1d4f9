//! The replication state machine of one copyset: Raft over indexes, without I/O.
