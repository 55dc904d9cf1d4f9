//! What goes wrong, by kind.

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A chunkserver's process is killed; its disk keeps what was written.
    Kill,
    /// A chunkserver loses its power, and what was not flushed.
    PowerCut,
    /// The leader of some copyset is killed or loses its power.
    LeaderCrash,
    /// One side of a catch-up by delta is killed, loses its power, or the connection.
    DeltaBroken,
    /// All chunkservers lose their power at once.
    Blackout,
    /// One host cannot reach, or be reached by, the others.
    Isolate,
    /// One direction between two hosts is cut.
    OneWay,
    /// A connection breaks.
    Reset,
    /// One direction of a connection is held up for long.
    Stall,
    /// What clients have sent to a leader is held up, and it loses its leadership meanwhile.
    LateRequests,
    /// What clients have sent to a leader is held up, and it goes on to lead.
    LateConnection,
    /// For a while, what is on its way in a connection that its sender gives up arrives twice.
    Duplicate,
    /// Everything between two hosts is slow for a while.
    SlowNetwork,
    /// A disk is slow for a while.
    SlowDisk,
    /// A process stands still for a while.
    Pause,
    /// A clock leaps ahead, or stands for a while.
    ClockStep,
    /// A disk fails a write.
    DiskError,
    /// A shard has no space left and refuses a write. Follows from the shape of the world, and is
    /// counted when it happens.
    DiskFull,
    /// Bits of stored blocks flip.
    Rot,
    /// A bit of the log flips, below its persisted mark.
    LogRot,
    /// Sectors cannot be read any more.
    BadSector,
    /// Blocks hold what was written for others.
    Misdirected,
    /// Two chunkservers are restarted with each other's device.
    WrongDevice,
    /// A volume is attached anew while its former client goes on.
    TakeOver,
    /// A client's process is killed, and its volume attached anew.
    ClientCrash,
    /// The metadata servers do not answer for a while.
    MetadataDown,
}

impl Fault {
    /// All of them, with their names on the command line.
    const ALL: [(Fault, &str); 26] = [
        (Fault::Kill, "kill"),
        (Fault::PowerCut, "power-cut"),
        (Fault::LeaderCrash, "leader-crash"),
        (Fault::DeltaBroken, "delta-broken"),
        (Fault::Blackout, "blackout"),
        (Fault::Isolate, "isolate"),
        (Fault::OneWay, "one-way"),
        (Fault::Reset, "reset"),
        (Fault::Stall, "stall"),
        (Fault::LateRequests, "late-requests"),
        (Fault::LateConnection, "late-connection"),
        (Fault::Duplicate, "duplicate"),
        (Fault::SlowNetwork, "slow-network"),
        (Fault::SlowDisk, "slow-disk"),
        (Fault::Pause, "pause"),
        (Fault::ClockStep, "clock-step"),
        (Fault::DiskError, "disk-error"),
        (Fault::DiskFull, "disk-full"),
        (Fault::Rot, "rot"),
        (Fault::LogRot, "log-rot"),
        (Fault::BadSector, "bad-sector"),
        (Fault::Misdirected, "misdirected"),
        (Fault::WrongDevice, "wrong-device"),
        (Fault::TakeOver, "take-over"),
        (Fault::ClientCrash, "client-crash"),
        (Fault::MetadataDown, "metadata-down"),
    ];

    /// All kinds.
    pub fn all() -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().map(|&(fault, _)| fault)
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        Fault::ALL[self as usize].1
    }

    /// Mean time between two of them in simulated microseconds, when it happens at all.
    pub(crate) fn mean_us(self) -> u64 {
        match self {
            Fault::Blackout | Fault::DiskError => 4_000_000,
            // Looked for often, since deltas are short and rare.
            Fault::DeltaBroken => 3_000,
            Fault::Reset | Fault::Stall => 150_000,
            // Two of them on the same shard are needed for one fault.
            Fault::LogRot => 100_000,
            Fault::Rot | Fault::BadSector | Fault::Misdirected => 300_000,
            Fault::SlowDisk | Fault::SlowNetwork | Fault::Pause | Fault::ClockStep => 700_000,
            Fault::WrongDevice => 2_500_000,
            _ => 1_200_000,
        }
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::all().find(|fault| fault.name() == text).ok_or_else(|| {
            let names: Vec<_> = Fault::all().map(Fault::name).collect();
            format!("no such fault; there are {}", names.join(", "))
        })
    }
}

/// Some kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// Adds a kind.
    pub fn insert(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u32;
    }

    /// Whether a kind is among them.
    pub fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u32 != 0
    }

    /// The kinds, in the order of [`Fault::all`].
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::all().filter(move |&fault| self.contains(fault))
    }
}

impl std::str::FromStr for FaultSet {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultSet, String> {
        let mut set = FaultSet::default();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            set.insert(name.parse()?);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_kinds() {
        for (at, fault) in Fault::all().enumerate() {
            assert_eq!(fault as usize, at, "the table has the order of the kinds");
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        let set: FaultSet = "rot,kill".parse().expect("known names");
        assert_eq!(set.iter().collect::<Vec<_>>(), [Fault::Kill, Fault::Rot]);
        assert!("rot,frogs".parse::<FaultSet>().is_err());
    }
}
