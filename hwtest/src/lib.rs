//! What this host can do: start-up checks and the doctor report.
