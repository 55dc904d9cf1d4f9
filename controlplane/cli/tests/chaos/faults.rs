//! Does to a cluster what a schedule says, and undoes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ogive_bench::history::{Crowd, CrowdSpec, Gateway, Told};
use ogive_cli::local::Part;
use ogive_cli::local::net::{Link, Network};
use rustix::process::Signal;

use crate::common::{TestCluster, try_tool};
use crate::schedule::{Fault, Round, SERVERS, Schedule};

const BLOCK: usize = 4096;
const VOLUME: &str = "v";
/// Larger than the devices: filling it fills them.
const FILLER: &str = "filler";
/// The volume spans chunks of different copysets.
const VOLUME_BYTES: u64 = 128 << 20;
const FILLER_BYTES: u64 = 1 << 30;
/// Few, so that clients meet.
const HOT_BLOCKS: u64 = 48;
const SETTLED_BLOCKS: u64 = 64;
const CLIENTS: u32 = 8;
/// How long the replaced gateway may try to go on.
const AFTERWARDS: Duration = Duration::from_millis(1500);
/// What the metadata servers say may be so old: signs of life come twice a second, and are missed
/// after a few.
const NEWS: Duration = Duration::from_secs(3);

/// A cluster, the clients on it, and what is wrong with it.
pub struct World {
    cluster: TestCluster,
    network: Option<Network>,
    crowd: Crowd,
    gateways: [Gateway; 2],
    /// Which gateway has the volumes.
    holder: usize,
    attachments: u64,
    /// The device that rots; one only, so that every block keeps two good copies.
    rotting: u32,
    draws: Schedule,
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    /// Volumes, a gateway, and clients at work.
    pub fn start(
        mut cluster: TestCluster,
        network: Option<Network>,
        schedule: &mut Schedule,
    ) -> World {
        cluster.create_volume(VOLUME, VOLUME_BYTES).expect("a volume");
        cluster.create_volume(FILLER, FILLER_BYTES).expect("a volume");
        cluster.start_gateway(1, &[VOLUME, FILLER]).expect("a gateway");
        cluster.will_export(2, &[VOLUME, FILLER]);
        let gateway = |n: u32| Gateway {
            uri: cluster.uri(n, VOLUME).parse().expect("a URI"),
            attachment: Arc::new(AtomicU64::new(u64::from(n == 1))),
        };
        let gateways = [gateway(1), gateway(2)];
        let spread = VOLUME_BYTES / BLOCK as u64;
        let spec = CrowdSpec {
            gateways: gateways.to_vec(),
            clients: CLIENTS,
            // Neighbours in pairs, over the whole volume.
            blocks: (0..HOT_BLOCKS).map(|n| n / 2 * (2 * spread / HOT_BLOCKS) + n % 2).collect(),
            settled: (0..SETTLED_BLOCKS).map(|n| n * (spread / SETTLED_BLOCKS) + 7).collect(),
            write_percent: 50,
            seed: schedule.below(u64::MAX),
        };
        // Only the gateway that runs can be connected to.
        let crowd = Crowd::start(spec, Duration::from_secs(30)).expect("clients at work");
        let rotting = 1 + schedule.below(u64::from(SERVERS)) as u32;
        let draws = Schedule::new(schedule.below(u64::MAX), true);
        let counts = BTreeMap::new();
        let (holder, attachments) = (0, 1);
        World { cluster, network, crowd, gateways, holder, attachments, rotting, draws, counts }
    }

    fn say(&self, what: &str) {
        println!("  {:9.3} s  {what}", self.crowd.now() as f64 / 1e9);
    }

    /// Faults, their end, and peace.
    pub fn round(&mut self, round: &Round) {
        for &fault in &round.faults {
            self.say(&format!("{fault:?} for {} ms", round.hold_ms));
            *self.counts.entry(fault.kind()).or_default() += 1;
            self.begin(fault);
        }
        sleep(Duration::from_millis(round.hold_ms));
        if let Some(network) = &self.network {
            network.heal();
        }
        for &fault in &round.faults {
            self.end(fault);
        }
        self.all_run();
        sleep(Duration::from_millis(round.peace_ms));
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(part) => self.cluster.kill(part).expect("it runs"),
            Fault::Stop(part) => self.cluster.signal(part, Signal::STOP).expect("it runs"),
            Fault::Isolate(part) => self.cut(part, true, true),
            Fault::Deaf(part) => self.cut(part, true, false),
            Fault::Mute(part) => self.cut(part, false, true),
            Fault::OneWay(from, to) => self.link(from, to, Link::CUT),
            Fault::BadCable { part, loss, delay_ms } => {
                let delay = Duration::from_millis(u64::from(delay_ms));
                let link = Link { loss: f64::from(loss) / 100.0, delay, jitter: delay / 2 };
                self.links(part, link, link);
            }
            Fault::Takeover => self.take_over(),
            Fault::GatewayDies => {
                let gateway = self.gateway();
                self.cluster.kill(gateway).expect("it runs");
            }
            Fault::Rot => self.rot(),
            Fault::Full => self.fill(),
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(part) => self.cluster.launch(part).expect("it starts again"),
            Fault::Stop(part) => self.cluster.signal(part, Signal::CONT).expect("it goes on"),
            Fault::Takeover => {
                let old = Part::Gateway(2 - self.holder as u32);
                self.cluster.signal(old, Signal::CONT).expect("it goes on");
                sleep(AFTERWARDS);
                self.cluster.kill(old).expect("it runs");
            }
            Fault::GatewayDies => self.attach(self.holder),
            Fault::Full => self.empty(),
            _ => {}
        }
    }

    /// The gateway that has the volumes.
    fn gateway(&self) -> Part {
        Part::Gateway(1 + self.holder as u32)
    }

    /// Starts a gateway, whose attachment is newer than all before.
    fn attach(&mut self, which: usize) {
        self.attachments += 1;
        self.gateways[which].attachment.store(self.attachments, Ordering::SeqCst);
        self.cluster.launch(Part::Gateway(1 + which as u32)).expect("it starts");
        self.holder = which;
    }

    fn take_over(&mut self) {
        self.cluster.signal(self.gateway(), Signal::STOP).expect("it runs");
        self.attach(1 - self.holder);
    }

    /// No process may end by itself.
    fn all_run(&mut self) {
        if let Err(error) = self.cluster.check() {
            panic!("{error}\n{}", self.cluster.logs());
        }
    }

    fn cut(&self, part: Part, inwards: bool, outwards: bool) {
        let link = |cut| if cut { Link::CUT } else { Link::default() };
        self.links(part, link(inwards), link(outwards));
    }

    fn links(&self, part: Part, inwards: Link, outwards: Link) {
        for other in crate::parts().into_iter().filter(|&other| other != part) {
            self.link(other, part, inwards);
            self.link(part, other, outwards);
        }
    }

    fn link(&self, from: Part, to: Part, link: Link) {
        if let Some(network) = &self.network
            && link != Link::default()
        {
            network.set(from, to, link);
        }
    }

    /// Flips a bit of a settled block, if the device shows it: a chunkserver that is behind may not
    /// have it yet.
    fn rot(&mut self) {
        let which = self.draws.below(SETTLED_BLOCKS) as usize;
        let content = self.crowd.settled_content(which);
        let device = self.cluster.device(self.rotting);
        let file = File::options().read(true).write(true).open(&device).expect("a device");
        let mut bytes = vec![0; BLOCK];
        let blocks = file.metadata().expect("a file").len() / BLOCK as u64;
        let found = (0..blocks).map(|n| n * BLOCK as u64).find(|&at| {
            file.read_exact_at(&mut bytes[..32], at).expect("it can be read");
            bytes[..32] == content[..32] && {
                file.read_exact_at(&mut bytes, at).expect("it can be read");
                bytes == content
            }
        });
        let Some(at) = found else { return self.say("  it is not on the device") };
        let bit = self.draws.below(BLOCK as u64 * 8);
        let byte = content[bit as usize / 8] ^ 1 << (bit % 8);
        file.write_all_at(&[byte], at + bit / 8).expect("it can be written");
        file.sync_all().expect("it can be written");
    }

    fn fill(&mut self) {
        let uri = self.cluster.uri(1 + self.holder as u32, FILLER);
        let write = ["-f", "raw", "-c", "write -P 1 0 400M", &uri];
        let said = try_tool("qemu-io", &write).stdout;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        self.say(&format!("  {said}"));
    }

    fn empty(&mut self) {
        let uri = self.cluster.uri(1 + self.holder as u32, FILLER);
        let discard = ["-f", "raw", "-d", "unmap", "-c", "discard 0 400M", &uri];
        try_tool("qemu-io", &discard);
    }

    /// Ends all faults; all must become well. What the clients saw.
    pub fn heal(mut self, bound: Duration) -> (Told, TestCluster, Option<Network>) {
        let begin = Instant::now();
        sleep(NEWS);
        self.all_run();
        if let Err(error) = self.cluster.wait_healthy(bound, |_| {}) {
            panic!("{error}\n{}", self.cluster.logs());
        }
        self.say(&format!("healthy, {:.1} s after the last fault", begin.elapsed().as_secs_f64()));
        let World { crowd, mut cluster, rotting, counts, network, .. } = self;
        let told = crowd.end(bound);
        let faults: Vec<_> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        println!("  {}", faults.join(", "));
        if let Some(network) = &network {
            println!("  {:?}", network.switched());
        }
        // A lap of the scrub that begins after the last bit has flipped.
        cluster.restart_noticed(rotting);
        let zone = format!("zone-{rotting}");
        let lap = cluster.wait_until(bound, "a lap of the scrub", |status| {
            let found = status.chunkservers.iter().find(|c| c.zone == zone);
            found.is_some_and(|c| {
                c.device_health.last_lap_bytes > 0 && c.device_health.open_repairs == 0
            })
        });
        if let Err(error) = lap.and_then(|_| cluster.wait_healthy(bound, |_| {})) {
            panic!("{error}\n{}", cluster.logs());
        }
        (told, cluster, network)
    }
}
