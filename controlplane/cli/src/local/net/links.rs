//! What becomes of a packet between two hosts.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Switched;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Share of packets that are lost, 0 to 1; 1 cuts it.
    pub loss: f64,
    /// How long a packet travels at least.
    pub delay: Duration,
    /// Up to so much longer, drawn for each packet: those that draw less overtake.
    pub jitter: Duration,
}

impl Link {
    /// Nothing gets through.
    pub const CUT: Link = Link { loss: 1.0, delay: Duration::ZERO, jitter: Duration::ZERO };
}

/// All directions; those that are not set deliver at once.
#[derive(Debug)]
pub struct Links {
    bad: HashMap<(Ipv4Addr, Ipv4Addr), Link>,
    random: u64,
    pub(super) switched: Switched,
}

impl Links {
    /// All good; `seed` decides which packets are lost once they are not.
    pub(super) fn new(seed: u64) -> Links {
        Links { bad: HashMap::new(), random: seed, switched: Switched::default() }
    }

    pub(super) fn set(&mut self, from: Ipv4Addr, to: Ipv4Addr, link: Link) {
        self.bad.insert((from, to), link);
    }

    pub(super) fn heal(&mut self) {
        self.bad.clear();
    }

    /// How long a packet travels; `None` when it is lost.
    pub(super) fn travel(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Option<Duration> {
        let Some(&link) = self.bad.get(&(from, to)) else { return Some(Duration::ZERO) };
        if self.draw() < link.loss {
            return None;
        }
        Some(link.delay + link.jitter.mul_f64(self.draw()))
    }

    /// The next number from 0 to 1 (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Source and destination of an IPv4 packet.
pub(super) fn route(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let is_v4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    let address = |at: usize| Ipv4Addr::from(*packet[at..].first_chunk::<4>().expect("20 bytes"));
    is_v4.then(|| (address(12), address(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    #[test]
    fn a_cut_is_one_way_until_it_is_healed() {
        let mut links = Links::new(1);
        links.set(A, B, Link::CUT);
        assert!((0..1000).all(|_| links.travel(A, B).is_none()));
        assert!((0..1000).all(|_| links.travel(B, A) == Some(Duration::ZERO)));
        links.heal();
        assert_eq!(links.travel(A, B), Some(Duration::ZERO));
    }

    #[test]
    fn loss_and_delay_are_as_asked() {
        let mut links = Links::new(2);
        let (delay, jitter) = (Duration::from_millis(5), Duration::from_millis(10));
        links.set(A, B, Link { loss: 0.2, delay, jitter });
        let times: Vec<_> = (0..10_000).filter_map(|_| links.travel(A, B)).collect();
        assert!((7_800..8_200).contains(&times.len()), "{}", times.len());
        assert!(times.iter().all(|t| (delay..=delay + jitter).contains(t)));
        assert!(times.windows(2).any(|pair| pair[0] > pair[1]), "some overtake");
    }

    #[test]
    fn only_whole_headers_have_a_route() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&A.octets());
        packet[16..].copy_from_slice(&B.octets());
        assert_eq!(route(&packet), Some((A, B)));
        assert_eq!(route(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(route(&packet), None, "IPv6");
    }
}
