//! How the two ends of one connection agree on its path, as plain state: no I/O, no clock.
//!
//! The connector tries the paths that both ends share, best first; the acceptor answers. Nothing is
//! used before a probe has travelled each way over it.
//!
//! ```text
//! connector                          acceptor
//!     | -- Propose(path) ---------------> |   TCP      (Idle)
//!     | <--------------- Accept(path) --- |   TCP      (Accepted)
//!     | ~~ probe ~~~~~~~~~~~~~~~~~~~~~~~> |   lane
//!     | <~~~~~~~~~~~~~~~~~~~~~~ probe ~~~ |   lane     (Proved)
//!     | -- Use(path) -------------------> |   TCP      (Up)
//!     | ~~ frames ~~~~~~~~~~~~~~~~~~~~~~> |   lane; may come before Use, and then count as Use
//! ```
//! Either end gives a path up with Decline, at any time; after Use that ends the connection. When
//! no path is left, the connector says Use(tcp).
//!
//! | end | state | input | effects | next |
//! |---|---|---|---|---|
//! | both | start | skipped paths | Decline each | C: *next path*; A: Idle |
//! | C | *next path* | one is left | Propose | Proposed |
//! | C | *next path* | none, TCP allowed | Use(tcp), Connected | Up(tcp) |
//! | C | *next path* | none, TCP excluded | Close(refused) | Over |
//! | C | Proposed | Accept | Attach | Attaching |
//! | C | Attaching | attached | Probe | Probing |
//! | C | Probing | probed | Use, Connected | Up |
//! | C | Proposed, Attaching, Probing | lane failed, time-out | Drop, Decline, Failed | *next path* |
//! | C | Proposed, Attaching, Probing | Decline | Drop, Failed | *next path* |
//! | C | any | late Accept of a path given up | | same |
//! | both | any | first Decline of a path that is not under way: it is not tried | | same |
//! | A | Idle | Propose | Attach, or Decline when it is not shared | Attaching, Idle |
//! | A | Attaching | attached | Accept | Accepted |
//! | A | Accepted | probed | Probe | Proved |
//! | A | Proved | Use of this path | Connected | Up |
//! | A | Proved | frame over the lane | Connected | Up, Use to come |
//! | A | Attaching, Accepted, Proved | lane failed | Drop, Decline | Idle |
//! | A | Accepted, Proved | Decline | Drop | Idle |
//! | A | Idle | Use(tcp) | Connected, or Close(refused) when TCP is excluded | Up(tcp), Over |
//! | A | Idle | Use of a path that it declined | Close | Over |
//! | A | Idle, Accepted, Proved | time-out | Drop, Close(protocol) | Over |
//! | both | Up(lane) | lane failed | Decline, Drop, Failed (C), Close | Over |
//! | both | Up(lane) | Decline of this path | Drop, Failed (C), Close | Over |
//! | both | any but Over | anything else | Drop, Close(protocol) | Over |

use std::time::Duration;

use ogive_types::Time;

use super::assess::{LANE_PATHS, demanded};
use crate::limits::{CHOICE_WITHIN, PATH_WHY_BYTES_MAX, RDMA_WITHIN, SHM_WITHIN};
use crate::path_frame::PathFrame;
use crate::text;
use crate::transport::{CloseReason, Path, PathChoice};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Connector,
    Acceptor,
}

/// What is to become of a path, judged before the first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Both ends share it.
    Try,
    /// Both ends share it, but this one does not want it now; the peer is told.
    Skip(String),
    /// It is not shared, as both ends know.
    Cannot(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A PATH frame came.
    Frame(PathFrame),
    /// [`Effect::Attach`] went well; otherwise `Failed` follows it.
    Attached,
    /// The lane cannot attach to the peer, or lost it.
    Failed { path: Path, reason: CloseReason },
    /// The peer's probe came over a lane.
    Probed { path: Path },
    /// A frame of an upper layer came.
    Traffic { path: Path },
    /// The deadline has passed.
    Timeout,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Open the lane, and send Propose with its address and key.
    Propose(Path),
    /// Attach the lane to the peer, on the acceptor after opening it; then give back how it went.
    Attach { path: Path, address: Vec<u8>, key: u64 },
    /// Send Accept with the lane's address and key.
    Accept(Path),
    /// Send a probe over the lane.
    Probe(Path),
    /// Send Decline.
    Decline { path: Path, why: String },
    /// Send Use.
    Use(Path),
    /// Close the lane.
    Drop(Path),
    /// Remember that the path failed to this peer.
    Failed { path: Path, why: String },
    /// Report that the connection is up.
    Connected(Path),
    /// End the connection; nothing follows.
    Close(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Idle,
    Proposed(Path),
    Attaching(Path),
    Probing(Path),
    Accepted(Path),
    Proved(Path),
    Up { path: Path, use_to_come: bool },
    Over,
}

/// What was said about one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Marks {
    to_try: bool,
    proposed: bool,
    accepted: bool,
    declined_by_us: bool,
    declined_by_peer: bool,
    /// Why it is not taken.
    why: Option<String>,
}

/// One end's view of the agreement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Negotiation {
    role: Role,
    choice: PathChoice,
    state: State,
    deadline: Time,
    /// When the path was proposed that is under way.
    tried_since: Time,
    marks: [Marks; LANE_PATHS.len()],
}

impl Negotiation {
    /// Begins, when both HELLOs are done and both offer a path. `plans` are those of
    /// [`LANE_PATHS`].
    pub(super) fn new(
        role: Role,
        choice: PathChoice,
        plans: [Plan; LANE_PATHS.len()],
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Negotiation {
        let mut this = Negotiation {
            role,
            choice,
            state: State::Idle,
            deadline: now + CHOICE_WITHIN,
            tried_since: now,
            marks: Default::default(),
        };
        for (path, plan) in LANE_PATHS.into_iter().zip(plans) {
            match plan {
                Plan::Try => this.marks(path).to_try = true,
                Plan::Skip(why) => this.decline(path, &why, out),
                Plan::Cannot(why) => this.note(path, &why),
            }
        }
        if role == Role::Connector {
            this.next_path(now, out);
        }
        this
    }

    /// The path that is in use.
    pub(super) fn path(&self) -> Option<Path> {
        match self.state {
            State::Up { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The path that this end is trying, as the connector, and since when.
    pub(super) fn trying(&self) -> Option<(Path, Time)> {
        let path = self.lane().filter(|_| self.role == Role::Connector && self.path().is_none())?;
        Some((path, self.tried_since))
    }

    /// When [`Input::Timeout`] is due.
    pub(super) fn deadline(&self) -> Time {
        match self.state {
            State::Up { .. } | State::Over => Time::NEVER,
            _ => self.deadline,
        }
    }

    /// Why a path is not taken, as far as something was said about it.
    pub(super) fn why_not(&self, path: Path) -> Option<&str> {
        self.marks.get(path as usize)?.why.as_deref()
    }

    /// Takes what happened, and appends what is to be done.
    pub(super) fn on(&mut self, input: Input, now: Time, out: &mut Vec<Effect>) {
        if self.state == State::Over {
            return;
        }
        match input {
            Input::Frame(frame) => self.frame(frame, now, out),
            Input::Attached => self.attached(out),
            Input::Failed { path, reason } => self.failed(path, reason, now, out),
            Input::Probed { path } => self.probed(path, out),
            Input::Traffic { path } => self.traffic(path, out),
            Input::Timeout => self.timeout(now, out),
        }
    }

    fn frame(&mut self, frame: PathFrame, now: Time, out: &mut Vec<Effect>) {
        match (self.role, frame) {
            (Role::Acceptor, PathFrame::Propose { path, address, key }) => {
                self.proposed(path, address, key, out);
            }
            (Role::Connector, PathFrame::Accept { path, address, key }) => {
                self.accepted(path, address, key, out);
            }
            (Role::Acceptor, PathFrame::Use { path }) => self.told_to_use(path, out),
            (_, PathFrame::Decline { path, why }) => self.declined(path, &why, now, out),
            (_, frame) => self.violation(name(&frame), out),
        }
    }

    fn proposed(&mut self, path: Path, address: Vec<u8>, key: u64, out: &mut Vec<Effect>) {
        let idle = self.state == State::Idle;
        let marks = self.marks(path);
        if !idle || marks.proposed || marks.declined_by_peer {
            return self.violation("Propose", out);
        }
        marks.proposed = true;
        if marks.to_try {
            self.state = State::Attaching(path);
            out.push(Effect::Attach { path, address, key });
        } else if !marks.declined_by_us {
            let why = marks.why.clone().unwrap_or_default();
            self.decline(path, &why, out);
        }
    }

    fn accepted(&mut self, path: Path, address: Vec<u8>, key: u64, out: &mut Vec<Effect>) {
        let current = self.state == State::Proposed(path);
        let marks = self.marks(path);
        if !marks.proposed || marks.accepted || marks.declined_by_peer {
            return self.violation("Accept", out);
        }
        marks.accepted = true;
        if current {
            self.state = State::Attaching(path);
            out.push(Effect::Attach { path, address, key });
        }
    }

    fn told_to_use(&mut self, path: Path, out: &mut Vec<Effect>) {
        let marks = self.marks.get(path as usize);
        let withdrawn = marks.is_some_and(|marks| marks.proposed && marks.declined_by_us);
        match self.state {
            State::Idle if path == Path::Tcp => match self.choice {
                PathChoice::Only(only) if only != Path::Tcp => self.refuse(only, out),
                _ => self.up(path, out),
            },
            State::Proved(current) if current == path => self.up(path, out),
            State::Up { path: current, use_to_come: true } if current == path => {
                self.state = State::Up { path, use_to_come: false };
            }
            State::Idle if withdrawn => {
                let why = self.why_not(path).unwrap_or_default();
                let text = format!("path {path} broke before it was used: {why}");
                self.close(CloseReason::System(text), out);
            }
            _ => self.violation("Use", out),
        }
    }

    fn declined(&mut self, path: Path, why: &str, now: Time, out: &mut Vec<Effect>) {
        if self.marks(path).declined_by_peer {
            return self.violation("Decline", out);
        }
        self.marks(path).declined_by_peer = true;
        self.marks(path).to_try = false;
        if self.lane() != Some(path) {
            return self.note(path, &format!("peer: {why}"));
        }
        if self.path().is_some() {
            let text = format!("path {path} broke at the peer: {why}");
            self.remember(path, &text, out);
            return self.close(CloseReason::System(text), out);
        }
        out.push(Effect::Drop(path));
        self.give_up(path, &format!("peer: {why}"), now, out);
    }

    fn attached(&mut self, out: &mut Vec<Effect>) {
        let State::Attaching(path) = self.state else {
            unreachable!("only Attach is answered with it")
        };
        match self.role {
            Role::Connector => {
                self.state = State::Probing(path);
                out.push(Effect::Probe(path));
            }
            Role::Acceptor => {
                self.state = State::Accepted(path);
                out.push(Effect::Accept(path));
            }
        }
    }

    fn failed(&mut self, path: Path, reason: CloseReason, now: Time, out: &mut Vec<Effect>) {
        if self.lane() != Some(path) {
            return;
        }
        let why = short(&reason);
        self.decline(path, &why, out);
        if self.path().is_some() {
            self.remember(path, &format!("broke in use: {why}"), out);
            return self.close(reason, out);
        }
        out.push(Effect::Drop(path));
        self.give_up(path, &why, now, out);
    }

    fn probed(&mut self, path: Path, out: &mut Vec<Effect>) {
        match self.state {
            State::Probing(current) if current == path => {
                out.push(Effect::Use(path));
                self.up(path, out);
            }
            State::Accepted(current) if current == path => {
                self.state = State::Proved(path);
                out.push(Effect::Probe(path));
            }
            // Once more, or too early: it proves nothing.
            _ => {}
        }
    }

    fn traffic(&mut self, path: Path, out: &mut Vec<Effect>) {
        match self.state {
            State::Up { path: current, .. } if current == path => {}
            State::Proved(current) if current == path => {
                self.up(path, out);
                self.state = State::Up { path, use_to_come: true };
            }
            _ => self.violation("a frame before its path was chosen, or beside it,", out),
        }
    }

    fn timeout(&mut self, now: Time, out: &mut Vec<Effect>) {
        match (self.role, self.lane()) {
            _ if self.path().is_some() => {}
            (Role::Connector, Some(path)) => {
                let what = match self.state {
                    State::Probing(_) => "probe",
                    _ => "proposal",
                };
                let why = format!("{what} not answered within {} ms", within(path).as_millis());
                self.decline(path, &why, out);
                out.push(Effect::Drop(path));
                self.give_up(path, &why, now, out);
            }
            _ => {
                let ms = CHOICE_WITHIN.as_millis();
                self.close(CloseReason::Protocol(format!("no path chosen within {ms} ms")), out);
            }
        }
    }

    /// The attempt is over, and its lane closed.
    fn give_up(&mut self, path: Path, why: &str, now: Time, out: &mut Vec<Effect>) {
        self.note(path, why);
        self.marks(path).to_try = false;
        self.remember(path, why, out);
        self.state = State::Idle;
        if self.role == Role::Connector {
            self.next_path(now, out);
        }
    }

    fn next_path(&mut self, now: Time, out: &mut Vec<Effect>) {
        let next = LANE_PATHS.into_iter().find(|&path| self.marks(path).to_try);
        if let Some(path) = next {
            let marks = self.marks(path);
            (marks.to_try, marks.proposed) = (false, true);
            (self.tried_since, self.deadline) = (now, now + within(path));
            self.state = State::Proposed(path);
            return out.push(Effect::Propose(path));
        }
        match self.choice {
            PathChoice::Only(only) if only != Path::Tcp => self.refuse(only, out),
            _ => {
                out.push(Effect::Use(Path::Tcp));
                self.up(Path::Tcp, out);
            }
        }
    }

    fn up(&mut self, path: Path, out: &mut Vec<Effect>) {
        assert!(self.choice.allows(path), "{path} is excluded");
        self.state = State::Up { path, use_to_come: false };
        out.push(Effect::Connected(path));
    }

    fn refuse(&mut self, only: Path, out: &mut Vec<Effect>) {
        let why = self.why_not(only).unwrap_or("peer did not propose it");
        self.close(CloseReason::Refused(demanded(only, why)), out);
    }

    fn violation(&mut self, what: &str, out: &mut Vec<Effect>) {
        self.close(CloseReason::Protocol(format!("PATH: {what} out of turn")), out);
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<Effect>) {
        out.extend(self.lane().map(Effect::Drop));
        out.push(Effect::Close(reason));
        self.state = State::Over;
    }

    /// Tells the peer that a path is not used, once.
    fn decline(&mut self, path: Path, why: &str, out: &mut Vec<Effect>) {
        self.note(path, why);
        let marks = self.marks(path);
        if !std::mem::replace(&mut marks.declined_by_us, true) {
            out.push(Effect::Decline { path, why: why.into() });
        }
    }

    /// The connector chooses what is tried, so only it learns from failures.
    fn remember(&self, path: Path, why: &str, out: &mut Vec<Effect>) {
        if self.role == Role::Connector {
            out.push(Effect::Failed { path, why: text::cut(why, PATH_WHY_BYTES_MAX).into() });
        }
    }

    /// The first reason is the one to show.
    fn note(&mut self, path: Path, why: &str) {
        let why = text::cut(why, PATH_WHY_BYTES_MAX);
        self.marks(path).why.get_or_insert_with(|| why.into());
    }

    fn marks(&mut self, path: Path) -> &mut Marks {
        &mut self.marks[path as usize]
    }

    /// The path whose lane is open.
    fn lane(&self) -> Option<Path> {
        match self.state {
            State::Idle | State::Over | State::Up { path: Path::Tcp, .. } => None,
            State::Proposed(path)
            | State::Attaching(path)
            | State::Probing(path)
            | State::Accepted(path)
            | State::Proved(path)
            | State::Up { path, .. } => Some(path),
        }
    }
}

/// How long an attempt may take.
fn within(path: Path) -> Duration {
    match path {
        Path::Rdma => RDMA_WITHIN,
        Path::Shm => SHM_WITHIN,
        Path::Tcp => unreachable!("TCP is not tried"),
    }
}

/// A reason as it stands behind the name of a path.
fn short(reason: &CloseReason) -> String {
    match reason {
        CloseReason::System(text) | CloseReason::Connect(text) | CloseReason::Protocol(text) => {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn name(frame: &PathFrame) -> &'static str {
    match frame {
        PathFrame::Propose { .. } => "Propose",
        PathFrame::Accept { .. } => "Accept",
        PathFrame::Decline { .. } => "Decline",
        PathFrame::Use { .. } => "Use",
    }
}

const _: () = assert!(LANE_PATHS[0] as usize == 0 && LANE_PATHS[1] as usize == 1);

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
