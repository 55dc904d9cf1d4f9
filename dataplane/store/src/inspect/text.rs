//! The views, for people.

use std::fmt::{self, Display, Formatter};

use super::device::{CheckpointView, DeviceView, LabelView, LogView, RegionView, SlotView};
use super::log::{BatchView, Field, LogEnd, RecordView};
use super::space::{ReplicaSpace, SpaceView};
use super::verify::{Finding, Place, Verified};

/// A size in the largest unit that it is a multiple of.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |&&(shift, _): &&(u32, &str)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match units.iter().find(fits) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Display for DeviceView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let DeviceView { device_bytes, label_copies, label, regions } = self;
        let LabelView { version, generation, uuid, cluster, chunkserver, .. } = label;
        writeln!(f, "device        {uuid}, format version {version}")?;
        match (cluster, chunkserver) {
            (Some(cluster), Some(id)) => {
                writeln!(f, "identity      chunkserver {id} of cluster {cluster}")?
            }
            _ => writeln!(f, "identity      none yet: it was never registered")?,
        }
        let (was, sector) = (label.formatted_bytes, label.sector_bytes);
        writeln!(
            f,
            "size          {}, formatted with {}, sectors of {sector} bytes",
            Bytes(*device_bytes),
            Bytes(was)
        )?;
        writeln!(f, "capacity      {} of data blocks", Bytes(label.capacity_bytes))?;
        let [a, b] = label_copies;
        writeln!(f, "label         generation {generation}; copy 0 {a}, copy 1 {b}")?;
        regions.iter().try_for_each(|region| write!(f, "\n{region}"))
    }
}

impl Display for RegionView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "shard {}: {} from byte {}", self.shard, Bytes(self.bytes), self.start)?;
        for part in &self.parts {
            writeln!(f, "  {:<12}{:>16}  {}", part.what, part.start, Bytes(part.bytes))?;
        }
        for (n, slot) in self.superblocks.iter().enumerate() {
            writeln!(f, "  superblock {n} {slot}")?;
        }
        if let Some(checkpoint) = &self.checkpoint {
            writeln!(f, "  {checkpoint}")?;
        }
        if let Some(log) = &self.log {
            writeln!(f, "  {log}")?;
        }
        match &self.problem {
            Some(problem) => writeln!(f, "  problem      {problem}"),
            None => Ok(()),
        }
    }
}

impl Display for SlotView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SlotView::Unused => f.write_str("never written"),
            SlotView::Damaged => f.write_str("damaged"),
            SlotView::Unreadable { error } => write!(f, "cannot be read: {error}"),
            SlotView::OtherVersion { version } => write!(f, "of version {version}"),
            SlotView::Foreign => f.write_str("of another region"),
            SlotView::Valid { generation, mount } => {
                write!(f, "generation {generation}, mount {mount}")
            }
        }
    }
}

impl Display for CheckpointView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let CheckpointView { generation, mount, tail, skip, .. } = self;
        write!(f, "checkpoint   generation {generation}, opened {mount} times, log from {tail}")?;
        if *skip > 0 {
            write!(f, " without its first {skip} records")?;
        }
        match self.directory_area {
            Some(area) => write!(f, ", directory {area} with {} bytes", self.directory_bytes),
            None => write!(f, ", no directory yet"),
        }
    }
}

impl Display for LogView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let LogView { tail, head, persisted, ring_bytes, batches, records, end } = self;
        let used = head - tail;
        write!(f, "log          {batches} batches with {records} records")?;
        write!(f, " in {used} of {ring_bytes} bytes, to position {head};")?;
        write!(f, " marked up to {persisted}; {end}")
    }
}

impl Display for LogEnd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogEnd::Clean => "ends clean",
            LogEnd::Rot => "ENDS BEFORE THE MARK: something that was on stable storage is gone",
        })
    }
}

impl Display for BatchView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let BatchView { at, addr, bytes, persisted, mount, crc, records } = self;
        write!(f, "batch {at}  byte {addr}  {bytes} bytes  marked {persisted}")?;
        write!(f, "  mount {mount}  crc {crc:08x}")?;
        match records {
            Some(records) => records.iter().try_for_each(|record| write!(f, "\n  {record}")),
            None => write!(f, "\n  its records make no sense"),
        }
    }
}

impl Display for RecordView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", self.kind)?;
        self.fields.iter().try_for_each(|(name, field)| write!(f, " {name} {field}"))
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Field::Number(n) => write!(f, "{n}"),
            Field::Text(text) => f.write_str(text),
            Field::List(items) => {
                f.write_str("[")?;
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if n == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Display for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let more = self.damages - self.findings.len() as u64;
        if more > 0 {
            writeln!(f, "and {more} more")?;
        }
        let Verified { map_pages, log_batches, data_blocks, damages, .. } = self;
        write!(
            f,
            "read {map_pages} map pages, {log_batches} log batches, {data_blocks} data blocks: "
        )?;
        match damages {
            0 => f.write_str("all as they were written"),
            1 => f.write_str("1 damage"),
            n => write!(f, "{n} damages"),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.shard {
            Some(shard) => write!(f, "shard {shard}: ")?,
            None => f.write_str("device: ")?,
        }
        if let Some(Place { copyset, volume, chunk, block, blocks }) = self.place {
            let last = u32::from(block) + u32::from(blocks) - 1;
            write!(
                f,
                "volume {volume}, chunk {chunk}, blocks {block} to {last} (copyset {copyset}): "
            )?;
        }
        f.write_str(&self.what)
    }
}

impl Display for SpaceView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SpaceView { shard, blocks, blocks_free, blocks_mapped, blocks_pending, .. } = self;
        write!(f, "shard {shard}: {blocks} blocks of 4 KiB, {blocks_free} free,")?;
        write!(f, " {blocks_mapped} with data of volumes,")?;
        writeln!(f, " {blocks_pending} of entries not applied")?;
        writeln!(f, "  {} of {} map pages", self.map_pages, self.map_pages_max)?;
        for ReplicaSpace { copyset, volume, chunks, blocks } in &self.replicas {
            match volume {
                Some(volume) => writeln!(
                    f,
                    "  copyset {copyset}, volume {volume}: {blocks} blocks in {chunks} chunks"
                )?,
                None => writeln!(f, "  copyset {copyset}: no data")?,
            }
        }
        match &self.contradiction {
            Some(what) => write!(f, "  CONTRADICTION: {what}"),
            None => write!(f, "  every block is accounted for"),
        }
    }
}
