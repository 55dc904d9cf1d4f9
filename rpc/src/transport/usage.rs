//! What goes over which path: an owner's connections and the counters of its transport, for
//! operators.

use std::collections::BTreeMap;

use super::net::NetTransport;
use super::{ConnId, Event, Path, PathStats};
use crate::hello::Identity;

/// What went over one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// The path.
    pub path: Path,
    /// Connections with shards that take it now.
    pub shards: u32,
    /// Connections with clients that take it now.
    pub clients: u32,
    /// Counters since the start.
    pub stats: PathStats,
}

/// Who is connected. Told of every event of a transport.
#[derive(Debug, Default)]
pub struct Usage {
    up: BTreeMap<ConnId, Identity>,
}

impl Usage {
    /// Notes an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Connected { conn, peer, .. } => {
                self.up.insert(*conn, peer.identity);
            }
            Event::Closed { conn, .. } => {
                self.up.remove(conn);
            }
            Event::Received { .. } => {}
        }
    }

    /// What goes over each path of `net`, the best path first; only those that were started.
    pub fn by_path(&self, net: &NetTransport) -> Vec<PathUse> {
        let all = net.stats();
        let tcp = PathStats {
            frames_sent: all.tcp.frames_sent,
            frames_received: all.tcp.frames_received,
            bytes_sent: all.tcp.bytes_sent,
            bytes_received: all.tcp.bytes_received,
            copied_bytes: all.tcp.copied_bytes,
        };
        let paths = all.lanes.into_iter().chain([(Path::Tcp, tcp)]);
        let uses = paths.map(|(path, stats)| {
            let of = |client: bool| {
                let here = self.up.iter().filter(|(conn, identity)| {
                    matches!(identity, Identity::Client { .. }) == client
                        && net.path(**conn) == Some(path)
                });
                here.count() as u32
            };
            PathUse { path, shards: of(false), clients: of(true), stats }
        });
        uses.collect()
    }
}

/// Adds the use of one transport to that of others: one entry for each path.
pub fn add_up(total: &mut Vec<PathUse>, more: &[PathUse]) {
    for one in more {
        let Some(sum) = total.iter_mut().find(|sum| sum.path == one.path) else {
            total.push(*one);
            continue;
        };
        sum.shards += one.shards;
        sum.clients += one.clients;
        let (sum, one) = (&mut sum.stats, &one.stats);
        sum.frames_sent += one.frames_sent;
        sum.frames_received += one.frames_received;
        sum.bytes_sent += one.bytes_sent;
        sum.bytes_received += one.bytes_received;
        sum.copied_bytes += one.copied_bytes;
    }
    total.sort_unstable_by_key(|sum| sum.path);
}

#[cfg(test)]
mod tests {
    use ogive_buf::Pool;
    use ogive_types::{ChunkserverId, ClusterId, SessionId, Time};

    use super::*;
    use crate::hello::Hello;
    use crate::transport::net::NetConfig;
    use crate::transport::tcp::TcpConfig;
    use crate::transport::{Endpoint, PathChoice, Transport};

    fn end(identity: Identity, listen: Vec<Endpoint>) -> NetTransport {
        let cluster = ClusterId(1);
        let (token, credit_requests, credit_bytes) = (Vec::new(), 1, 1);
        let hello = Hello { cluster, identity, features: 0, token, credit_requests, credit_bytes };
        let tcp = TcpConfig { listen, ..TcpConfig::new(hello, Pool::new(4 << 20)) };
        let choice = PathChoice::Only(Path::Tcp);
        NetTransport::new(NetConfig { tcp, choice }).expect("loopback")
    }

    #[test]
    fn connections_are_counted_while_they_are_up() {
        let shard = Identity::Shard { server: ChunkserverId(1), shard: 0 };
        let mut server = end(shard, vec![Endpoint("tcp:127.0.0.1:0".into())]);
        let at = server.local_endpoints().remove(0);
        let mut client = end(Identity::Client { session: SessionId(1) }, Vec::new());
        let mut usages = [Usage::default(), Usage::default()];
        let mut events = Vec::new();
        let mut pass = |server: &mut NetTransport, client: &mut NetTransport| {
            for (net, usage) in [server, client].into_iter().zip(&mut usages) {
                net.poll(Time(0), &mut events);
                net.flush(Time(0));
                events.drain(..).for_each(|event| usage.note(&event));
            }
            [usages[0].up.len(), usages[1].up.len()]
        };
        let conn = client.connect(&at, Time(0));
        while pass(&mut server, &mut client) != [1, 1] {}
        client.close(conn, crate::transport::CloseReason::Local);
        let (seen_by_server, seen_by_client) =
            (usages[0].by_path(&server), usages[1].by_path(&client));
        assert_eq!((seen_by_server.len(), seen_by_server[0].path), (1, Path::Tcp));
        assert_eq!((seen_by_server[0].shards, seen_by_server[0].clients), (0, 1));
        assert!(seen_by_server[0].stats.bytes_received > 0);
        assert_eq!(seen_by_client[0].clients, 0);
    }

    #[test]
    fn totals_have_one_entry_for_each_path() {
        let one = |path, frames_sent| PathUse {
            path,
            shards: 1,
            clients: 2,
            stats: PathStats { frames_sent, ..PathStats::default() },
        };
        let mut total = Vec::new();
        add_up(&mut total, &[one(Path::Tcp, 3)]);
        add_up(&mut total, &[one(Path::Shm, 5), one(Path::Tcp, 4)]);
        let seen: Vec<_> = total.iter().map(|u| (u.path, u.shards, u.stats.frames_sent)).collect();
        assert_eq!(seen, [(Path::Shm, 1, 5), (Path::Tcp, 2, 7)]);
    }
}
