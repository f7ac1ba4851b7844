//! Streams that disconnect, miss a known number of events, and reconnect: the cost of resumes.

use std::time::Duration;

use super::{Run, setup};
use crate::args::Common;
use crate::stamp::{BROADCAST, Stamp};

/// Events missed by each stream.
#[derive(Clone, Copy, Debug)]
pub enum Missed {
    /// Events of the stream's user.
    Own(u32),
    /// Broadcasts, missed by all streams.
    Broadcasts(u32),
}

/// Cases to measure.
pub const MISSED_CASES: [Missed; 4] =
    [Missed::Own(0), Missed::Own(10), Missed::Own(100), Missed::Broadcasts(100)];

impl Missed {
    /// Describes the case for the report.
    pub fn text(self) -> String {
        match self {
            Self::Own(0) => "nothing missed".to_owned(),
            Self::Own(events) => format!("{events} user events missed"),
            Self::Broadcasts(events) => format!("{events} broadcasts missed by all streams"),
        }
    }
}

/// Streams that disconnect and resume.
pub struct Resumes {
    run: Run,
    timeout: Duration,
}

impl Resumes {
    /// Creates the streams without opening them. Must run in a `LocalSet`.
    pub fn new(common: &Common, streams: u32) -> Result<Self, String> {
        let common = Common { streams, ..common.clone() };
        let mut run = setup::run("idle", &common)?;
        run.active = streams;
        Ok(Self { run, timeout: common.connect_timeout })
    }

    /// Opens all streams.
    pub async fn connect(&mut self) -> Result<(), String> {
        self.run.fleet.open(0..self.run.active, None, self.timeout).await.map(drop)
    }

    /// Disconnects all streams.
    pub async fn cut(&mut self) {
        self.run.fleet.cut(0..self.run.active).await;
    }

    /// Returns the (channel, payload) pairs to publish so that each stream misses what `missed`
    /// says.
    pub fn events(&self, missed: Missed) -> Vec<(String, Vec<u8>)> {
        let env = &self.run.fleet.env;
        let event = |channel: String, source: u32| {
            let mut payload = Vec::new();
            let sequence = env.published.next(source);
            Stamp { due_ns: 1, source, sequence, run: env.run }
                .payload(self.run.report.payload_bytes, &mut payload);
            (channel, payload)
        };
        match missed {
            Missed::Broadcasts(events) => {
                (0..events).map(|_| event(format!("broadcast:{}", env.topic), BROADCAST)).collect()
            }
            Missed::Own(events) => {
                let all = (0..events).flat_map(|_| 0..self.run.active);
                all.map(|index| event(format!("user:{}:events", env.user_of(index)), index + 1))
                    .collect()
            }
        }
    }

    /// Waits until all streams have received everything. Fails on a timeout and on duplicates.
    pub async fn caught_up(&self) -> Result<(), String> {
        let run = &self.run;
        run.fleet.drained(0..run.active, self.timeout).await;
        let (_, lost) = run.fleet.expected_and_lost(0..run.active);
        let doubled = run.fleet.env.stats.doubled.get();
        if lost + doubled > 0 {
            Err(format!("after a resume: {lost} events lost, {doubled} duplicated"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn missed_events_cover_every_stream() {
        let parsed = Cli::parse_from([
            "loadtest",
            "idle",
            "--kind",
            "plain",
            "--url",
            "http://127.0.0.1:1/events",
        ]);
        let Command::Idle(common) = parsed.command else {
            unreachable!("the command line says idle")
        };
        let resumes = Resumes::new(&common, 3).unwrap();
        let events = resumes.events(Missed::Own(2));
        assert_eq!(events.len(), 6);
        assert_eq!(events[4].0, "user:load-1:events");
        let stamp = Stamp::read(&events[4].1).unwrap();
        assert_eq!((stamp.source, stamp.sequence), (2, 2));
        assert_eq!(resumes.events(Missed::Broadcasts(100)).len(), 100);
        assert!(resumes.events(Missed::Own(0)).is_empty());
    }
}
