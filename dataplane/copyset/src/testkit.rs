//! One replica under a hand-written history, for the tests of single rules. Its stores persist at
//! once unless a test keeps the effects back.

use ogive_types::message::{AppendReply, HeartbeatReply, Vote, VoteReply};
use ogive_types::{ChunkserverId, CopysetId, Index, LogPos, ShardAddr, Term, Time};

use crate::mutant::Mutant;
use crate::{
    AppendMeta, Appending, Config, Copyset, Effect, HardState, Priority, Restored, Role, TermRun,
    Timing,
};

pub(crate) const ELECTION_US: u64 = 300_000;

pub(crate) fn addr(at: u32) -> ShardAddr {
    ShardAddr { server: ChunkserverId(at), shard: 0 }
}

pub(crate) fn pos(term: u64, index: u64) -> LogPos {
    LogPos { term: Term(term), index: Index(index) }
}

/// Replica 1 of `voters`, with a log of these terms and a saved term.
pub(crate) fn replica(voters: u32, term: u64, log: &[u64]) -> Copyset {
    let config = Config {
        id: addr(1),
        copyset: CopysetId(1),
        voters: (1..=voters).map(addr).collect(),
        timing: Timing::default(),
        priority: Priority::default(),
        seed: 7,
    };
    let mut terms: Vec<TermRun> = Vec::new();
    for (i, &term) in log.iter().enumerate() {
        if terms.last().is_none_or(|run| run.term != Term(term)) {
            terms.push(TermRun { start: Index(i as u64 + 1), term: Term(term) });
        }
    }
    let last = pos(log.last().copied().unwrap_or(0), log.len() as u64);
    let hard = HardState { term: Term(term), voted_for: None };
    let restored = Restored { hard, terms, last, ..Restored::default() };
    Copyset::new(config, restored, Time(1_000_000))
}

pub(crate) fn mutant(voters: u32, term: u64, log: &[u64], mutant: Mutant) -> Copyset {
    replica(voters, term, log).with_mutant(Some(mutant))
}

pub(crate) fn save(core: &mut Copyset, out: &mut Vec<Effect>) {
    let saves: Vec<HardState> = out.iter().filter_map(saved).collect();
    out.retain(|effect| saved(effect).is_none());
    for hard in saves {
        core.hard_state_persisted(hard, out);
    }
}

fn saved(effect: &Effect) -> Option<HardState> {
    match effect {
        Effect::SaveHardState(hard) => Some(*hard),
        _ => None,
    }
}

/// Lets the replica win an election with the vote of replica 2; its no-op is not yet persisted.
pub(crate) fn elect(core: &mut Copyset) -> Time {
    let now = Time(core.next_deadline().0.max(core.now.0 + 2 * ELECTION_US));
    let mut out = Vec::new();
    core.tick(now, &mut out);
    let term = core.term().next();
    core.on_vote_reply(addr(2), VoteReply { term, granted: true, pre: true }, now, &mut out);
    save(core, &mut out);
    core.on_vote_reply(addr(2), VoteReply { term, granted: true, pre: false }, now, &mut out);
    assert_eq!(core.role(), Role::Leader);
    now
}

pub(crate) fn vote(core: &mut Copyset, from: u32, vote: Vote, now: Time) -> Option<VoteReply> {
    let mut out = Vec::new();
    core.on_vote(addr(from), vote, 9, now, &mut out);
    save(core, &mut out);
    out.iter().find_map(|effect| match effect {
        Effect::VoteReply { reply, token: 9, .. } => Some(*reply),
        _ => None,
    })
}

pub(crate) fn append(
    core: &mut Copyset,
    term: u64,
    prev: LogPos,
    terms: &[u64],
    token: u64,
    out: &mut Vec<Effect>,
) -> Appending {
    let terms: Vec<Term> = terms.iter().map(|&term| Term(term)).collect();
    let (term, commit, sent) = (Term(term), Index(0), Time(5));
    let meta = AppendMeta { term, prev, commit, sent, terms: &terms };
    core.on_append(addr(2), meta, token, core.now, out)
}

/// The answers to appends among the effects, by token.
pub(crate) fn answers(out: &[Effect]) -> Vec<(u64, Result<Index, LogPos>)> {
    let answer = |effect: &Effect| match effect {
        Effect::AppendReply { token, reply, .. } => Some((*token, reply.matched)),
        _ => None,
    };
    out.iter().filter_map(answer).collect()
}

pub(crate) fn matched(core: &mut Copyset, from: u32, index: u64, sent: Time) -> Vec<Effect> {
    let reply = AppendReply { term: core.term(), sent, matched: Ok(Index(index)) };
    let mut out = Vec::new();
    core.on_append_reply(addr(from), reply, core.now, &mut out);
    out
}

pub(crate) fn beat(core: &mut Copyset, from: u32, sent: Time, now: Time) -> Vec<Effect> {
    let reply = HeartbeatReply { term: core.term(), sent, last: Index(0) };
    let mut out = Vec::new();
    core.on_heartbeat_reply(addr(from), reply, now, &mut out);
    out
}
