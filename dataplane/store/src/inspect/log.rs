//! The log of a region, batch by batch, as recovery follows it.

use ogive_types::message::Op;
use ogive_types::{BlockRange, ChunkId};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::overlay::Overlay;
use crate::batch::Header;
use crate::io::RegionIo;
use crate::label::Label;
use crate::logscan::LogScan;
use crate::record::{Extent, Piece, Record};
use crate::recover::{LogEnd as LogPlace, OpenError, Recovery, decode_records, on_io};
use crate::superblock::Superblock;

/// What follows the last good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogEnd {
    /// Nothing that was ever promised: the log's end, or a torn write behind it.
    Clean,
    /// Something that was on stable storage is not there any more.
    Rot,
}

/// A batch of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchView {
    /// Its position in the log.
    pub at: u64,
    /// Its first byte on the device.
    pub addr: u64,
    /// Its bytes on the device.
    pub bytes: u64,
    /// Everything before this position was on stable storage when it was written.
    pub persisted: u64,
    /// How often the region had been opened when it was written.
    pub mount: u64,
    /// Its checksum.
    pub crc: u32,
    /// Its records; none when its checksum is right and they cannot be understood.
    pub records: Option<Vec<RecordView>>,
}

/// A record: its kind and its fields, in the order of the format.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordView {
    /// What it is.
    pub kind: &'static str,
    /// Its fields.
    pub fields: Vec<(&'static str, Field)>,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A number.
    Number(u64),
    /// Anything else, as text.
    Text(String),
    /// Several.
    List(Vec<Field>),
}

impl Serialize for RecordView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + 1))?;
        map.serialize_entry("record", self.kind)?;
        self.fields.iter().try_for_each(|(name, field)| map.serialize_entry(name, field))?;
        map.end()
    }
}

/// Tells `each` of all batches of a shard's log from the checkpoint on, and how the log ends.
/// `each` returns false to end early.
///
/// # Errors
/// When the region has no readable superblock, or the log cannot be read.
pub fn dump_log(
    io: &dyn RegionIo,
    label: &Label,
    shard: u16,
    each: &mut dyn FnMut(BatchView) -> bool,
) -> Result<LogEnd, OpenError> {
    let mut overlay = Overlay::new(io);
    let mut recovery = Recovery::new(&mut overlay, label, shard)?;
    let superblock = recovery.superblock()?;
    let log_start = recovery.layout.log_start;
    let sector = label.sector;
    let mut walk = Walk::new(&recovery, &superblock)?;
    let ring_bytes = walk.ring_bytes();
    while let Some((header, records)) = walk.next_batch() {
        let records = decode_records(records, header.records);
        let view = BatchView {
            at: header.at,
            addr: log_start + header.at % ring_bytes,
            bytes: header.bytes(sector),
            persisted: header.persisted,
            mount: header.mount,
            crc: header.crc,
            records: records.map(|records| records.iter().map(record).collect()),
        };
        if !each(view) {
            return Ok(LogEnd::Clean);
        }
    }
    Ok(walk.verdict())
}

/// Follows the chain of batches.
pub(super) struct Walk<'r> {
    scan: LogScan<'r>,
    sector: u32,
    tail: u64,
    end: LogPlace,
    mount: u64,
    mark: u64,
}

impl<'r> Walk<'r> {
    pub(super) fn new(
        recovery: &'r Recovery<'_>,
        superblock: &Superblock,
    ) -> Result<Walk<'r>, OpenError> {
        let mut scan = recovery.log_scan();
        let (_, mark) = scan.ends(superblock).map_err(on_io("read the log"))?;
        let end = LogPlace { at: superblock.tail, crc: superblock.tail_crc };
        let (sector, tail) = (recovery.sector, superblock.tail);
        Ok(Walk { scan, sector, tail, end, mount: 0, mark })
    }

    /// The next batch, with the bytes of its records.
    pub(super) fn next_batch(&mut self) -> Option<(Header, &[u8])> {
        // All of the chain was read when its ends were looked for.
        let next = self.scan.next(self.end.at, self.end.crc, self.mount, self.tail);
        let (header, records) = next.ok()??;
        self.end = LogPlace { at: header.end(self.sector), crc: header.crc };
        self.mount = header.mount;
        Some((header, records))
    }

    /// Position after the newest batch seen.
    pub(super) fn at(&self) -> u64 {
        self.end.at
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn ring_bytes(&self) -> u64 {
        self.scan.len()
    }

    /// What the end of the chain means, when it was reached.
    pub(super) fn verdict(&self) -> LogEnd {
        if self.end.at < self.mark { LogEnd::Rot } else { LogEnd::Clean }
    }
}

fn number(n: impl Into<u64>) -> Field {
    Field::Number(n.into())
}

fn text(t: impl std::fmt::Display) -> Field {
    Field::Text(t.to_string())
}

fn list<T>(items: &[T], each: impl Fn(&T) -> Field) -> Field {
    Field::List(items.iter().map(each).collect())
}

fn place(chunk: ChunkId, range: BlockRange) -> Vec<(&'static str, Field)> {
    vec![
        ("volume", number(chunk.volume.0)),
        ("chunk", number(chunk.number)),
        ("block", number(range.start())),
        ("blocks", number(range.blocks())),
    ]
}

fn stored(extents: &[Extent]) -> Field {
    list(extents, |e| text(format!("{}+{}", e.block, e.blocks)))
}

fn record(record: &Record) -> RecordView {
    let (kind, copyset, mut fields) = match record {
        Record::Entry { copyset, index, term, op, extents } => {
            let mut fields = vec![("index", number(index.0)), ("term", number(term.0))];
            let (kind, more) = operation(op, extents);
            fields.extend(more);
            (kind, copyset, fields)
        }
        Record::Hard { copyset, hard } => {
            let voted = hard.voted_for.map_or("nobody".to_owned(), |shard| shard.to_string());
            let fields = vec![("term", number(hard.term.0)), ("voted_for", text(voted))];
            ("hard-state", copyset, fields)
        }
        Record::Applied { copyset, index } => {
            ("applied", copyset, vec![("index", number(index.0))])
        }
        Record::Create { copyset, members } => {
            ("create", copyset, vec![("members", list(members, |m| text(m)))])
        }
        Record::Drop { copyset } => ("drop", copyset, Vec::new()),
        Record::Delta { copyset, dropped, pieces } => {
            let pieces = list(pieces, piece);
            let fields = vec![("dropped", list(dropped, |c| text(c))), ("pieces", pieces)];
            ("delta", copyset, fields)
        }
        Record::Repair { copyset, pieces } => {
            ("repair", copyset, vec![("pieces", list(pieces, piece))])
        }
        Record::Reset { copyset, upto, fences } => {
            let fences = list(fences, |(volume, epoch)| text(format!("{volume} {epoch}")));
            let (index, term) = (number(upto.index.0), number(upto.term.0));
            ("reset", copyset, vec![("index", index), ("term", term), ("fences", fences)])
        }
    };
    fields.insert(0, ("copyset", number(copyset.0)));
    RecordView { kind, fields }
}

fn piece(piece: &Piece) -> Field {
    let (range, index) = (piece.range, piece.index);
    let what = if piece.stored.is_some() { "data" } else { "trimmed" };
    let (from, to) = (range.start(), range.end() - 1);
    text(format!("{} blocks {from}-{to} {what} {index}", piece.chunk))
}

fn operation(op: &Op, extents: &[Extent]) -> (&'static str, Vec<(&'static str, Field)>) {
    match op {
        Op::Noop => ("noop", Vec::new()),
        Op::Write { chunk, range, sums } => {
            let mut fields = place(*chunk, *range);
            fields.push(("stored", stored(extents)));
            fields.push(("sums", list(sums, |sum| text(format!("{:08x}", sum.0)))));
            ("write", fields)
        }
        Op::Trim { chunk, range } => ("trim", place(*chunk, *range)),
        Op::Fence { volume, epoch } => {
            ("fence", vec![("volume", number(volume.0)), ("epoch", number(epoch.0))])
        }
        Op::DropVolume { volume } => ("drop-volume", vec![("volume", number(volume.0))]),
    }
}
