//! Parts of a region, to say where damage is and what was in the air.

use ogive_store::RegionLayout;

/// A part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The two superblocks.
    Superblock,
    /// The log ring.
    Log,
    /// The slots of map pages.
    Pages,
    /// The two directories.
    Directory,
    /// The data blocks.
    Data,
}

impl Area {
    /// All of them.
    pub const ALL: [Area; 5] =
        [Area::Superblock, Area::Log, Area::Pages, Area::Directory, Area::Data];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Area::Superblock => "superblock",
            Area::Log => "log",
            Area::Pages => "pages",
            Area::Directory => "directory",
            Area::Data => "data",
        }
    }

    /// The part that an address lies in. In front of the log lie the superblocks.
    pub fn of(layout: &RegionLayout, addr: u64) -> Area {
        match addr {
            addr if addr >= layout.data_start => Area::Data,
            addr if addr >= layout.directory[0] => Area::Directory,
            addr if addr >= layout.slots_start => Area::Pages,
            addr if addr >= layout.log_start => Area::Log,
            _ => Area::Superblock,
        }
    }
}

/// A set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Areas(u8);

impl Areas {
    /// Adds one.
    pub fn add(&mut self, area: Area) {
        self.0 |= 1 << area as u8;
    }

    /// Whether one is in it.
    pub fn has(self, area: Area) -> bool {
        self.0 >> area as u8 & 1 == 1
    }

    /// The names of those in it.
    pub fn name(self) -> String {
        let names = Area::ALL.into_iter().filter(|area| self.has(*area)).map(Area::name);
        let names: Vec<_> = names.collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join("+") }
    }
}
