//! Recovery on bytes that nobody wrote: a medium with any changes, also such whose checksums are
//! right, must be refused, or open and be consistent. It must never panic.
//!
//! Changes are six bytes each: which write of a recorded life (u16), where in it (u16), the bits to
//! turn over (u8), and whether the checksums are made right again afterwards (u8, bit 0).

use std::rc::Rc;

use ogive_store::simdisk::{Image, TapeEvent};
use ogive_store::{RegionIo, RegionLayout, Store, audit};

use crate::area::Area;
use crate::scenario::Scenario;
use crate::world::{World, pool};

/// Bytes of one change.
pub const CHANGE_BYTES: usize = 6;
const BLOCK: u64 = 4096;

/// A life that has checkpoints, map pages and a log behind them.
struct Base {
    world: World,
    layout: RegionLayout,
    image: Image,
    /// Everything written, without the data.
    writes: Vec<(u64, u64)>,
}

thread_local! {
    static BASE: Rc<Base> = Rc::new(base());
}

fn base() -> Base {
    let mut world = Scenario::Checkpoints.live(4);
    let tape = world.disk.take_tape().expect("it was recorded");
    let mut player = tape.play();
    while player.step().is_some() {}
    let (image, _) = player.image(&mut |_, _| true);
    let layout = world.label.regions()[0].layout().expect("it was formatted");
    let writes = tape.events.iter().filter_map(|event| match event {
        TapeEvent::Write { addr, data } => Some((*addr, data.len() as u64)),
        _ => None,
    });
    let writes = writes.filter(|(addr, _)| Area::of(&layout, *addr) != Area::Data).collect();
    Base { world, layout, image, writes }
}

/// Changes a medium and opens it; whether it opened.
///
/// # Panics
/// When recovery does, or what it opens contradicts itself.
pub fn open(changes: &[u8]) -> bool {
    let base = BASE.with(Rc::clone);
    let mut image = base.image.clone();
    for change in changes.chunks_exact(CHANGE_BYTES) {
        let word = |at: usize| u16::from_le_bytes([change[at], change[at + 1]]);
        let (addr, len) = base.writes[usize::from(word(0)) % base.writes.len()];
        image.flip(addr + u64::from(word(2)) % len, change[4]);
        if change[5] & 1 == 1 {
            seal(&mut image, &base.layout, addr);
        }
    }
    let options = base.world.setup.options.clone();
    let store = Store::open(&mut image, &base.world.label, 0, pool(), options);
    if let Ok(store) = &store {
        audit(store).expect("what opens is consistent");
    }
    store.is_ok()
}

/// Makes the checksums right again of the structure that was written at `addr`.
fn seal(image: &mut Image, layout: &RegionLayout, addr: u64) {
    match Area::of(layout, addr) {
        Area::Superblock | Area::Pages => seal_front(image, addr, BLOCK),
        Area::Log => {
            let records = u64::from(u32_at(image, addr + 52));
            seal_front(image, addr, (64 + records).min(layout.log_start + layout.log_bytes - addr));
        }
        Area::Directory => {
            for superblock in layout.superblock {
                let area = u32_at(image, superblock + 60);
                let Some(start) = layout.directory.get(area as usize) else { continue };
                let len = u64::from(u32_at(image, superblock + 64)).min(layout.directory_bytes);
                let crc = crc32c::crc32c(&bytes_at(image, *start, len));
                put(image, superblock + 72, crc);
                seal_front(image, superblock, BLOCK);
            }
        }
        Area::Data => {}
    }
}

/// Writes the checksum of all but the first four bytes into these.
fn seal_front(image: &mut Image, addr: u64, len: u64) {
    let crc = crc32c::crc32c(&bytes_at(image, addr, len)[4..]);
    put(image, addr, crc);
}

fn bytes_at(image: &Image, addr: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    image.read_at(addr, &mut bytes).expect("within the device");
    bytes
}

fn u32_at(image: &Image, addr: u64) -> u32 {
    u32::from_le_bytes(bytes_at(image, addr, 4).try_into().expect("four bytes"))
}

fn put(image: &mut Image, addr: u64, value: u32) {
    image.write_at(addr, &value.to_le_bytes()).expect("within the device");
}
