//! The events that a hub delivers together: each stream gets all of its events in one write.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{connection::Connection, hub::Hub};
use crate::{
    core::{part::ServerIndex, queue::Item},
    spans::relay::RelaySpan,
};

/// Maximum number of deliveries that are collected, to bound the memory of a round.
const MAX_DELIVERIES: usize = 16 << 10;

/// Events in their order, and which connection gets which.
#[derive(Default)]
pub(super) struct Round {
    events: Vec<(ServerIndex, Item)>,
    /// What streams with a filter get instead of an event; by its number.
    replaced: HashMap<u32, Item>,
    /// Key of a connection; number of an event, times two, plus one if it is replaced.
    deliveries: Vec<(u32, u32)>,
    sampled: Vec<Sampled>,
}

/// A sampled event of a round.
struct Sampled {
    /// The number of the event.
    number: usize,
    span: Arc<RelaySpan>,
    streams: usize,
}

impl Round {
    /// Adds an event of a server, with the span of a sampled one.
    pub fn push(&mut self, server: ServerIndex, event: Item, span: Option<Arc<RelaySpan>>) {
        if let Some(span) = span {
            span.begin_write();
            self.sampled.push(Sampled { number: self.events.len(), span, streams: 0 });
        }
        self.events.push((server, event));
    }

    /// An event goes to so many streams.
    fn count(&mut self, number: usize, streams: usize) {
        if let Some(sampled) = self.sampled.iter_mut().find(|sampled| sampled.number == number) {
            sampled.streams = streams;
        }
    }

    fn item(&self, number: u32) -> &Item {
        let event = number / 2;
        let replaced = (number % 2 == 1).then(|| self.replaced.get(&event)).flatten();
        replaced.unwrap_or(&self.events[event as usize].1)
    }
}

impl Hub {
    /// Delivers the events of a round.
    pub(super) fn deliver(&self, round: &mut Round, now_ms: u64) {
        match &round.events[..] {
            [] => {}
            [(_, item)] => {
                let streams = self.offer_one(item, now_ms);
                round.count(0, streams);
            }
            _ => self.collect(round, now_ms),
        }
        round.replaced.clear();
        for Sampled { span, streams, .. } in round.sampled.drain(..) {
            span.end_write(streams);
        }
        for (server, item) in round.events.drain(..) {
            if let Some(id) = item.id() {
                self.servers.raise_watermark(server, id);
            }
        }
    }

    /// Returns the number of streams.
    fn offer_one(&self, item: &Item, now_ms: u64) -> usize {
        let Item::Event(event) = item else { return 0 };
        let index = self.index.borrow();
        let items = std::iter::once(item);
        let mut streams = 0;
        index.offer(event, |c| {
            streams += 1;
            self.offer_all(c, items.clone(), now_ms);
        });
        index.offer_filtered(event, |c, replaced| {
            streams += usize::from(!matches!(replaced, Some(Item::Filtered(_))));
            self.offer_all(c, std::iter::once(replaced.unwrap_or(item)), now_ms);
        });
        streams
    }

    fn collect(&self, round: &mut Round, now_ms: u64) {
        for number in 0..round.events.len() {
            let Round { events, replaced, deliveries, .. } = round;
            let Item::Event(event) = &events[number].1 else { continue };
            let (before, mut excluded) = (deliveries.len(), 0);
            let number = number as u32;
            let index = self.index.borrow();
            index.offer(event, |c| deliveries.push((c.key(), 2 * number)));
            index.offer_filtered(event, |c, item| {
                if let Some(item) = item {
                    excluded += usize::from(matches!(item, Item::Filtered(_)));
                    replaced.entry(number).or_insert_with(|| item.clone());
                }
                deliveries.push((c.key(), 2 * number + u32::from(item.is_some())));
            });
            drop(index);
            let streams = deliveries.len() - before - excluded;
            if !round.sampled.is_empty() {
                round.count(number as usize, streams);
            }
            let deliveries = &round.deliveries;
            if deliveries.len() >= MAX_DELIVERIES {
                self.offer_collected(round, now_ms);
            }
        }
        self.offer_collected(round, now_ms);
    }

    fn offer_collected(&self, round: &mut Round, now_ms: u64) {
        let mut deliveries = std::mem::take(&mut round.deliveries);
        deliveries.sort_unstable();
        // A client with several matching patterns.
        deliveries.dedup();
        let index = self.index.borrow();
        for of_one in deliveries.chunk_by(|a, b| a.0 == b.0) {
            let items = of_one.iter().map(|(_, number)| round.item(*number));
            if let Some(connection) = index.get(of_one[0].0 as usize) {
                self.offer_all(connection, items, now_ms);
            }
        }
        deliveries.clear();
        round.deliveries = deliveries;
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
