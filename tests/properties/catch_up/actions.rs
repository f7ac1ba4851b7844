//! What can happen in a simulation.

use proptest::prelude::*;

use crate::redis_model::Failover;

/// What happens. Servers are numbered; if there is only one, both numbers mean that one.
#[derive(Clone, Debug)]
pub enum Action {
    Publish {
        channel: usize,
        payload_bytes: usize,
        change: Option<Change>,
    },
    Trim {
        channel: usize,
    },
    AppendForeign {
        channel: usize,
    },
    /// A message arrives at the gateway.
    Receive(usize),
    /// The hub handles a message.
    Handle,
    /// The newest live message is lost without a link failure, and another is published on its
    /// channel, whose predecessor reveals the loss.
    Lose(usize),
    /// The writer takes a frame, and the client receives it.
    Write,
    Heartbeat,
    Watermark(usize),
    BreakLink(usize),
    /// The link is restored, if it is down.
    RestoreLink(usize),
    /// The catch-up advances by one step, if one is needed.
    CatchUp(usize),
    Wipe(usize),
    Reload(usize),
    FailOver(usize, Failover),
    /// A failover or restart that loses nothing, which the gateway can prove.
    Restart {
        server: usize,
        ahead_ms: u64,
    },
    /// The client reconnects to the other gateway, which may have been restarted. It may also have
    /// forgotten its retained values, and say so.
    Reconnect {
        is_new: bool,
        has_values: bool,
    },
    /// All queues together are too long.
    Shed,
}

/// What an event does to the retained values of its channel: it keeps or forgets a key.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The key.
    pub key: usize,
    /// Whether it is kept.
    pub is_kept: bool,
}

pub fn change() -> impl Strategy<Value = Option<Change>> {
    let change = (0..3usize, prop::bool::weighted(0.8));
    prop::option::of(change.prop_map(|(key, is_kept)| Change { key, is_kept }))
}

pub fn number() -> impl Strategy<Value = usize> {
    0..2usize
}

pub fn failover() -> impl Strategy<Value = Action> {
    let ahead_ms = prop_oneof![Just(100), 0..200u64];
    let parts = (number(), [0..4usize, 0..4, 0..4], any::<bool>(), ahead_ms, any::<bool>());
    parts.prop_map(|(server, lost, loses_node, ahead_ms, is_failback)| {
        Action::FailOver(server, Failover { lost, loses_node, ahead_ms, is_failback })
    })
}

/// An action that changes neither logs nor epochs, except by publishing and trimming.
pub fn ordinary() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..3usize, 1..200usize, change()).prop_map(|(channel, payload_bytes, change)| {
            Action::Publish { channel, payload_bytes, change }
        }),
        1 => (0..3usize).prop_map(|channel| Action::Trim { channel }),
        1 => (0..3usize).prop_map(|channel| Action::AppendForeign { channel }),
        6 => number().prop_map(Action::Receive),
        6 => Just(Action::Handle),
        1 => number().prop_map(Action::Lose),
        4 => Just(Action::Write),
        1 => Just(Action::Heartbeat),
        2 => number().prop_map(Action::Watermark),
        1 => number().prop_map(Action::BreakLink),
        2 => number().prop_map(Action::RestoreLink),
        8 => number().prop_map(Action::CatchUp),
        1 => number().prop_map(Action::Reload),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_new, has_values)| Action::Reconnect { is_new, has_values }),
        1 => Just(Action::Shed),
    ]
}

pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => ordinary(),
        1 => number().prop_map(Action::Wipe),
        2 => failover(),
        1 => (number(), 90..110u64)
            .prop_map(|(server, ahead_ms)| Action::Restart { server, ahead_ms }),
    ]
}
