//! Presence: what the events say about each user, what `GET /presence` says, and what is true.

use crate::checker::{Findings, Rules};
use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::parser::Event;
use crate::world::World;
use std::collections::{BTreeSet, HashMap};

/// The user whose client gets the events.
pub const WATCHER: &str = "watcher";
/// The channel of the events.
const CHANNEL: &str = "broadcast:presence";
const KEY: &str = "an admin's key";

/// Enables presence with short times, so that rounds can wait for them.
pub fn enable(builder: Builder) -> Builder {
    builder
        .env("PRESENCE__ENABLED", "true")
        .env("PRESENCE__LINGER", "1s")
        .env("PRESENCE__LEASE", "4s")
        .env("API_KEYS", &api_keys(&[(KEY, "admin")]))
}

/// What a client that gets the events knows.
#[derive(Clone, Default)]
pub struct View {
    /// Whether a user is online, for each user with an event since the last gap.
    pub online: HashMap<String, bool>,
    /// Events of this round that said what was known already.
    pub repeated: Vec<String>,
}

impl View {
    /// Applies an event.
    pub fn apply(&mut self, event: &Event) {
        let is_online = match &*event.event {
            "sse.online" => true,
            "sse.offline" => false,
            "sse.gap" => {
                let channels = event.json()["channels"].clone();
                let names = channels.as_array().into_iter().flatten();
                let mut names = names.filter_map(|name| name.as_str());
                if names.any(|name| name == CHANNEL || name == "broadcast:*") {
                    self.online.clear();
                }
                return;
            }
            _ => return,
        };
        let user = user_of(event).unwrap_or_default();
        if self.online.insert(user, is_online) == Some(is_online) {
            self.repeated.push(event.to_string());
        }
    }
}

/// The user in an event.
pub fn user_of(event: &Event) -> Option<String> {
    event.json()["user"].as_str().map(str::to_owned)
}

/// Compares what the events and the gateways say with the clients that are connected. Guests have
/// left. If Redis discarded what it knew, events may repeat what they said before that.
pub async fn check(world: &World, rules: &Rules) -> Findings {
    let mut wrong = Vec::new();
    let online: BTreeSet<&str> = world.clients.iter().map(|c| c.user.as_str()).collect();
    let gone = world.guests.iter().map(|guest| (guest.user.as_str(), false));
    let users: Vec<(&str, bool)> = online.iter().map(|user| (*user, true)).chain(gone).collect();
    let view = world.watcher().read(|log| log.presence.clone());
    for (n, (user, truth)) in users.into_iter().enumerate() {
        if view.online.get(user).is_some_and(|known| *known != truth) {
            wrong.push(format!("{user}: the last event does not say that online is {truth}"));
        }
        let said = world.fleet.presence(n % world.fleet.members.len(), user, KEY).await;
        if said != Some(truth) {
            wrong.push(format!("{user}: GET /presence says {said:?}, not {truth}"));
        }
    }
    if !rules.discards {
        wrong.extend(view.repeated.iter().map(|event| format!("repeated: {event}")));
    }
    Findings { presence: wrong, offline: offline_times(world), ..Findings::default() }
}

/// The time from the end of each guest's stream to its `sse.offline`, where that arrived.
fn offline_times(world: &World) -> Vec<std::time::Duration> {
    let arrived = |user: &str| {
        world.watcher().read(|log| {
            let offline = log.received.iter().filter(|r| r.event.event == "sse.offline");
            offline.filter(|r| user_of(&r.event).as_deref() == Some(user)).map(|r| r.at).next_back()
        })
    };
    let times = world.guests.iter().filter_map(|guest| {
        let ended = guest.read(|log| log.ended.last().copied())?;
        Some(arrived(&guest.user)?.saturating_duration_since(ended))
    });
    times.collect()
}
