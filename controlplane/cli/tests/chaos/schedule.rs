//! Which faults come when: decided by the seed alone.

use ogive_cli::local::Part;

/// Chunkservers, and metadata servers, of the cluster.
pub const SERVERS: u32 = 3;

/// Something that goes wrong, and that ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill(Part),
    /// SIGSTOP; SIGCONT at the end. It does nothing, and then it does what it was about to do.
    Stop(Part),
    /// No packet reaches it or leaves it.
    Isolate(Part),
    /// Packets leave it, none reaches it.
    Deaf(Part),
    /// Packets reach it, none leaves it.
    Mute(Part),
    /// Packets from one to the other are lost; the other way all is well.
    OneWay(Part, Part),
    /// Packets to and from it are lost in part, late, and out of order.
    BadCable {
        /// Whose.
        part: Part,
        /// Percentage that is lost.
        loss: u8,
        /// How long they travel at least, in milliseconds.
        delay_ms: u8,
    },
    /// The gateway stops; another takes the volume by force; then the first goes on.
    Takeover,
    /// The gateway is killed and started again.
    GatewayDies,
    /// A bit of a block at rest flips on a device, always the same one.
    Rot,
    /// All space is used up, and freed at the end.
    Full,
}

impl Fault {
    /// Its kind, for counting.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::Kill(Part::Mds(_)) => "metadata server killed",
            Fault::Kill(_) => "chunkserver killed",
            Fault::Stop(Part::Mds(_)) => "metadata server stopped",
            Fault::Stop(_) => "chunkserver stopped",
            Fault::Isolate(_) => "isolated",
            Fault::Deaf(_) => "deaf",
            Fault::Mute(_) => "mute",
            Fault::OneWay(..) => "one way cut",
            Fault::BadCable { .. } => "bad cable",
            Fault::Takeover => "gateway replaced while it stands still",
            Fault::GatewayDies => "gateway killed",
            Fault::Rot => "bit flipped",
            Fault::Full => "devices full",
        }
    }

    /// True when it needs a network of our own.
    fn is_of_network(self) -> bool {
        matches!(
            self,
            Fault::Isolate(_)
                | Fault::Deaf(_)
                | Fault::Mute(_)
                | Fault::OneWay(..)
                | Fault::BadCable { .. }
        )
    }

    /// What it happens to, so that two faults of a round do not happen to the same.
    fn victim(self) -> Option<Part> {
        match self {
            Fault::Kill(part) | Fault::Stop(part) | Fault::Isolate(part) => Some(part),
            Fault::Deaf(part) | Fault::Mute(part) | Fault::OneWay(part, _) => Some(part),
            Fault::BadCable { part, .. } => Some(part),
            Fault::Takeover | Fault::GatewayDies => Some(Part::Gateway(0)),
            Fault::Rot | Fault::Full => None,
        }
    }
}

/// Faults that hold at the same time, and the peace after them.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// One to three.
    pub faults: Vec<Fault>,
    /// How long they hold, in milliseconds.
    pub hold_ms: u64,
    /// From their end to the next round, in milliseconds.
    pub peace_ms: u64,
}

/// Rounds without end.
pub struct Schedule {
    random: u64,
    network: bool,
}

impl Schedule {
    /// Those of a seed; without a network of our own, other faults take the place of its.
    pub fn new(seed: u64, network: bool) -> Schedule {
        Schedule { random: seed, network }
    }

    /// The next number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn part(&mut self) -> Part {
        let n = 1 + self.below(u64::from(SERVERS)) as u32;
        // What serves data gets most of it.
        if self.below(4) == 0 { Part::Mds(n) } else { Part::Chunkserver(n) }
    }

    fn fault(&mut self) -> Fault {
        let part = self.part();
        match self.below(16) {
            0..=2 => Fault::Kill(part),
            3..=5 => Fault::Stop(part),
            6 => Fault::Isolate(part),
            7 => Fault::Deaf(part),
            8 => Fault::Mute(part),
            9 => {
                let from = 1 + self.below(u64::from(SERVERS)) as u32;
                let to = from % SERVERS + 1;
                Fault::OneWay(Part::Chunkserver(from), Part::Chunkserver(to))
            }
            10 | 11 => {
                let (loss, delay_ms) = (1 + self.below(20) as u8, self.below(30) as u8);
                Fault::BadCable { part, loss, delay_ms }
            }
            12 => Fault::Takeover,
            13 => Fault::GatewayDies,
            14 => Fault::Rot,
            _ => Fault::Full,
        }
    }
}

impl Iterator for Schedule {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let count = 1 + self.below(3);
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..count {
            let fault = self.fault();
            let doubled = faults.iter().any(|f| f.victim() == fault.victim());
            if !doubled && (self.network || !fault.is_of_network()) {
                faults.push(fault);
            }
        }
        // Filling all devices takes all that they can do: with anything else it does not end.
        if faults.contains(&Fault::Full) {
            faults.retain(|&fault| fault == Fault::Full);
        }
        let (hold_ms, peace_ms) = (200 + self.below(4000), 100 + self.below(3000));
        Some(Round { faults, hold_ms, peace_ms })
    }
}

#[test]
fn a_seed_names_a_schedule_and_all_kinds_come() {
    let rounds = |seed| Schedule::new(seed, true).take(200).collect::<Vec<_>>();
    assert_eq!(rounds(1), rounds(1));
    assert_ne!(rounds(1), rounds(2));
    let faults = rounds(1).into_iter().flat_map(|round| round.faults);
    let kinds: std::collections::BTreeSet<_> = faults.map(Fault::kind).collect();
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    let plain = Schedule::new(1, false).take(200).flat_map(|round| round.faults);
    assert!(plain.into_iter().all(|fault| !fault.is_of_network()));
}
