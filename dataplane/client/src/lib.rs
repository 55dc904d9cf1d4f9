//! Client of the data plane: splits, routes, retries and orders I/O.
