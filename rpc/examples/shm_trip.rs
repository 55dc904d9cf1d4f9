//! What each layer adds to a round trip over shared memory, between two threads that spin.
//!
//! ```text
//! cargo run --release -p ogive-rpc --features ucx --example shm_trip [-- ROUNDS [WORD...]]
//! ```
//!
//! From below: one cache line that goes back and forth; an active message of UCX whose data nobody
//! looks at, which is what `ucx_perftest` measures; the same with the data copied out, as every
//! receiver must; a lane; the transport, without and with a clock that is read in every turn. The
//! words choose among them by name, or by name and data (`lane`, `lane-4096`); `work`
//! leaves the threads out, for a profile.
//!
//! All take turns of a millisecond, and before each the cache line is timed. On a virtual machine
//! that is what tells a change of the program from a move of the processors: it takes 50 ns between
//! threads of one core, 150 ns within a chiplet, 500 ns and more between chiplets, and the host
//! changes that as it likes. So the figures are listed by that distance, each the median of its
//! turns, in nanoseconds. `work` is what both ends do for a trip, taking turns in one thread.
#![allow(clippy::disallowed_methods)] // measures, with threads and clocks of its own

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ogive_buf::{Buf, BufMut, Pool};
use ogive_rpc::hello::{Hello, Identity};
use ogive_rpc::transport::lane::{Lane, LaneConfig, LaneEvent};
use ogive_rpc::transport::net::{NetConfig, NetTransport};
use ogive_rpc::transport::tcp::{TcpConfig, Timing};
use ogive_rpc::transport::{
    ConnId, Endpoint as Address, Event, Incoming, Outgoing, Path, PathChoice, Transport, ucx,
};
use ogive_types::{ClusterId, SessionId, Time};
use ogive_ucx::{
    Completion, Config, Context, Data, Endpoint, EndpointId, Handler, Mode, Progress, UcxError,
    Worker,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const AM: u16 = 1;
const CONN: ConnId = ConnId(1);
const KIND: u8 = 16;
/// Length of a turn, and of a look at the distance.
const TURN: Duration = Duration::from_millis(1);
const LOOK: Duration = Duration::from_micros(50);
/// Trips between two looks at the clock.
const BATCH: u32 = 50;
/// What is measured.
const CASES: [Case; 11] = [
    Case { name: "line", layer: Layer::Line, body: 0, data: 0 },
    Case { name: "message", layer: Layer::Message { read: false }, body: 0, data: 64 },
    Case { name: "message", layer: Layer::Message { read: false }, body: 0, data: 4096 },
    Case { name: "message-read", layer: Layer::Message { read: true }, body: 136, data: 0 },
    Case { name: "message-read", layer: Layer::Message { read: true }, body: 120, data: 4096 },
    Case { name: "lane", layer: Layer::Lane, body: 64, data: 0 },
    Case { name: "lane", layer: Layer::Lane, body: 48, data: 4096 },
    Case { name: "net", layer: Layer::Net { clock: false }, body: 64, data: 0 },
    Case { name: "net", layer: Layer::Net { clock: false }, body: 48, data: 4096 },
    Case { name: "net-clock", layer: Layer::Net { clock: true }, body: 64, data: 0 },
    Case { name: "net-clock", layer: Layer::Net { clock: true }, body: 48, data: 4096 },
];

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    layer: Layer,
    /// Bytes of the body; of a message its header, as long as a lane's with that body.
    body: usize,
    data: usize,
}

#[derive(Clone, Copy)]
enum Layer {
    /// A cache line.
    Line,
    /// Active messages.
    Message {
        /// The receiver copies the data.
        read: bool,
    },
    Lane,
    Net {
        /// The clock is read in every turn.
        clock: bool,
    },
}

/// A word on cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

static PING: Line = Line(AtomicU64::new(0));
static PONG: Line = Line(AtomicU64::new(0));
/// Case that is being measured, and what the other end is ready for.
static WANTED: Line = Line(AtomicU64::new(0));
static READY: Line = Line(AtomicU64::new(u64::MAX));
const DONE: u64 = u64::MAX - 1;

/// What the ends tell each other at the beginning.
struct Hi {
    worker: Vec<u8>,
    lane: Vec<u8>,
    key: u64,
    listens: Option<Address>,
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // Where it is not allowed the system places the threads, and the figures spread.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// All layers of one end.
struct End {
    start: Instant,
    worker: Worker,
    heard: Heard,
    /// Dropped before the worker it belongs to.
    to: Option<Endpoint>,
    spare: Vec<u8>,
    lane: Box<dyn Lane>,
    lane_events: Vec<LaneEvent>,
    net: NetTransport,
    conn: Option<ConnId>,
    probed: bool,
    events: Vec<Event>,
    pool: Pool,
}

struct Heard {
    messages: u64,
    read: bool,
    into: BufMut,
    failed: Option<UcxError>,
}

impl Handler for Heard {
    fn message(&mut self, header: &[u8], data: Data<'_>) {
        if let (true, Data::Eager(bytes)) = (self.read, &data) {
            self.into[..bytes.len()].copy_from_slice(bytes);
            self.into[4096..4096 + header.len()].copy_from_slice(header);
        }
        self.messages += 1;
    }

    fn completed(&mut self, _: Completion) {}

    fn failed(&mut self, _: EndpointId, error: UcxError) {
        self.failed = Some(error);
    }
}

impl End {
    fn new(listen: bool) -> Result<End> {
        let pool = Pool::new(16 << 20);
        let config = Config::new().set("TLS", "posix,cma,self").set("POSIX_ERROR_HANDLING", "y");
        let worker = Worker::new(&Context::new(&config, 2)?)?;
        worker.receive_messages(AM)?;
        let into = pool.alloc(8192).ok_or("no buffer")?;
        let lane =
            LaneConfig { pool: Pool::new(16 << 20), timing: Timing::default(), connections_max: 2 };
        let hello = Hello {
            cluster: ClusterId(1),
            identity: Identity::Client { session: SessionId(1) },
            features: 0,
            token: Vec::new(),
            credit_requests: 64,
            credit_bytes: 1 << 20,
        };
        let mut tcp = TcpConfig::new(hello, Pool::new(16 << 20));
        tcp.listen.extend(listen.then(|| Address("tcp:127.0.0.1:0".into())));
        Ok(End {
            start: Instant::now(),
            worker,
            heard: Heard { messages: 0, read: false, into, failed: None },
            to: None,
            spare: Vec::new(),
            lane: ucx::open(Path::Shm, &lane)?,
            lane_events: Vec::new(),
            net: NetTransport::new(NetConfig { tcp, choice: PathChoice::Only(Path::Shm) })?,
            conn: None,
            probed: false,
            events: Vec::new(),
            pool,
        })
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// What the other end needs in order to connect.
    fn hi(&mut self) -> Result<Hi> {
        let listens = self.net.local_endpoints().first().cloned();
        let key = self.lane.open(CONN);
        let (worker, lane) = (self.worker.address()?, self.lane.address().to_vec());
        Ok(Hi { worker, lane, key, listens })
    }

    /// Begins to connect all layers.
    fn attach(&mut self, hi: &Hi) -> Result<()> {
        self.to = Some(self.worker.connect(&hi.worker)?);
        self.lane.attach(CONN, &hi.lane, hi.key, self.now())?;
        self.lane.probe(CONN, self.now());
        if let Some(to) = &hi.listens {
            self.net.connect(to, self.now());
        }
        Ok(())
    }

    /// True once all layers are connected.
    fn met(&mut self) -> Result<bool> {
        let now = self.now();
        self.lane.poll(now, &mut self.lane_events);
        self.probed |= !self.lane_events.is_empty();
        self.lane_events.clear();
        self.net.poll(now, &mut self.events);
        self.net.flush(now);
        for event in self.events.drain(..) {
            match event {
                Event::Connected { conn, .. } => self.conn = Some(conn),
                event => return Err(format!("{event:?}").into()),
            }
        }
        Ok(self.conn.is_some() && self.probed)
    }

    fn send_message(&mut self, header: usize, data: Option<Buf>) -> Result<()> {
        let mut head = std::mem::take(&mut self.spare);
        head.resize(header, 7);
        let to = self.to.as_ref().ok_or("not connected")?;
        if let Progress::Now(header) = to.send(AM, head, data, Mode::Eager, 0)? {
            self.spare = header;
        }
        Ok(())
    }

    /// One message from the other end, if there is one.
    fn hear_message(&mut self) -> Result<bool> {
        let before = self.heard.messages;
        self.worker.progress(&mut self.heard);
        match self.heard.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(self.heard.messages > before),
        }
    }

    fn hear_lane(&mut self, now: Time) -> Result<Option<Incoming>> {
        self.lane.poll(now, &mut self.lane_events);
        match self.lane_events.pop() {
            None => Ok(None),
            Some(LaneEvent::Received { frame, .. }) => Ok(Some(frame)),
            Some(event) => Err(format!("{event:?}").into()),
        }
    }

    fn hear_net(&mut self, now: Time) -> Result<Option<Incoming>> {
        self.net.flush(now);
        self.net.poll(now, &mut self.events);
        match self.events.pop() {
            None => Ok(None),
            Some(Event::Received { frame, .. }) => Ok(Some(frame)),
            Some(event) => Err(format!("{event:?}").into()),
        }
    }

    /// Answers in one case until another is wanted.
    fn serve(&mut self, index: u64, case: &Case) -> Result<()> {
        let now = self.now();
        let data = self.prepare(case)?;
        let mut pings = PING.0.load(Ordering::Acquire);
        READY.0.store(index, Ordering::Release);
        while WANTED.0.load(Ordering::Relaxed) == index {
            match case.layer {
                Layer::Line => answer_line(&mut pings),
                _ => _ = self.answer(case, &data, now)?,
            }
        }
        Ok(())
    }

    /// The data of a case.
    fn prepare(&mut self, case: &Case) -> Result<Option<Buf>> {
        self.heard.read = matches!(case.layer, Layer::Message { read: true });
        if case.data == 0 {
            return Ok(None);
        }
        Ok(Some(self.pool.alloc_zeroed(case.data).ok_or("no buffer")?.freeze()))
    }

    /// Answers if there is something to be answered.
    fn answer(&mut self, case: &Case, data: &Option<Buf>, now: Time) -> Result<bool> {
        match case.layer {
            Layer::Line => return Ok(true),
            Layer::Message { .. } => {
                let heard = self.hear_message()?;
                if heard {
                    self.send_message(case.body, data.clone())?;
                }
                return Ok(heard);
            }
            Layer::Lane => {
                let Some(frame) = self.hear_lane(now)? else { return Ok(false) };
                self.lane.send(CONN, answer(frame), now);
            }
            Layer::Net { clock } => {
                let now = if clock { self.now() } else { now };
                let Some(frame) = self.hear_net(now)? else { return Ok(false) };
                self.net.send(self.conn.ok_or("not connected")?, answer(frame), now);
            }
        }
        Ok(true)
    }

    fn request(&mut self, case: &Case, data: &Option<Buf>, body: &[u8], now: Time) -> Result<()> {
        match case.layer {
            Layer::Line => {}
            Layer::Message { .. } => self.send_message(case.body, data.clone())?,
            Layer::Lane => self.lane.send(CONN, request(body, data), now),
            Layer::Net { .. } => {
                self.net.send(self.conn.ok_or("not connected")?, request(body, data), now);
            }
        }
        Ok(())
    }

    /// True when the answer is there.
    fn answered(&mut self, case: &Case, now: Time) -> Result<bool> {
        Ok(match case.layer {
            Layer::Line => true,
            Layer::Message { .. } => self.hear_message()?,
            Layer::Lane => self.hear_lane(now)?.is_some(),
            Layer::Net { clock } => self.hear_net(if clock { self.now() } else { now })?.is_some(),
        })
    }

    /// One round trip.
    fn trip(&mut self, case: &Case, data: &Option<Buf>, body: &[u8], now: Time) -> Result<()> {
        if let Layer::Line = case.layer {
            line_trip();
            return Ok(());
        }
        self.request(case, data, body, now)?;
        while !self.answered(case, now)? {}
        Ok(())
    }

    /// Asks in one case for one turn; nanoseconds of a trip.
    fn ask(&mut self, index: usize, turn: Duration) -> Result<f64> {
        let case = &CASES[index];
        call(index as u64);
        let (data, body) = (self.prepare(case)?, vec![7; case.body]);
        let mut batches = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < turn {
            let (now, batch) = (self.now(), Instant::now());
            for _ in 0..BATCH {
                self.trip(case, &data, &body, now)?;
            }
            batches.push(batch.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
        Ok(median(&mut batches).unwrap_or(f64::NAN))
    }
}

fn request(body: &[u8], data: &Option<Buf>) -> Outgoing {
    let (body, payload) = (body.to_vec(), data.iter().cloned().collect());
    Outgoing { kind: KIND, response: false, id: 1, deadline_ms: 0, body, payload }
}

fn answer(frame: Incoming) -> Outgoing {
    let (body, payload) = (frame.body, frame.payload.into_iter().collect());
    Outgoing { kind: KIND, response: true, id: frame.id, deadline_ms: 0, body, payload }
}

fn answer_line(pings: &mut u64) {
    let seen = PING.0.load(Ordering::Acquire);
    if seen != *pings {
        *pings = seen;
        PONG.0.store(seen, Ordering::Release);
    }
}

fn line_trip() {
    let next = PING.0.load(Ordering::Relaxed) + 1;
    PING.0.store(next, Ordering::Release);
    while PONG.0.load(Ordering::Acquire) != next {}
}

/// Has the other end serve a case.
fn call(index: u64) {
    WANTED.0.store(index, Ordering::Release);
    while READY.0.load(Ordering::Acquire) != index {}
}

fn median(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// Index of the distance of the two processors, and its name.
fn distance(line_ns: f64) -> usize {
    [100.0, 350.0].iter().filter(|&&least| line_ns >= least).count()
}

const COLUMNS: [&str; 4] = ["work", "core", "chiplet", "far"];

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().map_or(Ok(200), |text| text.parse())?;
    let words: Vec<String> = args.collect();
    let chosen: Vec<usize> = (0..CASES.len())
        .filter(|&index| {
            let case = &CASES[index];
            let sized = format!("{}-{}", case.name, case.data);
            words.iter().all(|word| word == "work")
                || words.iter().any(|word| *word == case.name || *word == sized)
        })
        .collect();
    let mut found: Vec<[Vec<f64>; 4]> = CASES.iter().map(|_| Default::default()).collect();
    work(rounds, &chosen, &mut found)?;
    if !words.iter().any(|word| word == "work") {
        trips(rounds, &chosen, &mut found)?;
    }
    report(&mut found);
    Ok(())
}

/// Round trips of two threads, by the distance of their processors.
fn trips(rounds: usize, chosen: &[usize], found: &mut [[Vec<f64>; 4]]) -> Result<()> {
    let (tell, heard) = channel();
    let (say, hear) = channel();
    let other = std::thread::spawn(move || {
        pin(1);
        let mut end = End::new(true).expect("the other end");
        say.send(end.hi().expect("addresses")).expect("the asking end");
        end.attach(&heard.recv().expect("the asking end")).expect("connections");
        while !end.met().expect("connections") {}
        loop {
            match WANTED.0.load(Ordering::Acquire) {
                DONE => return,
                index => end.serve(index, &CASES[index as usize]).expect("answers"),
            }
        }
    });
    pin(0);
    let mut end = End::new(false)?;
    tell.send(end.hi()?)?;
    end.attach(&hear.recv()?)?;
    while !end.met()? {}
    for _ in 0..rounds {
        for &index in chosen {
            let before = distance(end.ask(0, LOOK)?);
            let trip = end.ask(index, TURN)?;
            if distance(end.ask(0, LOOK)?) == before {
                found[index][1 + before].push(trip);
            }
        }
    }
    WANTED.0.store(DONE, Ordering::Release);
    other.join().map_err(|_| "the other end broke")?;
    Ok(())
}

/// What both ends have to do for a trip: they take turns in one thread, and nobody waits.
fn work(rounds: usize, chosen: &[usize], found: &mut [[Vec<f64>; 4]]) -> Result<()> {
    let (mut one, mut two) = (End::new(true)?, End::new(false)?);
    let (hi, hello) = (one.hi()?, two.hi()?);
    one.attach(&hello)?;
    two.attach(&hi)?;
    while !(one.met()? & two.met()?) {}
    for _ in 0..rounds {
        for &index in chosen {
            let case = &CASES[index];
            let (data, body) = (one.prepare(case)?, vec![7; case.body]);
            let reply = two.prepare(case)?;
            let (now, trips) = (one.now(), 10 * BATCH);
            let begin = Instant::now();
            for _ in 0..trips {
                one.request(case, &data, &body, now)?;
                // Both are looked at, for UCX may have to say more before the first message goes.
                while {
                    two.answer(case, &reply, now)?;
                    !one.answered(case, now)?
                } {}
            }
            found[index][0].push(begin.elapsed().as_nanos() as f64 / f64::from(trips));
        }
    }
    Ok(())
}

fn report(found: &mut [[Vec<f64>; 4]]) {
    print!("{:<14} {:>5} {:>5}", "layer", "body", "data");
    COLUMNS.iter().for_each(|name| print!(" {name:>10} turns"));
    println!();
    for (case, turns) in CASES.iter().zip(found) {
        if turns.iter().all(Vec::is_empty) {
            continue;
        }
        print!("{:<14} {:>5} {:>5}", case.name, case.body, case.data);
        for turns in turns {
            let count = turns.len();
            let text = median(turns).map_or_else(|| "-".into(), |ns| format!("{ns:.0}"));
            print!(" {text:>10} {count:>5}");
        }
        println!();
    }
}
