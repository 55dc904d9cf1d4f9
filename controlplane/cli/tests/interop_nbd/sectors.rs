//! Sectors of 512 bytes at any offset, by several writers at once, against a model.
//!
//! The writers share blocks of 4 KiB, which the volume can only replace as a whole: each write of a
//! part reads the block, changes it and writes it. Two of these at once must not undo each other.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::common::TestCluster;

const SECTOR: usize = 512;
/// Sectors that are written to: small, so that most writes share blocks with others in flight.
const SECTORS: usize = 512;
/// Where they begin: over the end of a chunk.
const BASE: u64 = (16 << 20) - 100 * SECTOR as u64;
const DEPTH: usize = 8;

/// A connection that speaks just enough of the protocol.
struct Nbd {
    to: UnixStream,
    from: BufReader<UnixStream>,
    next: u64,
}

impl Nbd {
    fn connect(cluster: &TestCluster, export: &str) -> Nbd {
        let uri = cluster.uri(1, export);
        let socket = uri.split("socket=").nth(1).expect("a unix socket");
        let to = UnixStream::connect(socket).unwrap();
        let mut nbd = Nbd { from: BufReader::new(to.try_clone().unwrap()), to, next: 0 };
        let greeting = nbd.take(18);
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        let mut say = 3u32.to_be_bytes().to_vec(); // fixed newstyle, no zeroes
        say.extend(b"IHAVEOPT");
        say.extend(1u32.to_be_bytes()); // EXPORT_NAME
        say.extend((export.len() as u32).to_be_bytes());
        say.extend(export.as_bytes());
        nbd.to.write_all(&say).unwrap();
        nbd.take(10);
        nbd
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.from.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn ask(&mut self, command: u16, sector: usize, sectors: usize, data: &[u8]) -> u64 {
        self.next += 1;
        let mut say = 0x2560_9513u32.to_be_bytes().to_vec();
        say.extend([0, 0]);
        say.extend(command.to_be_bytes());
        say.extend(self.next.to_be_bytes());
        say.extend((BASE + (sector * SECTOR) as u64).to_be_bytes());
        say.extend(((sectors * SECTOR) as u32).to_be_bytes());
        say.extend(data);
        self.to.write_all(&say).unwrap();
        self.next
    }

    /// The next answer, which must be good.
    fn answer(&mut self) -> u64 {
        let head = self.take(16);
        assert_eq!(head[..4], 0x6744_6698u32.to_be_bytes());
        assert_eq!(head[4..8], [0; 4], "an error");
        u64::from_be_bytes(head[8..16].try_into().unwrap())
    }

    fn read(&mut self, sector: usize, sectors: usize) -> Vec<u8> {
        let asked = self.ask(0, sector, sectors, &[]);
        assert_eq!(self.answer(), asked);
        self.take(sectors * SECTOR)
    }
}

/// A sector of which every 8 bytes say who wrote it.
fn stamped(tag: u64) -> Vec<u8> {
    tag.to_le_bytes().repeat(SECTOR / 8)
}

fn tag(bytes: &[u8]) -> u64 {
    let tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, stamped(tag), "parts of two writes in one sector");
    tag
}

fn draw(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) as usize) % below
}

/// Writes of sectors that `mine` allows, several in flight, none of which overlap; what each sector
/// holds afterwards.
fn write_some(mut nbd: Nbd, writer: u64, rounds: usize, mine: fn(usize, u64) -> bool) -> Vec<u64> {
    let mut model = vec![0; SECTORS];
    let mut busy = [false; SECTORS];
    let mut flying: HashMap<u64, (usize, usize)> = HashMap::new();
    let (mut state, mut count) = (writer, 0);
    while count < rounds || !flying.is_empty() {
        let (first, len) = (draw(&mut state, SECTORS), 1 + draw(&mut state, 3));
        let range = first..(first + len).min(SECTORS);
        let free = range.clone().all(|s| mine(s, writer) && !busy[s]);
        if count < rounds && flying.len() < DEPTH && free {
            count += 1;
            let tag = writer << 32 | count as u64;
            let data = stamped(tag).repeat(range.len());
            let id = nbd.ask(1, first, range.len(), &data);
            range.clone().for_each(|s| (model[s], busy[s]) = (tag, true));
            flying.insert(id, (range.start, range.end));
        }
        if flying.len() == DEPTH || (count == rounds && !flying.is_empty()) {
            let (start, end) = flying.remove(&nbd.answer()).expect("it was asked");
            busy[start..end].fill(false);
        }
    }
    model
}

fn two_writers(mine: fn(usize, u64) -> bool, rounds: usize) -> (Vec<u8>, [Vec<u64>; 2]) {
    let cluster = TestCluster::with_volume("v", 64 << 20);
    let models = std::thread::scope(|scope| {
        let one = |writer| {
            let nbd = Nbd::connect(&cluster, "v");
            scope.spawn(move || write_some(nbd, writer, rounds, mine))
        };
        let both = [one(1), one(2)];
        both.map(|thread| thread.join().expect("all writes went well"))
    });
    let mut nbd = Nbd::connect(&cluster, "v");
    (nbd.read(0, SECTORS), models)
}

#[test]
fn writers_of_other_sectors_of_a_block_do_not_undo_each_other() {
    // In runs of three, so that both have sectors in every block, and some writes span blocks.
    let mine = |sector: usize, writer: u64| (sector / 3) as u64 % 2 == writer - 1;
    let (found, [one, two]) = two_writers(mine, 1500);
    for (sector, bytes) in found.chunks_exact(SECTOR).enumerate() {
        let model = if mine(sector, 1) { &one } else { &two };
        assert_eq!(tag(bytes), model[sector], "sector {sector}");
    }
    assert!(one.iter().chain(&two).filter(|&&tag| tag != 0).count() > SECTORS * 9 / 10);
}

#[test]
fn writers_of_the_same_sectors_leave_the_last_of_one_of_them() {
    let (found, [one, two]) = two_writers(|_, _| true, 1500);
    for (sector, bytes) in found.chunks_exact(SECTOR).enumerate() {
        let tag = tag(bytes);
        assert!(tag == one[sector] || tag == two[sector], "sector {sector} holds {tag:x}");
    }
}
