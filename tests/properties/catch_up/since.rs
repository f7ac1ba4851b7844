//! The same for a stream that begins at a time: it receives every event since then that is left, of
//! all epochs, and is notified of those that were trimmed.

use proptest::{collection::vec, prelude::*};
use sse_gateway::core::id::{EventId, StreamPosition};

use super::{
    Received, Simulation,
    actions::{Action, action, ordinary},
    check_stream, of,
};

/// A time at which the stream began, instead of at the client's id.
pub(super) struct Time {
    /// What the first frame contained: that time, or the position of each server at that time.
    cursor: StreamPosition,
    /// Until when the client had no position of each server: it learns of no epoch that ended until
    /// then. `None`: it has none yet.
    left_at: [Option<u64>; 2],
}

impl Simulation {
    /// Opens another stream, at a time before now.
    pub(super) fn begin_at_time(&mut self, ago_ms: u64) {
        let since_ms = self.servers[0].redis.now().saturating_sub(ago_ms);
        self.received.clear();
        self.last_id = StreamPosition::from(EventId::before_time(since_ms)).into();
        self.reconnect(true, true);
        self.gateway.begin_at_time();
        // The first frame is sent when there is a snapshot of each server.
        for server in 0..self.servers.len() {
            (0..2).for_each(|_| self.act(&Action::CatchUp(server)));
        }
        self.last_id = self.gateway.stream.named_cursor();
        self.time = Some(Time { cursor: self.last_id.position, left_at: [None; 2] });
        self.follow_time();
    }

    /// Notices when the client receives its first position of each server.
    pub(super) fn follow_time(&mut self) {
        let Some(time) = &mut self.time else { return };
        for (n, left_at) in time.left_at.iter_mut().enumerate() {
            if !of(n, self.last_id.position).is_time() {
                left_at.get_or_insert(self.servers[0].redis.time_ms);
            }
        }
    }

    /// Whether the stream must contain an event of a server.
    pub(super) fn is_wanted(&self, server: usize, id: EventId) -> bool {
        let Some(time) = &self.time else { return true };
        let begin = of(server, time.cursor);
        if begin.is_time() { (id.ms, id.seq) > (begin.ms, begin.seq) } else { id > begin }
    }

    /// Whether an event was lost while the client knew no position of its epoch.
    pub(super) fn is_lost_unknown(&self, server: usize, lost_at: Option<u64>) -> bool {
        let Some(time) = &self.time else { return false };
        lost_at.is_some_and(|at| time.left_at[server].is_none_or(|left_at| at <= left_at))
    }
}

/// The same for a stream that is opened after the first actions, at a time that long before.
fn check_since(
    (before, ago_ms, actions): (Vec<Action>, u64, Vec<Action>),
    servers: usize,
    page: usize,
    epochs_change: bool,
) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new(servers, 2000, page);
    before.iter().for_each(|action| simulation.act(action));
    simulation.begin_at_time(ago_ms);
    actions.iter().for_each(|action| simulation.act(action));
    simulation.settle();
    for received in &simulation.received {
        let Received::Event(server, id) = received else { continue };
        // After the first event, the order of epochs decides.
        let is_wanted = epochs_change || simulation.is_wanted(*server, *id);
        prop_assert!(is_wanted, "{} is too early: {:?}", id, simulation.received);
    }
    check_stream(&simulation, epochs_change)
}

fn since(
    action: fn() -> BoxedStrategy<Action>,
) -> impl Strategy<Value = (Vec<Action>, u64, Vec<Action>)> {
    (vec(action(), 1..100), 0..250u64, vec(action(), 0..80))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn events_since_a_time_arrive_once_in_order_or_a_gap(
        stream in since(|| ordinary().boxed()),
        servers in 1..3usize,
        page in 1..6usize,
    ) {
        check_since(stream, servers, page, false)?;
    }

    #[test]
    fn events_since_a_time_cross_epochs(
        stream in since(|| action().boxed()),
        servers in 1..3usize,
        page in 1..6usize,
    ) {
        check_since(stream, servers, page, true)?;
    }
}
