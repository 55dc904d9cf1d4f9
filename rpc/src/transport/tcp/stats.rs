//! Counters of a transport.

/// What a transport did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpStats {
    /// Frames handed to the kernel.
    pub frames_sent: u64,
    /// Frames received whole.
    pub frames_received: u64,
    /// PINGs among those.
    pub pings_received: u64,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Payload bytes copied here: those that came together with their head, into their buffer; and
    /// those of short frames, to be sent in one piece.
    pub copied_bytes: u64,
    /// System calls that wrote.
    pub writes: u64,
    /// System calls that read something.
    pub reads: u64,
    /// Times that a connection waited because the pool had no buffer.
    pub pauses: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that reached the end of HELLO, in both directions.
    pub established: u64,
    /// Connections closed for a protocol violation or refused, in both directions.
    pub refused: u64,
}
