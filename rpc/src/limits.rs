//! Limits of this crate, each with its reason.

use std::time::Duration;

use ogive_types::MAX_IO_BYTES;

/// Longest body: an append of many small entries, or the checksums of a chunk, with room to spare.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// Longest payload: one I/O of the largest size.
pub const PAYLOAD_BYTES_MAX: usize = MAX_IO_BYTES;

/// Longest body of a HELLO: its fields take under 72 bytes, the rest is for the token and the paths
/// offered. A stranger makes us hold no more than this.
pub const HELLO_BODY_BYTES_MAX: usize = 4 << 10;
/// Longest token in a HELLO: a signed ticket is a few hundred bytes.
pub const TOKEN_BYTES_MAX: usize = 2 << 10;
/// How far the clocks of two hosts may differ without harm: a token is accepted for so long after
/// its end. Hosts without time synchronisation drift by seconds a day.
pub const TOKEN_CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// Longest body of a GOODBYE: a code and a sentence.
pub const GOODBYE_BODY_BYTES_MAX: usize = 512;

/// Paths that a HELLO offers: two exist beside TCP, the rest is for those to come.
pub const OFFERS_MAX: usize = 8;
/// What an offer says of its path: a version and the name of a host take 20 bytes.
pub const OFFER_BYTES_MAX: usize = 64;

/// Longest body of a PATH frame: the address of a lane and a few numbers.
pub const PATH_BODY_BYTES_MAX: usize = 8 << 10;
/// Longest address of a lane: a UCX worker with a dozen devices takes under 1 KiB.
pub const LANE_ADDRESS_BYTES_MAX: usize = 4 << 10;
/// Longest reason why a path is not taken: a sentence, for it goes into one log line.
pub const PATH_WHY_BYTES_MAX: usize = 200;

/// An RDMA path is proved, or given up, within this: the NICs connect in some 10 ms, but a device
/// without a way to the peer is found out only by UCX's own retries.
pub const RDMA_WITHIN: Duration = Duration::from_secs(3);
/// The same for shared memory, where only a peer that is busy or stopped takes its time.
pub const SHM_WITHIN: Duration = Duration::from_secs(1);
/// How long an acceptor waits for the connector's choice: all attempts, and some time for frames
/// that travel and for a peer that is slow.
pub const CHOICE_WITHIN: Duration = Duration::from_secs(6);
/// A connection that its owner closes while a path is tried for so long already counts as a failure
/// of that path: ten times what a NIC takes. Owners that give up before [`RDMA_WITHIN`] would
/// otherwise try the same path for ever.
pub const PATH_PATIENCE: Duration = Duration::from_millis(100);
/// A path that failed or broke to a peer is not tried again for this long, doubled every time...
pub const PATH_RETRY_AFTER: Duration = Duration::from_secs(30);
/// ...up to this. Longer would hide that the path has been repaired.
pub const PATH_RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Failed paths that are remembered; one takes some 200 bytes. Beyond it the oldest is forgotten,
/// which costs an attempt.
pub const AVOIDED_PATHS_MAX: usize = 1024;

/// With lanes, TCP is asked in every poll until this many in a row found nothing there: some 20 µs,
/// so that a round trip over TCP sees none of the saving that follows.
pub const TCP_EAGER_POLLS: u32 = 64;
/// Then in one of so many polls. A poll of quiet lanes takes under 0.1 µs and one of TCP 0.3 µs, so
/// TCP costs a spinning owner a fifth of its turns, and waits 2 µs.
pub const TCP_LAZY_POLLS: u32 = 16;
/// And at least this often, for an owner that is busy between its polls.
pub const TCP_LAZY_EVERY: Duration = Duration::from_micros(10);
/// The same while no frames of the layers above go over TCP: peers that meet us, and ends of
/// connections, wait 50 µs without harm, and a round trip over a lane is not held up by a system
/// call that finds nothing.
pub const TCP_IDLE_POLLS: u32 = 1024;
/// As `TCP_LAZY_EVERY`, while no frames go over TCP.
pub const TCP_IDLE_EVERY: Duration = Duration::from_micros(50);
/// A lane whose owner closed the connection is kept for so long at most, until what was sent over
/// it has arrived: as long as a closed TCP connection.
pub const LANE_PARTS_WITHIN: Duration = LINGER_FOR;
/// Polls of a lane whose connection has ended on TCP, to take what was sent before the end.
pub const LANE_DRAIN_POLLS: usize = 64;

/// Requests in flight on one connection, whatever the peer grants: a deeper queue only adds delay,
/// and the tracker's memory stays bounded.
pub const REQUESTS_PER_CONN_MAX: u32 = 4096;
/// How often the tracker looks for overdue requests at most: deadlines count in milliseconds.
pub const EXPIRE_EVERY: Duration = Duration::from_millis(1);

/// Connections of one transport. A shard talks to the shards of its peers and to some hundred
/// clients; each connection costs a descriptor and about 1 KiB while idle.
pub const CONNECTIONS_MAX: usize = 4096;
/// Inbound connections that have not said HELLO. Honest peers say it within a round trip, so this
/// many at once are a flood, and the oldest makes room for the newest.
pub const UNGREETED_MAX: usize = 128;
/// Connections accepted per poll of a listener, so that a flood does not starve the others.
pub const ACCEPTS_PER_POLL: usize = 16;
/// Closed connections that are kept until the peer has read why (see `linger`).
pub const LINGERING_MAX: usize = 64;
/// How long such a connection is kept.
pub const LINGER_FOR: Duration = Duration::from_secs(1);
/// Bytes thrown away per look at such a connection; a flooder waits for the time to run out.
pub const LINGER_BYTES_PER_TICK: usize = 256 << 10;

/// Bytes of the read buffer that all connections of a transport share. Large enough that a batch
/// of 4 KiB requests needs one system call, small enough to stay in the L2 cache and that little
/// of a large payload passes through it (and so is copied).
pub const SCRATCH_BYTES: usize = 32 << 10;
/// Bytes read from one connection per poll; then the others have their turn.
pub const READ_BYTES_PER_POLL: usize = 512 << 10;
/// Ready connections looked at per poll; the kernel hands out the rest next time, in turn.
pub const READY_PER_POLL: usize = 64;
/// Slices given to the kernel in one write: header, body and payload of about 20 requests. A
/// quarter of the kernel's IOV_MAX, above which nothing is gained.
pub const SLICES_PER_WRITE: usize = 64;

/// Bytes queued on a connection at which `send` starts writing without waiting for `flush`: the
/// network works while the owner prepares more.
pub const SEND_EAGER_BYTES: usize = 256 << 10;
/// Bytes that may wait for a peer for long: what the credits of a shard allow in flight.
pub const SEND_QUEUE_BYTES_SOFT: usize = 64 << 20;
/// Bytes that may wait for a peer at all. Reached only when credits are not kept.
pub const SEND_QUEUE_BYTES_MAX: usize = 256 << 20;

/// How long to go on over `SEND_QUEUE_BYTES_SOFT`: a reader that is busy for a moment recovers.
pub const STALLED_AFTER: Duration = Duration::from_secs(2);
/// A connection is made, or fails, within this.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// HELLO arrives within this. A slow loris is gone by then.
pub const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// A frame whose first byte arrived is complete within this (not counting time in which we did not
/// read): 1 MiB in 10 s is slower than any network that this is for.
pub const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// PING is sent when nothing was sent for this long.
pub const PING_AFTER: Duration = Duration::from_secs(1);
/// PINGs that are due within this part of `PING_AFTER` are sent together: four wake-ups a second at
/// most, whatever the number of connections, for a third more PINGs at worst.
pub const PING_EARLY_PART: u32 = 4;
/// The peer is taken for dead when nothing was heard for this long: four PINGs are missing.
pub const SILENT_AFTER: Duration = Duration::from_secs(4);
/// The kernel's probes on a TCP connection whose frames take another path: often enough that no
/// firewall forgets it (five minutes is the shortest that is common).
pub const REST_PROBE_AFTER: Duration = Duration::from_secs(60);
/// Time-outs are looked for no more often than this; a pass costs some nanoseconds a connection.
pub const TICK: Duration = Duration::from_millis(10);
/// A connection that waits for a buffer is tried again within this even if nothing else happens:
/// a buffer that is given back wakes nobody.
pub const BUFFER_RETRY: Duration = Duration::from_millis(1);
/// A listener rests this long when the process is out of descriptors.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Header of an active message: UCX takes some 8 KiB; half of it holds nearly every body, and what
/// does not fit is sent in parts.
pub const AM_HEADER_BYTES_MAX: usize = 4 << 10;
/// Data up to this are sent eagerly, with a copy on both sides; longer ones by rendezvous, without
/// (figures: `rpc/design/0004-lanes.md`).
pub const EAGER_BYTES_MAX: usize = 8 << 10;
/// Frames of one connection behind one whose payload is under way: twice what credits allow.
pub const LANE_FRAMES_MAX: usize = 2 * REQUESTS_PER_CONN_MAX as usize;
/// Messages of all connections of a lane whose data wait for a buffer. Eager ones hold up to
/// `EAGER_BYTES_MAX` each, so this bounds them to 64 MiB.
pub const LANE_WAITING_MAX: usize = 8192;
/// Header buffers kept for reuse: as many as a burst sends before the first is free again.
pub const SPARE_HEADERS_MAX: usize = 64;
/// While UCX has operations under way it is looked at again after this even if nothing wakes us: a
/// sender whose peer's queue was full is not told when it no longer is.
pub const LANE_NAP: Duration = Duration::from_millis(1);
/// After a longer wait it is looked at again when so much of the wait has passed once more: a
/// message that has waited comes an eighth later at worst...
pub const LANE_NAP_PART: u32 = 8;
/// ...and operations that never end, with a peer that does not answer, cost four wake-ups a second.
pub const LANE_NAP_MAX: Duration = Duration::from_millis(250);
/// Attempts to connect over RDMA that we gave up and UCX has not, beyond which no more are begun:
/// each keeps a queue pair for as long as its peer does not answer. A peer is tried again after 30
/// s at the earliest, and later and later, so that this many peers are out of reach.
pub const LEAVING_MAX: usize = 64;
/// Memory that must be lockable for RDMA: the pool's first arenas, and UCX's own buffers.
pub const RDMA_MEMLOCK_MIN: u64 = 64 << 20;

/// Lines logged per second about connections that misbehave; the rest is counted.
pub const LOG_LINES_PER_SECOND: u32 = 20;

const _: () =
    assert!(HELLO_BODY_BYTES_MAX > TOKEN_BYTES_MAX + 72 + OFFERS_MAX * (OFFER_BYTES_MAX + 3));
const _: () = assert!(PATH_BODY_BYTES_MAX > LANE_ADDRESS_BYTES_MAX + 64);
const _: () = assert!(PATH_BODY_BYTES_MAX > PATH_WHY_BYTES_MAX + 64);
const _: () = assert!(PATH_PATIENCE.as_millis() < SHM_WITHIN.as_millis());
const _: () = assert!(CHOICE_WITHIN.as_secs() > RDMA_WITHIN.as_secs() + SHM_WITHIN.as_secs());
const _: () = assert!(SEND_QUEUE_BYTES_SOFT < SEND_QUEUE_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX <= ogive_buf::MAX_BUF_BYTES);
