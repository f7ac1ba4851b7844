//! The servers whose logs are searched, and their clocks.

use std::time::Instant;

use super::{self as events, Bounds, Search};
use crate::{
    core::{catch_up::ClockSnapshot, channel::Channel, id::EventId, part::Part},
    redis::commands::{CommandError, Commands},
};

/// The one server, or the masters of a cluster, that gateways use.
pub(super) struct KnownServers {
    servers: Vec<(Commands, ClockSnapshot)>,
    /// The addresses of masters that did not reply.
    pub unavailable: Vec<String>,
}

impl KnownServers {
    /// Reads the clock of each server; of one only if the channel is known.
    ///
    /// # Errors
    /// No server replies, or one refuses the call.
    pub async fn of(commands: &Commands, channel: Option<&Channel>) -> Result<Self, CommandError> {
        let all = match channel {
            Some(channel) => vec![commands.of_key(&commands.keys.log(channel))?],
            None => commands.each_server(),
        };
        let mut known = Self { servers: Vec::new(), unavailable: Vec::new() };
        let mut failed = None;
        for server in all {
            match events::clock_snapshot(&server).await {
                Ok(Some(clock)) => known.servers.push((server, clock)),
                Ok(None) => {}
                Err(error @ CommandError::Rejected(_)) => return Err(error),
                Err(error) => {
                    known.unavailable.push(server.address().to_string());
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if known.servers.is_empty() => Err(error),
            _ => Ok(known),
        }
    }

    /// The clock of the server that assigned an id: the one in whose epoch it is, otherwise the one
    /// with the latest epoch. `None`: no gateway has used these servers.
    pub fn clock_of(&self, id: EventId) -> Option<ClockSnapshot> {
        let clocks = || self.servers.iter().map(|(_, clock)| *clock);
        let own = clocks().find(|clock| clock.h.epoch == id.epoch);
        own.or_else(|| clocks().max_by_key(|clock| clock.h))
    }

    /// Whether no server can have assigned the id yet.
    pub fn is_ahead(&self, id: EventId) -> bool {
        self.unavailable.is_empty() && self.servers.iter().all(|(_, clock)| id > clock.h)
    }

    /// The server that has a channel, and its clock. `None`: it did not reply.
    ///
    /// # Errors
    /// No server is known to have the channel.
    pub fn of_channel(
        &self,
        commands: &Commands,
        channel: &Channel,
    ) -> Result<Option<(Commands, ClockSnapshot)>, CommandError> {
        let address = commands.of_key(&commands.keys.log(channel))?.address();
        Ok(self.servers.iter().find(|(server, _)| server.address() == address).cloned())
    }

    /// Searches the logs of all servers for the ids of the parts.
    ///
    /// # Errors
    /// A server does not reply, or refuses the search.
    pub async fn search(
        &self,
        sides: &[(Part, EventId)],
        bounds: Bounds,
    ) -> Result<Search, CommandError> {
        let began = Instant::now();
        let complete = self.unavailable.is_empty();
        let mut found = Search { complete, ..Search::default() };
        for (server, _) in &self.servers {
            for (part, id) in sides {
                let bounds = Bounds {
                    logs: bounds.logs.saturating_sub(found.logs),
                    time: bounds.time.saturating_sub(began.elapsed()),
                };
                found.add(events::search(server, *id, *part, bounds).await?);
            }
        }
        Ok(found)
    }
}
