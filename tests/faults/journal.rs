//! What was published, and what Redis acknowledged.

use crate::harness::Id;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How an event was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `FCALL sse_publish`.
    Durable,
    /// A row of the outbox in Postgres, acknowledged when it is committed.
    Outbox,
    /// `PUBLISH`, by the publisher of this number.
    Plain(usize),
}

impl Kind {
    /// Whether what was acknowledged must not be lost.
    pub fn is_durable(self) -> bool {
        !matches!(self, Kind::Plain(_))
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Unique within a run; part of the payload.
    pub number: u64,
    pub channel: String,
    pub kind: Kind,
    /// When the first attempt began.
    pub started: Instant,
    /// When Redis confirmed it, if it did.
    pub acknowledged: Option<Instant>,
    /// The position that Redis returned for a durable event.
    pub position: Option<Id>,
    /// How often it was sent.
    pub attempts: u32,
}

impl Publish {
    /// Whether Redis may have got it more than once. A gateway may have repeated a row.
    pub fn is_repeated(&self) -> bool {
        self.attempts > 1 || self.kind == Kind::Outbox
    }
}

/// The events of one round. Clones share it.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    first: u64,
    events: Vec<Publish>,
    acknowledged: usize,
    last_error: String,
}

impl Journal {
    /// Adds an event before its first attempt. Returns its number.
    pub fn begin(&self, channel: &str, kind: Kind) -> u64 {
        let mut state = self.0.lock().unwrap();
        let number = state.first + state.events.len() as u64;
        state.events.push(Publish {
            number,
            channel: channel.to_owned(),
            kind,
            started: Instant::now(),
            acknowledged: None,
            position: None,
            attempts: 0,
        });
        number
    }

    /// Counts an attempt.
    pub fn attempt(&self, number: u64) {
        self.change(number, |event| event.attempts += 1);
    }

    /// Records a confirmation.
    pub fn acknowledge(&self, number: u64, position: Option<Id>) {
        self.change(number, |event| {
            event.acknowledged = Some(Instant::now());
            event.position = position;
        });
        self.0.lock().unwrap().acknowledged += 1;
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Publish)) {
        let mut state = self.0.lock().unwrap();
        let at = number - state.first;
        if let Some(event) = state.events.get_mut(at as usize) {
            change(event);
        }
    }

    /// Remembers why an attempt failed.
    pub fn failed(&self, error: String) {
        self.0.lock().unwrap().last_error = error;
    }

    /// Why the last attempt failed.
    pub fn last_error(&self) -> String {
        self.0.lock().unwrap().last_error.clone()
    }

    /// Number of events that were acknowledged since the round began.
    pub fn acknowledged(&self) -> usize {
        self.0.lock().unwrap().acknowledged
    }

    /// The events so far. Their numbers are consecutive.
    pub fn events(&self) -> Vec<Publish> {
        self.0.lock().unwrap().events.clone()
    }

    /// Forgets the events so far. The next round begins.
    pub fn clear(&self) {
        let mut state = self.0.lock().unwrap();
        state.first += state.events.len() as u64;
        state.events.clear();
        state.acknowledged = 0;
    }
}
