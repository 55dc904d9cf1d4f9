//! A shard: copysets, store and sessions behind one synchronous apply.
