//! The polling loop: disk ring, transports, timers and polite sleep in a glommio executor.
