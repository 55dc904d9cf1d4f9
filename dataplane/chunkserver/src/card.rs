//! The card: what a chunkserver remembers of its cluster, on its device. With it a chunkserver that
//! starts while no metadata server can be reached is let in by its peers, and finds them. Why on
//! the device: `design/0001-card-on-the-device.md`.
//!
//! Two slots of 480 KiB, at 64 KiB and at 544 KiB of the device, in the space between the label and
//! the regions. Numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `OGIVECRD` |
//! | 8 | 4 | format, 1 |
//! | 12 | 4 | CRC-32C of all that follows, to the end of the body |
//! | 16 | 8 | generation; the slot with the higher one is the newer |
//! | 24 | 16 | UUID of the device: a card that another format left there is not ours |
//! | 40 | 4 | bytes of the body |
//! | 44 | | the body: postcard of the card |
//!
//! The older slot is overwritten and then flushed, so that one is whole at any moment. A card that
//! cannot be read is none: the metadata servers will say it all again.

use std::collections::BTreeMap;
use std::io;

use ogive_rpc::token::{Credential, PUBLIC_KEY_BYTES, PublicKey};
use ogive_rpc::transport::Endpoint;
use ogive_store::{Label, RegionIo};
use ogive_types::{ChunkserverId, ClusterId, ShardAddr, message};
use serde::{Deserialize, Serialize};

use crate::limits::CARD_ENDPOINTS_MAX;

const MAGIC: [u8; 8] = *b"OGIVECRD";
const FORMAT: u32 = 1;
const SLOT_ADDRS: [u64; 2] = [64 << 10, 544 << 10];
const SLOT_BYTES: usize = 480 << 10;
const HEAD_BYTES: usize = 44;
const SUMMED_FROM: usize = 16;

const _: () = assert!(SLOT_ADDRS[0] + SLOT_BYTES as u64 == SLOT_ADDRS[1]);
// Regions begin at 1 MiB, the label ends at 8 KiB: see the label's table in `ogive-store`.
const _: () = assert!(SLOT_ADDRS[1] + SLOT_BYTES as u64 == 1 << 20 && SLOT_ADDRS[0] >= 8 << 10);

/// What a chunkserver remembers of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// By which it shows who it is.
    pub credential: Credential,
    /// Where its peers listened last.
    pub endpoints: BTreeMap<ShardAddr, Endpoint>,
}

/// A card as it is written.
#[derive(Serialize, Deserialize)]
struct Body {
    cluster: ClusterId,
    server: ChunkserverId,
    token: Vec<u8>,
    key: [u8; PUBLIC_KEY_BYTES],
    endpoints: Vec<(ShardAddr, String)>,
}

/// The card of a device, as it is there, and the means to replace it.
pub struct CardKeeper<F> {
    device: F,
    label: Label,
    generation: u64,
    /// The slot to be overwritten next.
    next: usize,
    card: Option<Card>,
}

impl<F: RegionIo> CardKeeper<F> {
    /// Reads what `device`, whose label is `label`, remembers.
    pub(crate) fn open(device: F, label: &Label) -> CardKeeper<F> {
        let mut keeper =
            CardKeeper { device, label: label.clone(), generation: 0, next: 0, card: None };
        for (slot, &addr) in SLOT_ADDRS.iter().enumerate() {
            let Some((generation, body)) = read_slot(&keeper.device, addr, label) else { continue };
            if generation > keeper.generation {
                keeper.generation = generation;
                keeper.next = 1 - slot;
                keeper.card = card_of(body, label);
            }
        }
        keeper
    }

    /// The card; `None` when nothing is remembered.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// Remembers `card`, in place of what was remembered, unless it is the same. The device must
    /// have its identity.
    ///
    /// # Errors
    /// When the device does not take it; the card that was there stays.
    pub fn keep(&mut self, card: Card) -> io::Result<()> {
        if self.card.as_ref() == Some(&card) {
            return Ok(());
        }
        let identity = self.label.cluster().zip(self.label.chunkserver());
        let (cluster, server) = identity.expect("only a chunkserver has a card");
        let generation = self.generation + 1;
        let bytes = encode(&body_of(&card, cluster, server), generation, &self.label);
        self.device.write_at(SLOT_ADDRS[self.next], &bytes)?;
        self.device.flush()?;
        (self.generation, self.next) = (generation, 1 - self.next);
        self.card = Some(card);
        Ok(())
    }
}

fn body_of(card: &Card, cluster: ClusterId, server: ChunkserverId) -> Body {
    let endpoints = card.endpoints.iter().take(CARD_ENDPOINTS_MAX);
    Body {
        cluster,
        server,
        token: card.credential.token.clone(),
        key: card.credential.key.0,
        endpoints: endpoints.map(|(&addr, endpoint)| (addr, endpoint.0.clone())).collect(),
    }
}

fn card_of(body: Body, label: &Label) -> Option<Card> {
    let ours = label.cluster() == Some(body.cluster) && label.chunkserver() == Some(body.server);
    let endpoints = body.endpoints.into_iter().map(|(addr, text)| (addr, Endpoint(text)));
    ours.then(|| Card {
        credential: Credential { token: body.token, key: PublicKey(body.key) },
        endpoints: endpoints.collect(),
    })
}

fn encode(body: &Body, generation: u64, label: &Label) -> Vec<u8> {
    let body = message::encode(body);
    assert!(HEAD_BYTES + body.len() <= SLOT_BYTES, "a card of {} bytes", body.len());
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(generation.to_le_bytes());
    bytes.extend(label.uuid.as_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    let sum = crc32c::crc32c(&bytes[SUMMED_FROM..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Generation and body of a whole card of this device.
fn read_slot(device: &dyn RegionIo, addr: u64, label: &Label) -> Option<(u64, Body)> {
    let mut slot = vec![0; SLOT_BYTES];
    device.read_at(addr, &mut slot).ok()?;
    let number = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().expect("4 bytes"));
    let len = number(40) as usize;
    if slot[..8] != MAGIC || number(8) != FORMAT || len > SLOT_BYTES - HEAD_BYTES {
        return None;
    }
    let end = HEAD_BYTES + len;
    if number(12) != crc32c::crc32c(&slot[SUMMED_FROM..end])
        || slot[24..40] != *label.uuid.as_bytes()
    {
        return None;
    }
    let generation = u64::from_le_bytes(slot[16..24].try_into().expect("8 bytes"));
    Some((generation, message::decode(&slot[HEAD_BYTES..end]).ok()?))
}

#[cfg(test)]
#[path = "card_tests.rs"]
mod tests;
