//! Two ends and all that can happen between them, searched exhaustively.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const CONNECTOR: usize = 0;
const ACCEPTOR: usize = 1;

/// What is under way over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wire {
    Frame(PathFrame),
    Traffic,
    End,
}

/// What is under way over a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OnLane {
    Probe,
    Traffic,
}

/// One end: its state machine, and what its owner saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct End {
    machine: Negotiation,
    connected: Option<Path>,
    closed: bool,
    /// Lanes that are open, and whether they are attached.
    open: [bool; 2],
    attached: [bool; 2],
    tcp: VecDeque<Wire>,
    lanes: [VecDeque<OnLane>; 2],
    may_send: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    ends: [End; 2],
    /// How many more times something may go wrong.
    faults: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Tcp(usize),
    Lane(usize, Path),
    Send(usize),
    Lose(usize, Path),
    Break(usize, Path),
    Timeout(usize),
}

fn path_of(index: usize) -> Path {
    LANE_PATHS[index]
}

impl World {
    fn new(choices: [PathChoice; 2], plans: [[Plan; 2]; 2], faults: usize) -> Vec<World> {
        let mut effects = [Vec::new(), Vec::new()];
        let roles = [Role::Connector, Role::Acceptor];
        let mut end = |i: usize| End {
            machine: Negotiation::new(
                roles[i],
                choices[i],
                plans[i].clone(),
                Time(0),
                &mut effects[i],
            ),
            connected: None,
            closed: false,
            open: [false; 2],
            attached: [false; 2],
            tcp: VecDeque::new(),
            lanes: Default::default(),
            may_send: true,
        };
        let world = World { ends: [end(0), end(1)], faults };
        let [first, second] = effects;
        let after = world.apply(CONNECTOR, first.into());
        after.into_iter().flat_map(|w| w.apply(ACCEPTOR, second.clone().into())).collect()
    }

    fn say(&mut self, from: usize, frame: PathFrame) {
        // Over the real codec, whose rules an honest end must keep.
        let frame = PathFrame::decode(&frame.encode()).expect("an honest frame");
        self.ends[1 - from].tcp.push_back(Wire::Frame(frame));
    }

    /// The worlds after the effects of one end; more than one, for attaching may fail.
    fn apply(mut self, i: usize, mut effects: VecDeque<Effect>) -> Vec<World> {
        let key = i as u64;
        while let Some(effect) = effects.pop_front() {
            assert!(!self.ends[i].closed, "nothing follows the end: {effect:?}");
            match effect {
                Effect::Propose(path) => {
                    assert!(!self.ends[i].open[path as usize]);
                    self.ends[i].open[path as usize] = true;
                    self.say(i, PathFrame::Propose { path, address: vec![1], key });
                }
                Effect::Attach { path, key: theirs, .. } => {
                    assert_eq!(theirs, 1 - key);
                    return self.attach(i, path, effects);
                }
                Effect::Accept(path) => {
                    self.say(i, PathFrame::Accept { path, address: vec![2], key });
                }
                Effect::Probe(path) => self.over_lane(i, path, OnLane::Probe),
                Effect::Decline { path, why } => self.say(i, PathFrame::decline(path, &why)),
                Effect::Use(path) => self.say(i, PathFrame::Use { path }),
                Effect::Drop(path) => {
                    let end = &mut self.ends[i];
                    assert!(std::mem::take(&mut end.open[path as usize]), "{path} dropped twice");
                    end.attached[path as usize] = false;
                    end.lanes[path as usize].clear();
                }
                Effect::Failed { .. } => assert_eq!(i, CONNECTOR),
                Effect::Connected(path) => {
                    assert_eq!(self.ends[i].connected, None, "connected twice");
                    assert_eq!(self.ends[i].machine.path(), Some(path));
                    self.ends[i].connected = Some(path);
                }
                Effect::Close(reason) => {
                    let late = reason.to_string().contains("no path chosen within");
                    let honest = late || !matches!(reason, CloseReason::Protocol(_));
                    assert!(honest, "an honest end was blamed: {reason}");
                    self.close(i);
                }
            }
        }
        vec![self]
    }

    fn attach(mut self, i: usize, path: Path, rest: VecDeque<Effect>) -> Vec<World> {
        assert!(rest.is_empty(), "Attach is the last effect, its outcome decides what follows");
        self.ends[i].open[path as usize] = true;
        let mut worlds = Vec::new();
        if self.faults > 0 {
            let mut failed = self.clone();
            failed.faults -= 1;
            let reason = CloseReason::System("cannot attach".into());
            worlds.extend(failed.input(i, Input::Failed { path, reason }));
        }
        self.ends[i].attached[path as usize] = true;
        worlds.extend(self.input(i, Input::Attached));
        worlds
    }

    fn over_lane(&mut self, from: usize, path: Path, what: OnLane) {
        assert!(self.ends[from].attached[path as usize]);
        // A lane drops what is for a connection that it does not know.
        if self.ends[1 - from].open[path as usize] {
            self.ends[1 - from].lanes[path as usize].push_back(what);
        }
    }

    fn close(&mut self, i: usize) {
        let end = &mut self.ends[i];
        assert_eq!(end.open, [false; 2], "lanes are closed first");
        end.closed = true;
        end.tcp.clear();
        self.ends[1 - i].tcp.push_back(Wire::End);
    }

    fn input(mut self, i: usize, input: Input) -> Vec<World> {
        let mut effects = Vec::new();
        self.ends[i].machine.on(input, Time(0), &mut effects);
        self.apply(i, effects.into())
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for i in [CONNECTOR, ACCEPTOR] {
            let end = &self.ends[i];
            if end.closed {
                continue;
            }
            if !end.tcp.is_empty() {
                steps.push(Step::Tcp(i));
            }
            if end.may_send && end.connected.is_some() {
                steps.push(Step::Send(i));
            }
            for (index, lane) in end.lanes.iter().enumerate() {
                if !lane.is_empty() {
                    steps.push(Step::Lane(i, path_of(index)));
                    // What is lost in use breaks the lane, it does not vanish.
                    if self.faults > 0 && lane.front() == Some(&OnLane::Probe) {
                        steps.push(Step::Lose(i, path_of(index)));
                    }
                }
                if self.faults > 0 && end.attached[index] {
                    steps.push(Step::Break(i, path_of(index)));
                }
            }
            if self.faults > 0 && end.machine.deadline() != Time::NEVER {
                steps.push(Step::Timeout(i));
            }
        }
        // When nothing is under way any more, time passes; the connector's deadline is the earlier.
        let waits =
            |&i: &usize| !self.ends[i].closed && self.ends[i].machine.deadline() != Time::NEVER;
        if steps.is_empty() {
            steps.extend([CONNECTOR, ACCEPTOR].into_iter().find(waits).map(Step::Timeout));
        }
        steps
    }

    fn take(mut self, step: Step) -> Vec<World> {
        match step {
            Step::Tcp(i) => match self.ends[i].tcp.pop_front().expect("a step") {
                Wire::Frame(frame) => self.input(i, Input::Frame(frame)),
                Wire::Traffic => self.input(i, Input::Traffic { path: Path::Tcp }),
                Wire::End => {
                    let open = std::mem::take(&mut self.ends[i].open);
                    let lane = self.ends[i].machine.lane();
                    assert_eq!(open.map(usize::from).iter().sum::<usize>(), lane.iter().count());
                    self.ends[i].lanes = Default::default();
                    self.ends[i].attached = [false; 2];
                    self.ends[i].closed = true;
                    vec![self]
                }
            },
            Step::Lane(i, path) => {
                match self.ends[i].lanes[path as usize].pop_front().expect("a step") {
                    OnLane::Probe => self.input(i, Input::Probed { path }),
                    OnLane::Traffic => self.input(i, Input::Traffic { path }),
                }
            }
            Step::Send(i) => {
                self.ends[i].may_send = false;
                match self.ends[i].connected.expect("a step") {
                    Path::Tcp => self.ends[1 - i].tcp.push_back(Wire::Traffic),
                    path => self.over_lane(i, path, OnLane::Traffic),
                }
                vec![self]
            }
            Step::Lose(i, path) => {
                self.faults -= 1;
                self.ends[i].lanes[path as usize].pop_front();
                vec![self]
            }
            Step::Break(i, path) => {
                self.faults -= 1;
                self.ends[i].lanes[path as usize].clear();
                self.ends[i].attached[path as usize] = false;
                self.input(i, Input::Failed { path, reason: CloseReason::Silent(4000) })
            }
            Step::Timeout(i) => {
                self.faults = self.faults.saturating_sub(1);
                self.input(i, Input::Timeout)
            }
        }
    }
}

/// Visits every world that can come out of the first ones, and returns those in which nothing more
/// happens. How many were seen, too.
fn search(first: Vec<World>) -> (Vec<World>, usize) {
    let mut seen: HashSet<World> = HashSet::new();
    let mut todo = first;
    let mut last = Vec::new();
    while let Some(world) = todo.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let steps = world.steps();
        if steps.is_empty() {
            last.push(world);
            continue;
        }
        todo.extend(steps.into_iter().flat_map(|step| world.clone().take(step)));
    }
    (last, seen.len())
}

fn skip() -> Plan {
    Plan::Skip("not now".into())
}

fn cannot() -> Plan {
    Plan::Cannot("no".into())
}

/// How it ended, when it ended well.
fn agreed(world: &World) -> Result<Path, ()> {
    match [&world.ends[0], &world.ends[1]].map(|end| (end.closed, end.connected)) {
        [(false, Some(a)), (false, Some(b))] if a == b => Ok(a),
        [(true, _), (true, _)] => Err(()),
        other => panic!("the ends disagree: {other:?}"),
    }
}

/// What connector and acceptor intend, and what they take when nothing goes wrong.
type Intent = ([PathChoice; 2], [[Plan; 2]; 2], Result<Path, ()>);

fn intents() -> Vec<Intent> {
    let t = || Plan::Try;
    let auto = [PathChoice::Auto; 2];
    let only = |path| [PathChoice::Only(path), PathChoice::Auto];
    let only_there = |path| [PathChoice::Auto, PathChoice::Only(path)];
    vec![
        (auto, [[t(), t()], [t(), t()]], Ok(Path::Rdma)),
        (auto, [[cannot(), t()], [cannot(), t()]], Ok(Path::Shm)),
        (auto, [[skip(), t()], [t(), t()]], Ok(Path::Shm)),
        (auto, [[skip(), skip()], [t(), t()]], Ok(Path::Tcp)),
        (auto, [[t(), t()], [skip(), t()]], Ok(Path::Shm)),
        (auto, [[t(), t()], [skip(), skip()]], Ok(Path::Tcp)),
        (auto, [[t(), t()], [cannot(), cannot()]], Ok(Path::Tcp)),
        (auto, [[cannot(), cannot()], [cannot(), cannot()]], Ok(Path::Tcp)),
        (only(Path::Shm), [[cannot(), t()], [t(), t()]], Ok(Path::Shm)),
        (only(Path::Shm), [[cannot(), t()], [t(), cannot()]], Err(())),
        (only_there(Path::Rdma), [[t(), t()], [t(), cannot()]], Ok(Path::Rdma)),
        (only_there(Path::Rdma), [[skip(), t()], [t(), cannot()]], Err(())),
    ]
}

#[test]
fn without_faults_the_best_shared_path_is_taken_in_every_order() {
    for (choices, plans, expected) in intents() {
        let (last, _) = search(World::new(choices, plans.clone(), 0));
        assert!(!last.is_empty());
        for world in last {
            assert_eq!(agreed(&world), expected, "{choices:?} {plans:?}");
        }
    }
}

#[test]
fn whatever_goes_wrong_both_ends_agree_or_both_close() {
    for (choices, plans, _) in intents() {
        let (last, seen) = search(World::new(choices, plans.clone(), 2));
        let ways: HashSet<_> = last.iter().map(agreed).collect();
        assert!(!ways.is_empty() && seen > 1, "{choices:?} {plans:?}");
        if choices == [PathChoice::Auto; 2] && plans[0] == [Plan::Try, Plan::Try] {
            assert!(ways.contains(&Ok(Path::Tcp)), "the search reaches the last resort");
            assert!(ways.contains(&Err(())), "and paths that break in use");
        }
    }
}

fn any_frame() -> impl Strategy<Value = PathFrame> {
    let lane = || prop::sample::select(&LANE_PATHS[..]);
    prop_oneof![
        lane().prop_map(|path| PathFrame::Propose { path, address: vec![1], key: 1 }),
        lane().prop_map(|path| PathFrame::Accept { path, address: vec![1], key: 1 }),
        lane().prop_map(|path| PathFrame::decline(path, "no")),
        prop::sample::select(&Path::ALL[..]).prop_map(|path| PathFrame::Use { path }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let path = || prop::sample::select(&Path::ALL[..]);
    let lane = || prop::sample::select(&LANE_PATHS[..]);
    prop_oneof![
        4 => any_frame().prop_map(Input::Frame),
        1 => lane().prop_map(|path| Input::Failed { path, reason: CloseReason::Peer }),
        1 => lane().prop_map(|path| Input::Probed { path }),
        1 => path().prop_map(|path| Input::Traffic { path }),
        1 => Just(Input::Timeout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever a peer says: one report at most, lanes opened and closed in pairs, a final end.
    #[test]
    fn no_peer_confuses_an_end(
        acceptor in any::<bool>(),
        inputs in prop::collection::vec(any_input(), 1..12),
    ) {
        let role = if acceptor { Role::Acceptor } else { Role::Connector };
        let mut out = Vec::new();
        let plans = [Plan::Try, Plan::Try];
        let mut machine =
            Negotiation::new(role, PathChoice::Auto, plans, Time(0), &mut out);
        let (mut open, mut ups, mut over) = ([false; 2], 0, false);
        for input in inputs {
            machine.on(input, Time(0), &mut out);
            while !out.is_empty() {
                let effect = out.remove(0);
                prop_assert!(!over);
                match effect {
                    Effect::Propose(path) => {
                        prop_assert!(!std::mem::replace(&mut open[path as usize], true));
                    }
                    Effect::Attach { path, .. } => {
                        let was = std::mem::replace(&mut open[path as usize], true);
                        prop_assert_eq!(was, !acceptor);
                        machine.on(Input::Attached, Time(0), &mut out);
                    }
                    Effect::Drop(path) => {
                        prop_assert!(std::mem::take(&mut open[path as usize]));
                    }
                    Effect::Connected(path) => {
                        ups += 1;
                        prop_assert_eq!(machine.path(), Some(path));
                    }
                    Effect::Close(_) => over = true,
                    _ => {}
                }
            }
        }
        prop_assert!(ups <= 1);
        let lanes = open.iter().filter(|open| **open).count();
        prop_assert_eq!(lanes, usize::from(!over && machine.lane().is_some()));
        prop_assert!(!over || (machine.path().is_none() && machine.deadline() == Time::NEVER));
    }
}
