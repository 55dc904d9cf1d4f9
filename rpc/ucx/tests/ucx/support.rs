//! Two ends in one thread, a handler that notes everything, and checks for leaks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ogive_buf::{Buf, Landing, Pool};
use ogive_ucx::{
    Alive, Completion, Config, ConnRequest, Context, Data, Done, Endpoint, EndpointId, Handler,
    Kept, Mode, Pending, Progress, UcxError, Worker, alive,
};

/// The one kind of message that the tests send.
pub const AM: u16 = 1;
/// A test that waits longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Any port of the loopback device.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tcp,
    Shm,
}

pub const BOTH: [Via; 2] = [Via::Tcp, Via::Shm];

impl Via {
    pub fn config(self) -> Config {
        match self {
            Via::Tcp => Config::new().set("TLS", "tcp,self").set("NET_DEVICES", "lo"),
            Via::Shm => Config::new()
                .set("TLS", "posix,sysv,cma,self")
                .set("POSIX_ERROR_HANDLING", "y")
                .set("SYSV_ERROR_HANDLING", "y"),
        }
        .set("KEEPALIVE_INTERVAL", "200ms")
    }
}

/// Runs `test` for both transports, and checks that it leaves nothing.
pub fn over_both(test: impl Fn(Via)) {
    for via in BOTH {
        test(via);
        assert_eq!(alive(), Alive::default(), "left over by the test over {via:?}");
    }
}

/// One end: a worker with its pool, and what its handler noted.
pub struct End {
    pub worker: Rc<Worker>,
    pub pool: Pool,
    pub seen: Seen,
}

/// What a handler noted.
pub struct Seen {
    worker: Rc<Worker>,
    pool: Pool,
    /// What to do with announced data.
    pub announced: Announced,
    /// Keep eager data beyond the call.
    pub keep: bool,
    pub messages: Vec<(Vec<u8>, Body)>,
    /// Messages that the handler heard of, and the numbers in headers of four bytes.
    pub arrived: usize,
    pub order: Vec<u32>,
    pub done: Vec<Completion>,
    pub failed: Vec<(EndpointId, UcxError)>,
    pub requests: Vec<ConnRequest>,
    pub pending: Vec<(Vec<u8>, Pending)>,
    landing: HashMap<u64, (Vec<u8>, Landing)>,
    next_token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Receive it within the handler's call.
    Receive,
    /// Put it aside.
    Hold,
    /// Drop it within the call.
    Drop,
}

#[derive(Debug)]
pub enum Body {
    Eager(Vec<u8>),
    Kept(Kept),
    Received(Buf),
    Failed(UcxError),
}

impl Body {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Eager(bytes) => bytes,
            Body::Kept(kept) => kept,
            Body::Received(buf) => buf,
            Body::Failed(error) => panic!("not received: {error}"),
        }
    }
}

/// Tokens of receives; those of sends are below.
pub const RECEIVES: u64 = 1 << 32;

impl Seen {
    fn receive(&mut self, header: &[u8], pending: Pending) {
        let len = pending.len();
        let mut landing = self.pool.alloc(len).expect("space").parts();
        let part = landing.take(len).expect("left");
        self.next_token += 1;
        let token = self.next_token;
        match self.worker.receive(pending, part, token) {
            Ok(Progress::Now(part)) => {
                drop(part);
                let buf = landing.finish().expect("no parts");
                self.messages.push((header.to_vec(), Body::Received(buf)));
            }
            Ok(Progress::Later) => {
                self.landing.insert(token, (header.to_vec(), landing));
            }
            Err(error) => self.messages.push((header.to_vec(), Body::Failed(error))),
        }
    }

    pub fn worker_is_idle(&self) -> bool {
        self.worker.operations() == 0
    }

    /// Receives what was put aside.
    pub fn receive_pending(&mut self) {
        for (header, pending) in std::mem::take(&mut self.pending) {
            self.receive(&header, pending);
        }
    }
}

impl Handler for Seen {
    fn message(&mut self, header: &[u8], data: Data<'_>) {
        self.arrived += 1;
        self.order.extend(header.try_into().ok().map(u32::from_le_bytes));
        match data {
            Data::Eager(eager) if self.keep => {
                self.messages.push((header.to_vec(), Body::Kept(eager.keep())));
            }
            Data::Eager(eager) => {
                self.messages.push((header.to_vec(), Body::Eager(eager.to_vec())));
            }
            Data::Rendezvous(pending) => match self.announced {
                Announced::Receive => self.receive(header, pending),
                Announced::Hold => self.pending.push((header.to_vec(), pending)),
                Announced::Drop => drop(pending),
            },
        }
    }

    fn completed(&mut self, done: Completion) {
        if done.token <= RECEIVES {
            self.done.push(done);
            return;
        }
        let (header, landing) = self.landing.remove(&done.token).expect("a known token");
        let Done::Received { into, len } = done.what else { panic!("{done:?}") };
        let body = match done.result {
            Ok(()) => {
                assert_eq!(into.expect("it comes with the data").len(), len);
                Body::Received(landing.finish().expect("all parts are back"))
            }
            Err(error) => Body::Failed(error),
        };
        self.messages.push((header, body));
    }

    fn failed(&mut self, endpoint: EndpointId, error: UcxError) {
        self.failed.push((endpoint, error));
    }

    fn request(&mut self, request: ConnRequest) {
        self.requests.push(request);
    }
}

impl End {
    pub fn new(via: Via) -> End {
        End::with(&via.config())
    }

    pub fn with(config: &Config) -> End {
        let context = Context::new(config, 2).expect("the transport is there");
        let worker = Rc::new(Worker::new(&context).expect("a worker"));
        worker.receive_messages(AM).expect("an id");
        let pool = Pool::new(256 << 20);
        let seen = Seen {
            worker: Rc::clone(&worker),
            pool: pool.clone(),
            announced: Announced::Receive,
            keep: false,
            messages: Vec::new(),
            arrived: 0,
            order: Vec::new(),
            done: Vec::new(),
            failed: Vec::new(),
            requests: Vec::new(),
            pending: Vec::new(),
            landing: HashMap::new(),
            next_token: RECEIVES,
        };
        End { worker, pool, seen }
    }

    pub fn turn(&mut self) -> bool {
        self.worker.progress(&mut self.seen)
    }

    /// A buffer of `len` bytes that tells its place and `seed`.
    pub fn data(&self, len: usize, seed: u64) -> Buf {
        let mut buf = self.pool.alloc(len).expect("space");
        buf.copy_from_slice(&pattern(len, seed));
        buf.freeze()
    }
}

pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Two ends connected by each other's address.
pub fn pair(via: Via) -> (End, End, Endpoint, Endpoint) {
    let (mut a, mut b) = (End::new(via), End::new(via));
    let (to_b, to_a) = connect(&mut a, &mut b, via);
    (a, b, to_b, to_a)
}

/// Connects two ends: over shared memory by address, both at once; over TCP by a listener of `b`.
///
/// By address UCX 1.13.1 uses freed memory over TCP when connections cross, or one is closed with
/// data on its way, which is a mistake of that transport: its loop over ready sockets goes on with
/// an endpoint that a connection request of the same round has just freed.
pub fn connect(a: &mut End, b: &mut End, via: Via) -> (Endpoint, Endpoint) {
    if via == Via::Shm {
        let to_b = a.worker.connect(&b.worker.address().unwrap()).expect("connects");
        let to_a = b.worker.connect(&a.worker.address().unwrap()).expect("connects");
        return (to_b, to_a);
    }
    let listener = b.worker.listen(LOCAL).expect("listens");
    let to_b = a.worker.connect_to(listener.local_addr().unwrap(), None).expect("connects");
    until(a, b, |_, b| b.requests.len() == 1);
    let to_a = b.seen.requests.pop().unwrap().accept().expect("accepts");
    (to_b, to_a)
}

/// Turns both until `done`.
pub fn until(a: &mut End, b: &mut End, done: impl Fn(&Seen, &Seen) -> bool) {
    let begin = Instant::now();
    while !done(&a.seen, &b.seen) {
        a.turn();
        b.turn();
        if begin.elapsed() > HANGS_AFTER {
            panic!(
                "hangs: {:?} with {:?} and {:?} with {:?}",
                a.worker, a.seen.failed, b.worker, b.seen.failed
            );
        }
    }
}

/// Sends and returns true when a completion will follow.
pub fn send(to: &Endpoint, header: &[u8], payload: Option<Buf>, mode: Mode, token: u64) -> bool {
    match to.send(AM, header.to_vec(), payload, mode, token).expect("sends") {
        Progress::Now(back) => {
            assert_eq!(back, header);
            false
        }
        Progress::Later => true,
    }
}
