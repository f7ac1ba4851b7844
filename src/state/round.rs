//! The events that a hub delivers together: each stream gets all of its events in one write.

use std::rc::Rc;

use super::{connection::Connection, hub::Hub};
use crate::core::{part::ServerIndex, queue::Item};

/// Maximum number of deliveries that are collected, to bound the memory of a round.
const MAX_DELIVERIES: usize = 16 << 10;

/// Events in their order, and which connection gets which.
#[derive(Default)]
pub(super) struct Round {
    events: Vec<(ServerIndex, Item)>,
    /// Key of a connection, and number of an event.
    deliveries: Vec<(u32, u32)>,
}

impl Round {
    /// Adds an event of a server.
    pub fn push(&mut self, server: ServerIndex, event: Item) {
        self.events.push((server, event));
    }
}

impl Hub {
    /// Delivers the events of a round.
    pub(super) fn deliver(&self, round: &mut Round, now_ms: u64) {
        let Round { events, deliveries } = round;
        match &events[..] {
            [] => {}
            [(_, item)] => self.offer_one(item, now_ms),
            _ => {
                for (number, (_, item)) in events.iter().enumerate() {
                    let Item::Event(event) = item else { continue };
                    let number = number as u32;
                    self.index.borrow().offer(event, |c| deliveries.push((c.key(), number)));
                    if deliveries.len() >= MAX_DELIVERIES {
                        self.offer_collected(events, deliveries, now_ms);
                    }
                }
                self.offer_collected(events, deliveries, now_ms);
            }
        }
        for (server, item) in events.drain(..) {
            if let Some(id) = item.id() {
                self.servers.raise_watermark(server, id);
            }
        }
    }

    fn offer_one(&self, item: &Item, now_ms: u64) {
        if let Item::Event(event) = item {
            let items = std::iter::once(item);
            self.index.borrow().offer(event, |c| self.offer_all(c, items.clone(), now_ms));
        }
    }

    fn offer_collected(
        &self,
        events: &[(ServerIndex, Item)],
        deliveries: &mut Vec<(u32, u32)>,
        now_ms: u64,
    ) {
        deliveries.sort_unstable();
        // A client with several matching patterns.
        deliveries.dedup();
        let index = self.index.borrow();
        for of_one in deliveries.chunk_by(|a, b| a.0 == b.0) {
            let items = of_one.iter().map(|(_, number)| &events[*number as usize].1);
            if let Some(connection) = index.get(of_one[0].0 as usize) {
                self.offer_all(connection, items, now_ms);
            }
        }
        deliveries.clear();
    }

    /// Offers items to a connection: what it can take at once is written, the rest is queued.
    fn offer_all<'a>(
        &self,
        connection: &Rc<Connection>,
        mut items: impl Iterator<Item = &'a Item> + Clone,
        now_ms: u64,
    ) {
        loop {
            if let Some(last) = connection.write_now(items.clone(), now_ms).checked_sub(1) {
                items.nth(last);
            }
            let Some(item) = items.next() else { return };
            self.offer(connection, item, now_ms);
        }
    }
}
