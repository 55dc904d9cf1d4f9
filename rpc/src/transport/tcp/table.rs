//! Connections by id. An id names a slot and how often the slot was used, so finding a connection
//! takes no search and an id is never used again.

use super::conn::Conn;
use crate::transport::ConnId;

/// Uses of a slot; the bit above is the listeners' in epoll tokens.
const GENERATION_MAX: u32 = u32::MAX >> 1;

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    len: usize,
}

struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

impl Table {
    /// An id that was never given before. `insert` or `abandon` follows.
    pub(super) fn reserve(&mut self) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conn: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        ConnId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    pub(super) fn insert(&mut self, id: ConnId, conn: Box<Conn>) {
        let slot = &mut self.slots[index_of(id)];
        assert!(slot.generation == generation_of(id) && slot.conn.is_none(), "id was reserved");
        slot.conn = Some(conn);
        self.len += 1;
    }

    /// Gives a reserved id up without a connection.
    pub(super) fn abandon(&mut self, id: ConnId) {
        let slot = &self.slots[index_of(id)];
        assert!(slot.generation == generation_of(id) && slot.conn.is_none(), "id was reserved");
        // A slot whose generations are used up is retired.
        if slot.generation < GENERATION_MAX {
            self.free.push(index_of(id) as u32);
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(index_of(id))?;
        slot.conn.as_deref().filter(|_| slot.generation == generation_of(id))
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(index_of(id))?;
        slot.conn.as_deref_mut().filter(|_| slot.generation == generation_of(id))
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Conn>> {
        let slot = self.slots.get_mut(index_of(id))?;
        let conn = slot.conn.take_if(|_| slot.generation == generation_of(id))?;
        self.len -= 1;
        self.abandon(id);
        Some(conn)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends the ids of all connections.
    pub(super) fn ids(&self, out: &mut Vec<ConnId>) {
        out.extend(self.slots.iter().filter_map(|slot| slot.conn.as_ref().map(|conn| conn.id)));
    }
}

fn index_of(id: ConnId) -> usize {
    id.0 as u32 as usize
}

fn generation_of(id: ConnId) -> u32 {
    (id.0 >> 32) as u32
}
