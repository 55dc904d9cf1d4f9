//! gRPC interface of the metadata servers and a client that finds the leader.
