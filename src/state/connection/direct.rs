//! Live events that go to the client at once: without the queue, the writer, or a copy.

use std::cell::RefCell;

use super::{CHUNK_BYTES, Connection};
use crate::{
    core::{
        event::Event,
        id::{EventId, StreamPosition},
        part::{Part, ServerIndex},
        queue::Item,
        stream_state::follows,
    },
    state::heartbeats::Heartbeats,
};

thread_local! {
    static CHUNKS: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(CHUNK_BYTES));
}

/// Events that are written in one call.
#[derive(Default)]
struct Run {
    count: usize,
    /// The position of the stream after them.
    position: EventId,
    chunk_bytes: usize,
    frame_bytes: usize,
    /// Those with an id, and when the last of these was published, ms since 1970.
    published: u32,
    published_ms: u64,
    /// Whether some have options.
    has_options: bool,
}

impl Run {
    fn add(&mut self, event: &Event) {
        self.count += 1;
        self.chunk_bytes += event.chunk.len();
        self.frame_bytes += event.frame.len();
        self.has_options |= event.options.is_some();
        if let Some(id) = event.id {
            self.position = id;
            self.published += 1;
            self.published_ms = id.ms;
        }
    }
}

impl Connection {
    /// Sends a heartbeat; its id is the watermark of each part's server.
    pub(in crate::state) fn heartbeat(
        &self,
        watermark: impl Fn(ServerIndex) -> EventId,
        frames: &mut Heartbeats,
    ) {
        let of = |part| watermark(self.server(part));
        let watermark = StreamPosition { user: of(Part::User), broadcasts: of(Part::Broadcasts) };
        let position = self.state.borrow().open_heartbeat(watermark.user);
        if let Some(position) = position {
            let heartbeat = frames.at(StreamPosition::from(position).into());
            if self.liveness.write_now(&heartbeat.chunk) {
                self.state.borrow_mut().pass(position);
                return self.sent(heartbeat.frame.len(), || self.context.clock.now_ms());
            }
        }
        self.with(|state| state.heartbeat(watermark, |id| frames.at(id).frame.clone()));
    }

    /// Writes as many of these live items as possible in one call, and returns their number; 0 if
    /// the first one must be queued ([`Connection::offer`]).
    pub(in crate::state) fn write_now<'a>(
        &self,
        items: impl Iterator<Item = &'a Item> + Clone,
        now_ms: u64,
    ) -> usize {
        let written = items.clone();
        let Some(start) = self.state.borrow().open_position() else { return 0 };
        let mut run = Run { position: start, ..Run::default() };
        let events = items.map_while(|item| match item {
            Item::Event(event) => Some(event),
            Item::Filtered(_) | Item::Unrecorded(_) => None,
        });
        let is_taken = CHUNKS.with_borrow_mut(|chunks| {
            let mut only = None;
            for event in events {
                let is_full = run.count > 0 && run.chunk_bytes + event.chunk.len() > CHUNK_BYTES;
                if is_full || !follows(event, run.position) {
                    break;
                }
                // One chunk, the common case, is not copied.
                match run.count {
                    0 => only = Some(event),
                    1 => {
                        chunks.clear();
                        chunks.extend_from_slice(only.take().map_or(&[][..], |e| &e.chunk));
                        chunks.extend_from_slice(&event.chunk);
                    }
                    _ => chunks.extend_from_slice(&event.chunk),
                }
                run.add(event);
            }
            match only {
                Some(event) => self.liveness.write_now(&event.chunk),
                None => run.count > 0 && self.liveness.write_now(chunks),
            }
        });
        if !is_taken {
            return 0;
        }
        if run.has_options {
            written.take(run.count).for_each(|item| {
                if let Item::Event(event) = item {
                    self.handed_over(event);
                }
            });
        }
        if run.position != start {
            self.state.borrow_mut().pass(run.position);
        }
        self.queued_ms.set(now_ms);
        if run.published > 0 {
            self.delivered(run.published, run.published_ms);
        }
        self.sent(run.frame_bytes, || now_ms);
        run.count
    }
}
