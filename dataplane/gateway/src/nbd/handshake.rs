//! The handshake: options until one of them enters transmission.
//!
//! ```text
//!            client flags             EXPORT_NAME, GO
//!   Flags ─────────────────> Options ─────────────────> transmission
//!                             │    ^ ABORT: closed
//!            too long an option    │ skipped
//!                             └─> Skip
//! ```
//!
//! | option | answer |
//! |---|---|
//! | `EXPORT_NAME` | size and flags, then transmission; closed when there is no such export |
//! | `GO`, `INFO` | facts, `ACK` (`GO`: then transmission), or `ERR_UNKNOWN` |
//! | `LIST` | every export, `ACK` |
//! | `STRUCTURED_REPLY` | `ACK` |
//! | `LIST_META_CONTEXT`, `SET_META_CONTEXT` | `base:allocation` where it matches, `ACK` |
//! | `ABORT` | `ACK`, closed |
//! | `STARTTLS` | `ERR_UNSUP`: here TLS will take over the stream and start the handshake anew |
//! | unknown | `ERR_UNSUP` |
//! | malformed / longer than the limit | `ERR_INVALID` / `ERR_TOO_BIG` |

use super::export::{ExportId, Exports};
use super::out::OutQueue;
use super::protocol::{self as p, Cursor};
use super::session::CloseReason;
use crate::limits::{NAME_BYTES_MAX, OPTION_BYTES_MAX, OPTIONS_MAX, REQUEST_BYTES_MAX};

const OPTION_HEADER_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flags,
    Options,
    /// This many bytes of data of an option that is too long are still to come.
    Skip(u32, u32),
}

/// The handshake's state.
pub(crate) struct Handshake {
    state: State,
    no_zeroes: bool,
    fixed: bool,
    structured: bool,
    /// The export whose `base:allocation` is selected.
    context_of: Option<ExportId>,
    options: u32,
}

/// What the client chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) export: ExportId,
    pub(crate) structured: bool,
    pub(crate) allocation: bool,
}

/// What became of some input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More is needed.
    Need,
    /// So many bytes were understood.
    Took(usize),
    /// So many bytes were understood, and transmission begins.
    Enter(usize, Chosen),
    /// It is over.
    Close(CloseReason),
}

impl Handshake {
    /// Greets the client.
    pub(crate) fn new(out: &mut OutQueue) -> Handshake {
        out.greeting();
        Handshake {
            state: State::Flags,
            no_zeroes: false,
            fixed: false,
            structured: false,
            context_of: None,
            options: 0,
        }
    }

    pub(crate) fn step(&mut self, bytes: &[u8], exports: &Exports, out: &mut OutQueue) -> Step {
        match self.state {
            State::Flags => self.client_flags(bytes),
            State::Options => self.option(bytes, exports, out),
            State::Skip(_, _) if bytes.is_empty() => Step::Need,
            State::Skip(option, left) => {
                let take = bytes.len().min(left as usize);
                let left = left - take as u32;
                self.state = State::Skip(option, left);
                if left == 0 {
                    self.state = State::Options;
                    out.option_reply(option, p::REP_ERR_TOO_BIG, b"option data too long");
                }
                Step::Took(take)
            }
        }
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Step {
        let Some(flags) = Cursor(bytes).u32() else { return Step::Need };
        let known = (p::HANDSHAKE_FIXED_NEWSTYLE | p::HANDSHAKE_NO_ZEROES) as u32;
        if flags & !known != 0 {
            return Step::Close(CloseReason::Protocol("unknown handshake flags"));
        }
        self.fixed = flags & p::HANDSHAKE_FIXED_NEWSTYLE as u32 != 0;
        self.no_zeroes = flags & p::HANDSHAKE_NO_ZEROES as u32 != 0;
        self.state = State::Options;
        Step::Took(4)
    }

    fn option(&mut self, bytes: &[u8], exports: &Exports, out: &mut OutQueue) -> Step {
        let mut at = Cursor(bytes);
        let (Some(magic), Some(option), Some(len)) = (at.u64(), at.u32(), at.u32()) else {
            return Step::Need;
        };
        if magic != p::OPTION_MAGIC {
            return Step::Close(CloseReason::Protocol("bad option magic"));
        }
        if len as usize > OPTION_BYTES_MAX {
            if option == p::OPT_EXPORT_NAME {
                return Step::Close(CloseReason::Protocol("export name too long"));
            }
            self.state = State::Skip(option, len);
            return self.counted(Step::Took(OPTION_HEADER_BYTES));
        }
        let Some(data) = at.take(len as usize) else { return Step::Need };
        let took = OPTION_HEADER_BYTES + len as usize;
        let step = self.complete_option(option, data, took, exports, out);
        self.counted(step)
    }

    fn counted(&mut self, step: Step) -> Step {
        self.options += 1;
        match step {
            Step::Took(_) if self.options > OPTIONS_MAX => {
                Step::Close(CloseReason::Protocol("too many options"))
            }
            step => step,
        }
    }

    fn complete_option(
        &mut self,
        option: u32,
        data: &[u8],
        took: usize,
        exports: &Exports,
        out: &mut OutQueue,
    ) -> Step {
        if option == p::OPT_EXPORT_NAME {
            return self.export_name(data, took, exports, out);
        }
        if !self.fixed {
            return Step::Close(CloseReason::Protocol("options without fixed newstyle"));
        }
        let answer = match option {
            p::OPT_ABORT => {
                out.option_reply(option, p::REP_ACK, &[]);
                return Step::Close(CloseReason::Client);
            }
            p::OPT_LIST => list(data, exports, out),
            p::OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                Ok(())
            }
            p::OPT_STRUCTURED_REPLY => Err((p::REP_ERR_INVALID, "this option has no data")),
            p::OPT_INFO | p::OPT_GO => match self.info(option, data, exports, out) {
                Ok(export) if option == p::OPT_GO => {
                    out.option_reply(option, p::REP_ACK, &[]);
                    return Step::Enter(took, self.chosen(export));
                }
                answer => answer.map(|_| ()),
            },
            p::OPT_LIST_META_CONTEXT | p::OPT_SET_META_CONTEXT => {
                self.meta_context(option, data, exports, out)
            }
            p::OPT_STARTTLS => Err((p::REP_ERR_UNSUP, "this server has no TLS")),
            _ => Err((p::REP_ERR_UNSUP, "option not supported")),
        };
        match answer {
            Ok(()) => out.option_reply(option, p::REP_ACK, &[]),
            Err((kind, text)) => out.option_reply(option, kind, text.as_bytes()),
        }
        Step::Took(took)
    }

    fn chosen(&self, export: ExportId) -> Chosen {
        let allocation = self.structured && self.context_of == Some(export);
        Chosen { export, structured: self.structured, allocation }
    }

    fn export_name(
        &mut self,
        data: &[u8],
        took: usize,
        exports: &Exports,
        out: &mut OutQueue,
    ) -> Step {
        let Some(export) = exports.find(data) else {
            return Step::Close(CloseReason::Protocol("no such export"));
        };
        let described = exports.get(export);
        let mut head = described.size_bytes.to_be_bytes().to_vec();
        head.extend(described.flags(self.structured).to_be_bytes());
        if !self.no_zeroes {
            head.extend([0; 124]);
        }
        out.push(head, Vec::new());
        Step::Enter(took, self.chosen(export))
    }

    fn info(
        &self,
        option: u32,
        data: &[u8],
        exports: &Exports,
        out: &mut OutQueue,
    ) -> Result<ExportId, (u32, &'static str)> {
        let (name, wanted) = parse_info(data).ok_or((p::REP_ERR_INVALID, "malformed request"))?;
        let id = exports.find(name).ok_or((p::REP_ERR_UNKNOWN, "no such export"))?;
        let export = exports.get(id);
        let mut fact = |kind: u16, rest: &[&[u8]]| {
            let mut data = kind.to_be_bytes().to_vec();
            rest.iter().for_each(|part| data.extend(*part));
            out.option_reply(option, p::REP_INFO, &data);
        };
        let flags = export.flags(self.structured);
        fact(p::INFO_EXPORT, &[&export.size_bytes.to_be_bytes(), &flags.to_be_bytes()]);
        for kind in wanted {
            match kind {
                p::INFO_NAME => fact(kind, &[export.name.as_bytes()]),
                p::INFO_DESCRIPTION if !export.description.is_empty() => {
                    fact(kind, &[export.description.as_bytes()]);
                }
                p::INFO_BLOCK_SIZE => {
                    let sizes = [1, ogive_types::BLOCK_BYTES as u32, REQUEST_BYTES_MAX];
                    fact(kind, &[&sizes.map(u32::to_be_bytes).concat()]);
                }
                _ => {}
            }
        }
        Ok(id)
    }

    fn meta_context(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &Exports,
        out: &mut OutQueue,
    ) -> Result<(), (u32, &'static str)> {
        let set = option == p::OPT_SET_META_CONTEXT;
        if set {
            self.context_of = None; // whatever happens, an earlier choice is void
        }
        if !self.structured {
            return Err((p::REP_ERR_INVALID, "structured replies come first"));
        }
        let (name, queries) =
            parse_queries(data).ok_or((p::REP_ERR_INVALID, "malformed request"))?;
        let export = exports.find(name).ok_or((p::REP_ERR_UNKNOWN, "no such export"))?;
        let listed = |query: &&[u8]| *query == p::BASE_ALLOCATION || !set && *query == b"base:";
        if queries.iter().any(listed) || !set && queries.is_empty() {
            let id = if set { p::BASE_ALLOCATION_ID } else { 0 };
            let mut data = id.to_be_bytes().to_vec();
            data.extend(p::BASE_ALLOCATION);
            out.option_reply(option, p::REP_META_CONTEXT, &data);
            if set {
                self.context_of = Some(export);
            }
        }
        Ok(())
    }
}

fn list(data: &[u8], exports: &Exports, out: &mut OutQueue) -> Result<(), (u32, &'static str)> {
    if !data.is_empty() {
        return Err((p::REP_ERR_INVALID, "this option has no data"));
    }
    for export in exports.iter() {
        let mut data = (export.name.len() as u32).to_be_bytes().to_vec();
        data.extend(export.name.as_bytes());
        data.extend(export.description.as_bytes());
        out.option_reply(p::OPT_LIST, p::REP_SERVER, &data);
    }
    Ok(())
}

/// The name and the facts wanted of `INFO` or `GO`.
fn parse_info(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let mut at = Cursor(data);
    let name = at.string().filter(|n| n.len() <= NAME_BYTES_MAX)?;
    let count = at.u16()?;
    let wanted = (0..count).map(|_| at.u16()).collect::<Option<Vec<u16>>>()?;
    at.0.is_empty().then_some((name, wanted))
}

/// The name and the queries of a metadata context option.
fn parse_queries(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut at = Cursor(data);
    let name = at.string().filter(|n| n.len() <= NAME_BYTES_MAX)?;
    let count = at.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(at.string()?);
    }
    at.0.is_empty().then_some((name, queries))
}
