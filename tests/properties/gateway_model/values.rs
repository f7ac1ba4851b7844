//! How a catch-up reads and sends retained values, step by step.

use sse_gateway::core::{channel::Channel, retained::Retained};

use super::{Begin, CatchUp, Gateway, Reading, STEP_MS, WantedValues};
use crate::redis_model::Redis;

impl Gateway {
    /// One step of reading and sending retained values.
    pub(super) fn advance_values(&mut self, server: usize, c: &mut CatchUp, redis: &Redis) {
        let Some(r) = &mut c.reading else { return };
        let source = &self.sources[server];
        let (part, now_ms) = (source.part, redis.time_ms * STEP_MS);
        let sent = WantedValues::Sent(Retained::default());
        r.values = match std::mem::replace(&mut r.values, sent) {
            WantedValues::Unknown if !self.stream.needs_snapshot(part) => {
                self.send_values(server, r, redis, None);
                return;
            }
            WantedValues::Unknown => {
                let (mut missing, mut cached) = (Vec::new(), Vec::new());
                for channel in &source.channels {
                    let Channel::Broadcast(topic) = channel else { continue };
                    match self.cache.values(topic, now_ms) {
                        Some(values) => cached.push((channel.clone(), values)),
                        None => missing.push(topic.clone()),
                    }
                }
                WantedValues::Loading(self.cache.begin_values(missing), cached)
            }
            WantedValues::Loading(loading, cached) => {
                let is_missing = |c: &&Channel| cached.iter().all(|(cached, _)| cached != *c);
                let missing = source.channels.iter().filter(is_missing);
                let read = missing.map(|channel| (channel.clone(), redis.values(channel)));
                let read = read.collect();
                WantedValues::Read(loading, cached, read)
            }
            WantedValues::Read(loading, mut found, read) => {
                for (channel, mut values) in read {
                    let values = match &channel {
                        Channel::Broadcast(topic) => loading.set(topic, values, now_ms),
                        Channel::User(_) => {
                            values.sort_by_key(|value| value.position);
                            values.into()
                        }
                    };
                    found.push((channel, values));
                }
                WantedValues::Ready(Retained::new(found, true, false).upto(r.clock.h))
            }
            WantedValues::Ready(values) => {
                self.send_values(server, r, redis, Some(&values));
                WantedValues::Sent(values)
            }
            sent @ WantedValues::Sent(_) => sent,
        };
    }

    fn send_values(
        &mut self,
        server: usize,
        r: &Reading,
        redis: &Redis,
        values: Option<&Retained>,
    ) {
        let source = &self.sources[server];
        let noticed = vec![redis.time_ms.to_string(), server.to_string()];
        match &r.begin {
            Begin::Restart(reason) => {
                let h = r.clock.h.into();
                self.stream.restart(source.part, *reason, noticed, None, h);
            }
            Begin::Read { gap: Some(reason), .. } => {
                self.stream.queue_gap(source.part, *reason, noticed);
            }
            _ => {}
        }
        let Some(values) = values else { return };
        let covers = source.channels.iter().map(ToString::to_string).collect();
        self.stream.queue_snapshot(source.part, values.keys(covers, |_| true));
        for value in values.in_order(|_| true) {
            self.stream.replay(source.part, &value.event);
        }
    }
}
