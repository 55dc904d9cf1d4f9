//! Wakes the reactor by all sources, in random company and at random moments, and waits for every
//! answer. Nothing else goes on while it waits, so a wake-up that is lost stays lost.

use std::io::Write;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ogive_buf::{ARENA_BYTES, Pool};
use ogive_reactor::queue::{Sender, channel};
use ogive_reactor::{PollMode, ReactorConfig, ReactorHandle, now, spawn};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::TcpConfig;
use ogive_rpc::transport::{ConnId, Endpoint, Event, Outgoing, Path, PathChoice, Transport};
use ogive_types::{ClusterId, SessionId};

use crate::board::{Board, Counts, Source};
use crate::random::Random;
use crate::sleeper::{Bed, FILE_BYTES, Mutant, Order, Parts, Sleeper, encode};

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub mode: PollMode,
    pub bed: Bed,
    pub path: Path,
    pub mutant: Option<Mutant>,
    pub sources: &'static [Source],
    /// Sleeps that the reactor must have taken and been woken from.
    pub sleeps: u64,
    /// Random wake-ups with a wait for all their answers; when so many did not lead to `sleeps`,
    /// the reactor does not sleep.
    pub rounds_max: u64,
    /// A wake-up that takes this long is lost.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub rounds: u64,
    /// What was sent to wake it, over all sources; at least one in each round.
    pub stimuli: u64,
    /// Sleeps that the kernel counted.
    pub sleeps: u64,
    /// Turns of the reactor.
    pub turns: u64,
    /// When nothing more came, it slept and did nothing else.
    pub rests: bool,
    pub took: Duration,
}

/// The reactor slept on although these had something for it, and found it when woken by hand.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost(pub Vec<Source>);

pub fn run(plan: &Plan) -> Result<Outcome, Lost> {
    let mut driver = Driver::start(plan);
    let begin = Instant::now();
    let (mut failed, mut rounds) = (None, 0);
    while driver.board.sleeps.load(Ordering::Relaxed) < plan.sleeps && rounds < plan.rounds_max {
        rounds += 1;
        if let Err(lost) = driver.round(plan) {
            failed = Some(lost);
            break;
        }
    }
    let took = begin.elapsed();
    let turns = driver.board.turns.load(Ordering::Relaxed);
    let rests = driver.reactor_rests();
    let Driver { orders, rescue, reactor, pipe, board, sent, .. } = driver;
    let stimuli = Source::ALL.into_iter().map(|s| sent.get(s)).sum();
    // The disk waits for its read, which ends with the pipe.
    drop((orders, pipe));
    // Mutants do not hear that the senders are gone.
    let _ = rescue.try_send(());
    reactor.join().unwrap();
    let sleeps = board.sleeps.load(Ordering::Relaxed);
    failed.map_or(Ok(Outcome { rounds, stimuli, sleeps, turns, rests, took }), Err)
}

struct Driver {
    orders: Sender<Order>,
    rescue: Sender<()>,
    reactor: ReactorHandle,
    pipe: std::io::PipeWriter,
    net: NetTransport,
    conn: ConnId,
    events: Vec<Event>,
    board: Arc<Board>,
    /// What must be answered.
    sent: Counts,
    /// Answers that came back over the connection.
    returned: u64,
    random: Random,
}

impl Driver {
    fn start(plan: &Plan) -> Driver {
        let board = Arc::new(Board::default());
        let (orders, inbox) = channel(64).unwrap();
        let (rescue, called) = channel(1).unwrap();
        let (reader, pipe) = std::io::pipe().unwrap();
        let (bed, mutant) = (plan.bed, plan.mutant);
        let parts = Parts {
            inbox,
            rescue: called,
            file: file(),
            pipe: reader,
            bed,
            mutant,
            board: Arc::clone(&board),
        };
        let (tell, endpoint) = std::sync::mpsc::channel();
        let path = plan.path;
        let config = ReactorConfig { name: "sleeper".into(), core: None, mode: plan.mode };
        let reactor = spawn(config, move || {
            let pool = Pool::new(ARENA_BYTES);
            let net = net(path, true, pool.clone());
            tell.send(net.local_endpoints()[0].clone()).expect("the driver waits");
            Ok::<_, String>(Sleeper::new(parts, net, pool))
        });
        let reactor = reactor.unwrap();
        let mut net = net(path, false, Pool::new(ARENA_BYTES));
        let conn = net.connect(&endpoint.recv().expect("the reactor starts"), now());
        let (events, sent, returned) = Default::default();
        let random = Random(0x9e37_79b9_7f4a_7c15 ^ plan.sleeps);
        let mut driver = Driver {
            orders,
            rescue,
            reactor,
            pipe,
            net,
            conn,
            events,
            board,
            sent,
            returned,
            random,
        };
        while !driver.events.iter().any(|e| matches!(e, Event::Connected { .. })) {
            driver.net.poll(now(), &mut driver.events);
            let closed = driver.events.iter().any(|e| matches!(e, Event::Closed { .. }));
            assert!(!closed, "{:?}", driver.events);
        }
        assert_eq!(driver.net.path(conn), Some(path));
        driver.events.clear();
        driver.board.begun.store(true, Ordering::Relaxed);
        driver
    }

    /// Whether a reactor to which nothing comes sleeps and makes no turns. What is left to do after
    /// the last answer takes a moment, on a busy machine a long one; one that spins never stops.
    fn reactor_rests(&self) -> bool {
        (0..100).any(|_| {
            let before = self.board.turns.load(Ordering::Relaxed);
            (0..10).all(|_| {
                std::thread::sleep(Duration::from_millis(5));
                self.board.sleeps_now() && self.board.turns.load(Ordering::Relaxed) == before
            })
        })
    }

    /// One to three wake-ups, close together; all answers; a pause.
    fn round(&mut self, plan: &Plan) -> Result<(), Lost> {
        let count = 1 + [0, 0, 0, 1, 2][self.random.below(5) as usize];
        for i in 0..count {
            if i > 0 {
                let gap = self.random.below(30_000);
                spin(gap);
            }
            let source = plan.sources[self.random.below(plan.sources.len() as u64) as usize];
            self.fire(source, plan.sources);
        }
        self.wait(plan.patience)?;
        match self.random.below(1000) {
            0..4 => std::thread::sleep(Duration::from_micros(1000 + self.random.below(3000))),
            4..100 => spin(self.random.below(200_000)),
            100..200 => {}
            // Around the edge between the last turn and the sleep.
            _ => spin(self.random.below(80_000)),
        }
        Ok(())
    }

    fn fire(&mut self, source: Source, among: &[Source]) {
        match source {
            Source::Queue => self.order(Order::Answer, false),
            Source::Net => self.order(Order::Answer, true),
            Source::File => {
                let order = Order::Read(self.random.below(FILE_BYTES / 4096));
                self.order_somehow(order, among);
            }
            Source::Timer => {
                let order = Order::Timer(self.random.below(300));
                self.order_somehow(order, among);
            }
            Source::Pipe => self.pipe.write_all(&[7; 4096]).unwrap(),
        }
        if !matches!(source, Source::Queue | Source::Net) {
            self.sent.add(source);
        }
    }

    fn order_somehow(&mut self, order: Order, among: &[Source]) {
        let over_net = !among.contains(&Source::Queue) || self.random.below(2) == 0;
        self.order(order, over_net);
    }

    fn order(&mut self, order: Order, over_net: bool) {
        if !over_net {
            self.sent.add(Source::Queue);
            return self.orders.try_send(order).expect("few at once");
        }
        self.sent.add(Source::Net);
        let id = self.sent.get(Source::Net);
        let (kind, response, deadline_ms, payload) = (16, false, 0, Vec::new());
        let frame = Outgoing { kind, response, id, deadline_ms, body: encode(order), payload };
        self.net.send(self.conn, frame, now());
        self.net.flush(now());
    }

    /// Until everything sent is answered.
    fn wait(&mut self, patience: Duration) -> Result<(), Lost> {
        if self.answered_within(patience) {
            return Ok(());
        }
        let missing: Vec<Source> = Source::ALL.into_iter().filter(|&s| self.misses(s)).collect();
        self.rescue.try_send(()).expect("the reactor lives");
        assert!(self.answered_within(patience), "{missing:?} did not come at all");
        Err(Lost(missing))
    }

    fn misses(&self, source: Source) -> bool {
        let sent = self.sent.get(source);
        let returned = if source == Source::Net { self.returned } else { sent };
        self.board.answers.get(source) < sent || returned < sent
    }

    fn answered_within(&mut self, patience: Duration) -> bool {
        let (mut looks, mut deadline) = (0u64, None);
        while Source::ALL.into_iter().any(|s| self.misses(s)) {
            self.net.poll(now(), &mut self.events);
            self.net.flush(now());
            for event in self.events.drain(..) {
                assert!(matches!(event, Event::Received { .. }), "{event:?}");
                self.returned += 1;
            }
            looks += 1;
            if looks > 500 {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                if Instant::now() > deadline {
                    return false;
                }
                std::thread::yield_now();
            }
        }
        true
    }
}

fn spin(ns: u64) {
    let until = Instant::now() + Duration::from_nanos(ns);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// A transport whose own timers are far away, so that none of them wakes the reactor.
fn net(path: Path, listens: bool, pool: Pool) -> NetTransport {
    let hello = Hello {
        cluster: ClusterId(1),
        identity: Identity::Client { session: SessionId(1) },
        features: 0,
        token: Vec::new(),
        credit_requests: 64,
        credit_bytes: 1 << 20,
    };
    let mut tcp = TcpConfig::new(hello, pool);
    tcp.timing.ping_after = Duration::from_secs(3600);
    tcp.timing.silent_after = Duration::from_secs(7200);
    if listens {
        tcp.listen = vec![Endpoint("tcp:127.0.0.1:0".into())];
    }
    let choice = PathChoice::Only(path);
    NetTransport::new(NetConfig { tcp, choice }).unwrap()
}

/// A file whose reads go to the device, and so end later, where the file system allows that.
fn file() -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path: &FilePath = &dir.path().join("device");
    std::fs::write(path, vec![1; FILE_BYTES as usize]).unwrap();
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    let mut options = std::fs::OpenOptions::new();
    let direct = options.read(true).custom_flags(libc::O_DIRECT).open(path);
    direct.unwrap_or_else(|_| std::fs::File::open(path).unwrap())
}
