//! Table of the servers.

use super::process::{sibling_binary, version};
use super::{GATEWAY, PLAIN_ACTIX, SEND_LOOP, Server, peers, start};
use crate::bench::workload::Workload;

/// All servers.
pub const SERVERS: [Server; 8] = [
    Server {
        name: GATEWAY,
        what: "this gateway: tickets, users, topics, event ids, log and resume, through Redis \
               (durable publish)",
        version: || sibling_binary("sse-gateway").and_then(|binary| version(&binary, "--version")),
        started_by: "redis-server --save '' --appendonly no --maxmemory-policy noeviction; \
                     SSE_GATEWAY__LIMITS__MAX_CONNECTIONS=19000 sse-gateway serve \
                     (otherwise default settings)",
        start: start::gateway,
        options: GATEWAY_OPTIONS,
        user_options: GATEWAY_OPTIONS,
        unsupported: &[],
    },
    Server {
        name: PLAIN_ACTIX,
        what: "yardstick: actix-web, one broadcast channel read by all streams; one process, \
               no tickets, no resume; Redis only for the events of single users (plain publish)",
        version: || sibling_binary("yardstick-actix").map(|_| "actix-web 4".to_owned()),
        started_by: "redis-server as above; yardstick-actix (2 workers)",
        start: start::plain_actix,
        options: YARDSTICK,
        user_options: &[
            "--kind",
            "plain",
            "--url",
            "http://127.0.0.1:__PORT__/events/{user}",
            "--publish",
            "plain",
            "--redis",
            "redis://127.0.0.1:__REDIS_PORT__",
        ],
        unsupported: &[(Workload::Storm, "it has no log to resume from")],
    },
    Server {
        name: SEND_LOOP,
        what: "yardstick: a loop of send() over all sockets, the minimum cost of a delivery",
        version: || sibling_binary("yardstick-send").map(|_| "-".to_owned()),
        started_by: "yardstick-send (1 thread)",
        start: start::send_loop,
        options: YARDSTICK,
        user_options: &[],
        unsupported: &[
            (Workload::Users, "it has no users"),
            (Workload::Storm, "it has no log to resume from"),
            (Workload::Stalled, "one stalled client blocks all others"),
            (Workload::Idle, "it polls its sockets"),
        ],
    },
    peers::NCHAN,
    peers::PUSHPIN,
    peers::CENTRIFUGO,
    peers::ANYCABLE,
    peers::MERCURE,
];

const GATEWAY_OPTIONS: &[&str] = &[
    "--url",
    "http://127.0.0.1:__PORT__/events",
    "--secret-file",
    "__DIR__/secret",
    "--redis",
    "redis://127.0.0.1:__REDIS_PORT__",
];

const YARDSTICK: &[&str] = &[
    "--kind",
    "plain",
    "--url",
    "http://127.0.0.1:__PORT__/events",
    "--publish",
    "post",
    "--publish-url",
    "http://127.0.0.1:__PORT__/publish",
];

#[cfg(test)]
mod tests {
    use super::SERVERS;

    #[test]
    fn every_server_has_a_style_in_the_plots() {
        let plots = include_str!("../../../plot.py");
        for server in &SERVERS {
            assert!(plots.contains(&format!("    \"{}\": (", server.name)), "{}", server.name);
        }
    }
}
