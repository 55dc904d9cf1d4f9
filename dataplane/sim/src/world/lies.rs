//! Known bugs, put in by an environment that lies; and messages in words.

use ogive_rpc::transport::{Event as NetEvent, Incoming, Outgoing};
use ogive_types::message::{
    AppendReply, IoReply, IoRequest, Kind, ReplicaReply, ReplicaRequest, decode, encode,
};
use ogive_types::{Incarnation, Index, ShardAddr};

use super::World;
use crate::net::Party;
use crate::options::Mutant;

impl World {
    /// What a shard is told in place of an event.
    pub(super) fn lie_to(&mut self, addr: ShardAddr, event: NetEvent) -> NetEvent {
        let Some(mutant) = self.options.mutant else { return event };
        let NetEvent::Received { conn, mut frame } = event else { return event };
        match (Kind::from_byte(frame.kind), frame.response) {
            (Some(Kind::Io), false) => self.lie_about_fence(addr, mutant, &mut frame),
            (Some(Kind::Replica), true) if mutant == Mutant::ForgeVotes => grant(&mut frame),
            (Some(Kind::Replica), false) if mutant == Mutant::ForgeAppends => {
                if let Some(reply) = taken(&frame) {
                    self.net.send(Party::Shard(addr), conn, reply, self.now);
                }
            }
            _ => {}
        }
        NetEvent::Received { conn, frame }
    }

    fn lie_about_fence(&mut self, addr: ShardAddr, mutant: Mutant, frame: &mut Incoming) {
        let Ok(mut request) = decode::<IoRequest>(&frame.body) else { return };
        let fence = &mut request.fence;
        match mutant {
            Mutant::LieEpoch => fence.epoch = self.volumes[&fence.volume].epoch,
            Mutant::LieIncarnation => fence.incarnation = Incarnation(1),
            Mutant::LieTerm => {
                let core = self.shard(addr).and_then(|s| s.core(request.copyset));
                fence.term = core.map_or(fence.term, |core| core.term());
            }
            _ => return,
        }
        frame.body = encode(&request);
    }
}

fn grant(frame: &mut Incoming) {
    if let Ok(ReplicaReply::Vote(id, mut reply)) = decode(&frame.body) {
        reply.granted = true;
        frame.body = encode(&ReplicaReply::Vote(id, reply));
    }
}

/// The answer that a follower would give once it had persisted an append.
fn taken(frame: &Incoming) -> Option<Outgoing> {
    let Ok(ReplicaRequest::Append(id, append)) = decode(&frame.body) else { return None };
    let last = Index(append.prev.index.0 + append.entries.len() as u64);
    let reply = AppendReply { term: append.term, sent: append.sent, matched: Ok(last) };
    Some(Outgoing {
        kind: frame.kind,
        response: true,
        id: frame.id,
        deadline_ms: 0,
        body: encode(&ReplicaReply::Append(id, reply)),
        payload: Vec::new(),
    })
}

/// A message in words.
pub(super) fn describe(frame: &Incoming) -> String {
    let payload = frame.payload.as_ref().map_or(0, |p| p.len());
    let text = match (Kind::from_byte(frame.kind), frame.response) {
        (Some(Kind::Io), false) => in_words(decode::<IoRequest>(&frame.body)),
        (Some(Kind::Io), true) => in_words(decode::<IoReply>(&frame.body)),
        (Some(Kind::Replica), false) => in_words(decode::<ReplicaRequest>(&frame.body)),
        (Some(Kind::Replica), true) => in_words(decode::<ReplicaReply>(&frame.body)),
        (None, _) => "?".to_owned(),
    };
    format!("{text} +{payload} bytes")
}

fn in_words<T: std::fmt::Debug>(body: Result<T, ogive_types::message::Malformed>) -> String {
    let text = body.map_or_else(|e| e.to_string(), |body| format!("{body:?}"));
    // Lists of checksums are long and say little.
    text.chars().take(400).collect()
}
