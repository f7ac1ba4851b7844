//! Durable publishing in the background, and a check that a client received exactly its events.

use super::{Event, Id, Publisher, Redis};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// An event that Redis has confirmed.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its id.
    pub id: Id,
    /// Its channel.
    pub channel: String,
    /// Its payload, which is unique.
    pub data: String,
}

/// Publishes to each channel in turn until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Published>>,
}

impl Load {
    /// Publishes about `rate` events per second of type `load`, in batches every 10 ms. A Redis
    /// error ends it and makes [`Load::stop`] panic, so Redis itself must stay available.
    pub async fn start(redis: &Redis, channels: &[String], rate: usize) -> Load {
        let mut publisher = redis.publisher().await;
        let channels = channels.to_vec();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted) = (stop.clone(), Arc::<AtomicUsize>::clone(&count));
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            let mut timer = tokio::time::interval(Duration::from_millis(10));
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.load(Ordering::Relaxed) {
                timer.tick().await;
                let size = (rate / 100).max(1);
                publish_batch(&mut publisher, &channels, size, &mut published).await;
                counted.store(published.len(), Ordering::Relaxed);
            }
            published
        });
        Load { stop, count, task }
    }

    /// The number of events confirmed so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until this many more events have been confirmed.
    pub async fn more(&self, events: usize) {
        self.total(self.count() + events).await;
    }

    /// Waits until this many events have been confirmed since the start.
    pub async fn total(&self, goal: usize) {
        super::eventually("more events published", || {
            std::future::ready((self.count() >= goal).then_some(()))
        })
        .await;
    }

    /// Stops. Returns all events in the order of publishing.
    pub async fn stop(self) -> Vec<Published> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the publisher")
    }
}

/// Publishes `size` events to the channels in turn in one round trip, and adds them to `published`.
pub async fn publish_batch(
    publisher: &mut Publisher,
    channels: &[String],
    size: usize,
    published: &mut Vec<Published>,
) {
    let first = published.len();
    let batch: Vec<_> = (first..first + size)
        .map(|n| {
            let channel = channels[n % channels.len()].clone();
            (channel, "load".to_string(), format!("{{\"n\":{n}}}"))
        })
        .collect();
    let ids = publisher.durable_batch(&batch).await.expect("FCALL");
    for (id, (channel, _, data)) in ids.iter().zip(batch) {
        let id = Id::of(id);
        published.push(Published { id, channel, data });
    }
}

/// Panics unless `received`, without system events, is exactly the events of `channels` with
/// `after` < id <= `upto`, each once, in id order, with its own data.
pub fn assert_received(
    published: &[Published],
    received: &[Event],
    channels: impl Fn(&str) -> bool,
    after: Id,
    upto: Id,
) {
    let due = published.iter().filter(|p| channels(&p.channel) && p.id > after && p.id <= upto);
    let due: BTreeMap<Id, &Published> = due.map(|p| (p.id, p)).collect();
    let got: Vec<&Event> = received.iter().filter(|e| !e.is_system()).collect();
    let mut times: HashMap<Id, usize> = HashMap::new();
    for event in &got {
        *times.entry(event.own_id()).or_default() += 1;
    }
    let lost: Vec<Id> = due.keys().filter(|id| !times.contains_key(id)).copied().collect();
    let doubled: Vec<Id> = times.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect();
    let strange: Vec<&&Event> =
        got.iter().filter(|e| due.get(&e.own_id()).is_none_or(|p| p.data != e.data)).collect();
    let disorder: Vec<(Id, Id)> = got
        .windows(2)
        .map(|pair| (pair[0].own_id(), pair[1].own_id()))
        .filter(|(a, b)| a >= b)
        .collect();
    assert!(
        lost.is_empty() && doubled.is_empty() && strange.is_empty() && disorder.is_empty(),
        "of {} expected events {} arrived; lost {}: {:?}; duplicated {}: {:?}; \
         unexpected or altered {}: {:?}; out of order {}: {:?}",
        due.len(),
        got.len(),
        lost.len(),
        &lost[..lost.len().min(10)],
        doubled.len(),
        &doubled[..doubled.len().min(10)],
        strange.len(),
        &strange[..strange.len().min(5)],
        disorder.len(),
        &disorder[..disorder.len().min(5)],
    );
}
