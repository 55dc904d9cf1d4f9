//! NBD sessions byte by byte: every option, every command, and hostile input.

// A failing step panics, which is what a test is to do.
#![allow(clippy::unwrap_used)]

mod support;

use ogive_buf::Pool;
use ogive_client::VolumeError;
use ogive_gateway::nbd::protocol::{self as p, RequestHeader};
use ogive_gateway::nbd::{CloseReason, Session, Want};
use ogive_gateway::{Export, ExportRequest, Exports};
use proptest::prelude::*;
use support::RamVolume;

const SIZE: usize = 8 << 20;

struct Client {
    session: Session,
    exports: Exports,
    volume: RamVolume,
    wanted: Vec<ExportRequest>,
    /// Fails all operations of the volume, when set.
    failure: Option<VolumeError>,
    unread: Vec<u8>,
    /// Completes operations in their order, instead of the reverse.
    in_order: bool,
}

impl Client {
    fn new() -> Client {
        let pool = Pool::new(64 << 20);
        let export = |name: &str, read_only| Export {
            name: name.into(),
            description: "a test".into(),
            size_bytes: SIZE as u64,
            read_only,
        };
        Client {
            session: Session::new(pool.clone()),
            exports: Exports::new(vec![export("disk", false), export("frozen", true)]),
            volume: RamVolume::new(SIZE, pool),
            wanted: Vec::new(),
            failure: None,
            unread: Vec::new(),
            in_order: false,
        }
    }

    /// A client past greeting and flags.
    fn greeted() -> Client {
        let mut client = Client::new();
        client.send(&3u32.to_be_bytes());
        let greeting = client.receive();
        assert_eq!(greeting, [b"NBDMAGICIHAVEOPT".as_slice(), &[0, 3]].concat());
        client
    }

    /// A client in transmission.
    fn transmitting(export: &str, structured: bool) -> Client {
        let mut client = Client::greeted();
        if structured {
            client.option(p::OPT_STRUCTURED_REPLY, &[]);
            client.option(p::OPT_SET_META_CONTEXT, &queries(export, &["base:allocation"]));
        }
        let replies = client.option(p::OPT_GO, &info(export, &[]));
        assert_eq!(replies.last().unwrap().0, p::REP_ACK);
        assert!(client.session.is_established());
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            let took = self.session.input(&self.unread, &self.exports, &mut self.wanted);
            self.unread.drain(..took);
            let mut wanted = std::mem::take(&mut self.wanted);
            if wanted.is_empty() {
                return;
            }
            if !self.in_order {
                wanted.reverse();
            }
            for request in wanted {
                let result = match &self.failure {
                    Some(error) => Err(error.clone()),
                    None => self.volume.run(&request.op),
                };
                self.session.completed(request.token, result, &mut self.wanted);
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let bytes = self.session.out().bytes();
        let got: Vec<u8> =
            self.session.out().slices(usize::MAX >> 8).iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(got.len(), bytes);
        self.session.out().advance(bytes);
        got
    }

    /// Sends an option; its replies as (kind, data).
    fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.receive();
        let mut bytes = p::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
        let got = self.receive();
        let (mut replies, mut at) = (Vec::new(), &got[..]);
        while !at.is_empty() {
            assert_eq!(at[..8], p::OPTION_REPLY_MAGIC.to_be_bytes());
            assert_eq!(at[8..12], option.to_be_bytes());
            let len = u32::from_be_bytes(at[16..20].try_into().unwrap()) as usize;
            replies.push((
                u32::from_be_bytes(at[12..16].try_into().unwrap()),
                at[20..20 + len].to_vec(),
            ));
            at = &at[20 + len..];
        }
        replies
    }

    /// Sends a request; the raw reply.
    fn request(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let header = RequestHeader { flags, command, cookie: 0xfeed, offset, len };
        self.send(&[header.encode(), payload.to_vec()].concat());
        self.receive()
    }

    /// Sends a request; the error of its simple or structured reply.
    fn error(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> u32 {
        let reply = self.request(command, flags, offset, len, payload);
        if reply[..4] == p::SIMPLE_REPLY_MAGIC.to_be_bytes() {
            return u32::from_be_bytes(reply[4..8].try_into().unwrap());
        }
        let chunk = chunks(&reply).pop().unwrap();
        assert_eq!(chunk.0, p::CHUNK_DONE, "the last chunk says so");
        if chunk.1 == p::CHUNK_ERROR {
            u32::from_be_bytes(chunk.2[..4].try_into().unwrap())
        } else {
            0
        }
    }
}

/// The chunks of a structured reply: flags, type, content.
fn chunks(mut reply: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
    let mut chunks = Vec::new();
    while !reply.is_empty() {
        assert_eq!(reply[..4], p::CHUNK_MAGIC.to_be_bytes());
        let word = |at: usize| u16::from_be_bytes(reply[at..at + 2].try_into().unwrap());
        let len = u32::from_be_bytes(reply[16..20].try_into().unwrap()) as usize;
        chunks.push((word(4), word(6), reply[20..20 + len].to_vec()));
        reply = &reply[20 + len..];
    }
    chunks
}

/// Simple replies and chunks, sorted: replies come in any order.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let simple = bytes[..4] == p::SIMPLE_REPLY_MAGIC.to_be_bytes();
        let len = if simple {
            16
        } else {
            20 + u32::from_be_bytes(bytes[16..20].try_into().unwrap()) as usize
        };
        let (message, rest) = bytes.split_at(len);
        messages.push(message);
        bytes = rest;
    }
    messages.sort();
    messages
}

fn info(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((wanted.len() as u16).to_be_bytes());
    wanted.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
    data
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}

fn kinds(replies: &[(u32, Vec<u8>)]) -> Vec<u32> {
    replies.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn options_are_answered_as_the_protocol_says() {
    let mut c = Client::greeted();
    let list = c.option(p::OPT_LIST, &[]);
    assert_eq!(kinds(&list), [p::REP_SERVER, p::REP_SERVER, p::REP_ACK]);
    assert_eq!(list[0].1, b"\0\0\0\x04diska test");
    assert_eq!(kinds(&c.option(p::OPT_LIST, &[1])), [p::REP_ERR_INVALID]);
    assert_eq!(kinds(&c.option(p::OPT_STARTTLS, &[])), [p::REP_ERR_UNSUP]);
    assert_eq!(kinds(&c.option(4711, &[1, 2, 3])), [p::REP_ERR_UNSUP]);
    assert_eq!(kinds(&c.option(p::OPT_INFO, &vec![0; 20_000])), [p::REP_ERR_TOO_BIG]);
    assert_eq!(kinds(&c.option(p::OPT_INFO, &[0, 0])), [p::REP_ERR_INVALID]);
    assert_eq!(
        kinds(&c.option(p::OPT_INFO, &[info("disk", &[]), vec![0]].concat())),
        [p::REP_ERR_INVALID]
    );
    assert_eq!(kinds(&c.option(p::OPT_GO, &info("none", &[]))), [p::REP_ERR_UNKNOWN]);
    let facts = c.option(p::OPT_INFO, &info("", &[1, 2, 3, 99]));
    assert_eq!(kinds(&facts), [p::REP_INFO, p::REP_INFO, p::REP_INFO, p::REP_INFO, p::REP_ACK]);
    assert_eq!(facts[0].1[..10], [&[0, 0], &(SIZE as u64).to_be_bytes()[..]].concat());
    assert_eq!(facts[1].1, b"\0\x01disk");
    assert_eq!(facts[2].1, b"\0\x02a test");
    assert_eq!(facts[3].1, [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]);
    assert!(matches!(c.session.want(), Want::Bytes), "still in the handshake");
    assert_eq!(kinds(&c.option(p::OPT_ABORT, &[])), [p::REP_ACK]);
    assert!(matches!(c.session.want(), Want::Close(CloseReason::Client)));
}

#[test]
fn metadata_contexts_belong_to_one_export_and_need_structured_replies() {
    let mut c = Client::greeted();
    let base = queries("disk", &["base:allocation"]);
    assert_eq!(kinds(&c.option(p::OPT_SET_META_CONTEXT, &base)), [p::REP_ERR_INVALID]);
    assert_eq!(kinds(&c.option(p::OPT_STRUCTURED_REPLY, &[1])), [p::REP_ERR_INVALID]);
    assert_eq!(kinds(&c.option(p::OPT_STRUCTURED_REPLY, &[])), [p::REP_ACK]);
    for (option, asked, found) in [
        (p::OPT_LIST_META_CONTEXT, vec![], true),
        (p::OPT_LIST_META_CONTEXT, vec!["base:"], true),
        (p::OPT_LIST_META_CONTEXT, vec!["other:x"], false),
        (p::OPT_SET_META_CONTEXT, vec![], false),
        (p::OPT_SET_META_CONTEXT, vec!["base:"], false),
        (p::OPT_SET_META_CONTEXT, vec!["x:y", "base:allocation"], true),
    ] {
        let replies = c.option(option, &queries("disk", &asked));
        assert_eq!(replies.len(), 1 + found as usize, "{option} {asked:?}");
        assert_eq!(replies.last().unwrap().0, p::REP_ACK);
    }
    assert_eq!(
        kinds(&c.option(p::OPT_SET_META_CONTEXT, &queries("no", &[]))),
        [p::REP_ERR_UNKNOWN]
    );
    c.option(p::OPT_GO, &info("disk", &[]));
    assert_eq!(
        c.error(p::CMD_BLOCK_STATUS, 0, 0, 4096, &[]),
        22,
        "a failed choice voids an earlier one"
    );
    let mut c = Client::greeted();
    c.option(p::OPT_STRUCTURED_REPLY, &[]);
    c.option(p::OPT_SET_META_CONTEXT, &base);
    c.option(p::OPT_GO, &info("frozen", &[]));
    assert_eq!(c.error(p::CMD_BLOCK_STATUS, 0, 0, 4096, &[]), 22, "chosen for another export");
}

#[test]
fn export_name_enters_transmission_with_or_without_padding() {
    for (flags, padding) in [(3u32, 0), (1, 124), (0, 124)] {
        let mut c = Client::new();
        let mut bytes = flags.to_be_bytes().to_vec();
        bytes.extend(p::OPTION_MAGIC.to_be_bytes());
        bytes.extend(p::OPT_EXPORT_NAME.to_be_bytes());
        bytes.extend(4u32.to_be_bytes());
        bytes.extend(b"disk");
        c.send(&bytes);
        let got = c.receive();
        assert_eq!(got.len(), 18 + 10 + padding);
        assert_eq!(got[18..26], (SIZE as u64).to_be_bytes());
        assert_eq!(c.error(p::CMD_FLUSH, 0, 0, 0, &[]), 0);
    }
}

#[test]
fn who_breaks_the_handshake_is_dropped() {
    let closed = |bytes: &[u8]| {
        let mut c = Client::new();
        c.send(bytes);
        matches!(c.session.want(), Want::Close(CloseReason::Protocol(_)))
    };
    assert!(closed(&0x8000_0001u32.to_be_bytes()), "unknown client flags");
    assert!(closed(b"\0\0\0\x03HTTP/1.1 GET /xx"), "no option magic");
    assert!(closed(b"\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0"), "options without fixed newstyle");
    assert!(closed(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x02no"), "no such export");
    let endless = [b"\0\0\0\x03".to_vec(), b"IHAVEOPT\0\0\0\x03\0\0\0\0".repeat(300)].concat();
    assert!(closed(&endless), "too many options");
    let mut c = Client::transmitting("disk", true);
    c.send(&[0; 28]);
    assert!(matches!(c.session.want(), Want::Close(CloseReason::Protocol(_))), "bad request magic");
}

#[test]
fn data_goes_in_and_comes_out() {
    for structured in [false, true] {
        let mut c = Client::transmitting("disk", structured);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        assert_eq!(c.error(p::CMD_WRITE, p::CMD_FLAG_FUA, 12_345, 3_000_000, &data), 0);
        let reply = c.request(p::CMD_READ, 0, 12_345, 3_000_000, &[]);
        if !structured {
            assert_eq!(
                reply[..16],
                [&p::SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &[0; 10], &[0xfe, 0xed]].concat()
            );
            assert!(reply[16..] == data);
            continue;
        }
        let chunks = chunks(&reply);
        let mut got = vec![0; data.len()];
        for (i, (flags, kind, content)) in chunks.iter().enumerate() {
            assert_eq!((*flags, *kind), ((i + 1 == chunks.len()) as u16, p::CHUNK_OFFSET_DATA));
            let at = u64::from_be_bytes(content[..8].try_into().unwrap()) as usize - 12_345;
            got[at..at + content.len() - 8].copy_from_slice(&content[8..]);
        }
        assert!(got == data && chunks.len() == 3);
        let whole = self::chunks(&c.request(p::CMD_READ, p::CMD_FLAG_DF, 12_345, 3_000_000, &[]));
        assert!(whole.len() == 1 && whole[0].2[8..] == data, "one chunk, in order");
        let none = self::chunks(&c.request(p::CMD_READ, 0, 0, 0, &[]));
        assert_eq!(none, [(p::CHUNK_DONE, p::CHUNK_NONE, vec![])]);
    }
}

#[test]
fn zeroes_trims_and_block_status() {
    let mut c = Client::transmitting("disk", true);
    assert_eq!(c.error(p::CMD_WRITE, 0, 0, 65536, &[7; 65536]), 0);
    assert_eq!(c.error(p::CMD_TRIM, p::CMD_FLAG_FUA, 4096, 4096, &[]), 0);
    assert_eq!(c.error(p::CMD_WRITE_ZEROES, p::CMD_FLAG_FAST_ZERO, 16384, 8192, &[]), 0);
    assert_eq!(c.error(p::CMD_WRITE_ZEROES, p::CMD_FLAG_NO_HOLE, 32768, 5 << 20, &[]), 0);
    let both = p::CMD_FLAG_NO_HOLE | p::CMD_FLAG_FAST_ZERO;
    assert_eq!(c.error(p::CMD_WRITE_ZEROES, both, 0, 4096, &[]), 95);
    assert_eq!(c.error(p::CMD_CACHE, 0, 0, 4096, &[]), 0);
    assert_eq!(c.error(p::CMD_FLUSH, 0, 0, 0, &[]), 0);
    let expected: [(u32, u32); 6] =
        [(4096, 0), (4096, 3), (8192, 0), (8192, 3), (8192 + (5 << 20), 0), (3112960, 3)];
    let encode = |n: usize| {
        let mut content = p::BASE_ALLOCATION_ID.to_be_bytes().to_vec();
        for (len, state) in &expected[..n] {
            content.extend(len.to_be_bytes());
            content.extend(state.to_be_bytes());
        }
        content
    };
    for (flags, extents) in [(0, 6), (p::CMD_FLAG_REQ_ONE, 1)] {
        let reply = chunks(&c.request(p::CMD_BLOCK_STATUS, flags, 0, SIZE as u32, &[]));
        assert_eq!(reply, [(p::CHUNK_DONE, p::CHUNK_BLOCK_STATUS, encode(extents))]);
    }
    assert_eq!(c.volume.bytes[32767], 7);
    assert!(c.volume.bytes[32768..65536].iter().all(|&b| b == 0), "written zeroes");
}

#[test]
fn bad_requests_get_their_error_and_leave_the_stream_in_order() {
    let end = SIZE as u64;
    for structured in [false, true] {
        let mut c = Client::transmitting("disk", structured);
        assert_eq!(c.error(p::CMD_WRITE, 0, end - 1, 4096, &[1; 4096]), 28);
        assert_eq!(c.error(p::CMD_WRITE_ZEROES, 0, end, 1, &[]), 28);
        assert_eq!(c.error(p::CMD_READ, 0, end, 1, &[]), 22);
        assert_eq!(c.error(p::CMD_READ, 0, u64::MAX, 2, &[]), 22);
        assert_eq!(c.error(p::CMD_TRIM, 0, end, 1, &[]), 22);
        assert_eq!(c.error(99, 0, 0, 0, &[]), 22);
        assert_eq!(c.error(p::CMD_READ, 1 << 15, 0, 1, &[]), 22);
        assert_eq!(c.error(p::CMD_WRITE, p::CMD_FLAG_DF, 0, 3, &[1; 3]), 22);
        assert_eq!(
            c.error(p::CMD_READ, p::CMD_FLAG_DF, 0, 1, &[]),
            if structured { 0 } else { 22 }
        );
        assert_eq!(c.error(p::CMD_FLUSH, 0, 0, 0, &[]), 0);
        for (failure, errno) in [
            (VolumeError::NoSpace, 28),
            (VolumeError::Fenced, 108),
            (VolumeError::TimedOut, 5),
            (VolumeError::Io("x"), 5),
        ] {
            c.failure = Some(failure);
            assert_eq!(c.error(p::CMD_READ, 0, 0, 3 << 20, &[]), errno);
            assert_eq!(c.error(p::CMD_WRITE, 0, 0, 3 << 20, &vec![1; 3 << 20]), errno);
            assert_eq!(c.error(p::CMD_WRITE_ZEROES, p::CMD_FLAG_NO_HOLE, 0, 4096, &[]), errno);
        }
        let mut c = Client::transmitting("frozen", structured);
        assert_eq!(c.error(p::CMD_WRITE, 0, 0, 4096, &[1; 4096]), 1);
        assert_eq!(c.error(p::CMD_TRIM, 0, 0, 4096, &[]), 1);
        assert_eq!(c.error(p::CMD_WRITE_ZEROES, 0, 0, 4096, &[]), 1);
        assert_eq!(c.error(p::CMD_READ, 0, 0, 4096, &[]), 0);
    }
}

#[test]
fn good_bye_waits_for_what_is_in_flight() {
    let mut c = Client::transmitting("disk", false);
    let read = RequestHeader { flags: 0, command: p::CMD_READ, cookie: 1, offset: 0, len: 10 };
    let bye = RequestHeader { flags: 0, command: p::CMD_DISC, cookie: 2, offset: 0, len: 0 };
    let bytes = [read.encode(), bye.encode(), read.encode()].concat();
    let took = c.session.input(&bytes, &c.exports, &mut c.wanted);
    assert_eq!((took, c.wanted.len()), (56, 1), "nothing after good-bye is taken");
    assert!(matches!(c.session.want(), Want::Nothing));
    c.send(&[]);
    let request = c.wanted.pop();
    assert!(request.is_none() && c.receive().len() == 26);
    assert!(matches!(c.session.want(), Want::Close(CloseReason::Client)));
}

#[test]
fn no_more_is_taken_than_may_be_in_flight() {
    let mut c = Client::transmitting("disk", false);
    let header = |len| RequestHeader { flags: 0, command: p::CMD_READ, cookie: 1, offset: 0, len };
    for (len, most) in [(1, 256), (SIZE as u32, 4)] {
        let bytes = header(len).encode().repeat(300);
        let took = c.session.input(&bytes, &c.exports, &mut c.wanted);
        assert_eq!(took / 28, most);
        assert!(matches!(c.session.want(), Want::Nothing));
        c.send(&[]);
        c.receive();
        assert!(matches!(c.session.want(), Want::Bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_bytes_never_upset_a_session(
        start in 0usize..4,
        pieces in prop::collection::vec((0u8..6, any::<u64>(), 0usize..300), 1..60),
    ) {
        let mut c = match start {
            0 => Client::new(),
            1 => Client::greeted(),
            other => Client::transmitting("disk", other == 2),
        };
        for (kind, seed, len) in pieces {
            let junk: Vec<u8> = (0..len).map(|i| (seed >> (i % 57)) as u8).collect();
            let bytes = match kind {
                0 => junk,
                1 => [&p::OPTION_MAGIC.to_be_bytes()[..], &((seed % 12) as u32).to_be_bytes(),
                      &((seed >> 8) as u32 % 400).to_be_bytes(), &junk].concat(),
                2 => info("disk", &[seed as u16]),
                _ => RequestHeader {
                    flags: (seed >> 40) as u16 & 31,
                    command: (seed % 9) as u16,
                    cookie: seed,
                    offset: seed >> 41,
                    len: (seed >> 20) as u32 & 0xfffff,
                }.encode(),
            };
            c.send(&bytes);
            c.receive();
        }
        prop_assert!(c.unread.len() < 1 << 20);
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        cuts in prop::collection::vec(1usize..9000, 1..40),
    ) {
        let mut script = Vec::new();
        for (i, len) in [1u32, 4096, 70_000, 0, 1_100_000].into_iter().enumerate() {
            let at = 1000 * i as u64;
            let command = p::CMD_WRITE;
            let write = RequestHeader { flags: 0, command, cookie: 1, offset: at, len };
            let past = RequestHeader { offset: SIZE as u64, len: 50, ..write };
            let read = RequestHeader { command: p::CMD_READ, ..write };
            let data = vec![i as u8 + 1; len as usize];
            let parts = [write.encode(), data, past.encode(), vec![0; 50], read.encode()];
            script.extend(parts.concat());
        }
        let mut whole = Client::transmitting("disk", true);
        whole.in_order = true;
        whole.send(&script);
        let mut cut = Client::transmitting("disk", true);
        cut.in_order = true;
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < script.len() {
            let n = (*cuts.next().unwrap()).min(script.len() - at);
            cut.send(&script[at..at + n]);
            at += n;
        }
        prop_assert!(messages(&whole.receive()) == messages(&cut.receive()));
        prop_assert!(whole.volume.bytes == cut.volume.bytes);
    }
}
