//! Faults of a single Redis server.

use crate::deployment::{Route, Server};
use crate::fleet::Role;
use crate::harness::{Proxy, eventually};
use crate::publisher::Publisher;
use crate::world::World;
use std::time::{Duration, Instant};

fn server(world: &World) -> &Server {
    &world.deployment.servers[0]
}

/// Kills Redis, and starts it again with its append-only file.
pub async fn kill(world: &mut World) -> Instant {
    server(world).kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server(world).run().await;
    eventually("data that is loaded", || async {
        server(world).try_command::<String>(&["PING"]).await.ok()
    })
    .await;
    Instant::now()
}

/// Stops Redis for longer than any timeout of the gateways.
pub async fn freeze(world: &mut World) -> Instant {
    server(world).freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    server(world).thaw();
    Instant::now()
}

/// Waits until Redis has the links of all gateways, which the fault before may have cut.
async fn linked(world: &World) {
    eventually("links of all gateways", || async {
        let words = ["PUBSUB", "SHARDNUMSUB", "sse:live:{broadcast}"];
        let (_, links): (String, usize) = server(world).try_command(&words).await.ok()?;
        (links == world.fleet.members.len()).then_some(())
    })
    .await;
}

/// Disconnects every subscriber.
pub async fn kill_pubsub(world: &mut World) -> Instant {
    linked(world).await;
    let killed: i64 = server(world).command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert!(killed > 0, "no link was killed");
    Instant::now()
}

/// A gateway that reads nothing exceeds the output buffer of its link.
pub async fn output_buffer(world: &mut World) -> Instant {
    linked(world).await;
    let n = world.gateway_with(Role::Writer).await;
    world.touched.insert(n);
    let limit = "client-output-buffer-limit";
    let redis = server(world);
    redis.command::<()>(&["CONFIG", "SET", limit, "pubsub 65536 0 0"]).await;
    world.fleet.gateway(n).freeze();
    let padding = "x".repeat(60_000);
    eventually("a killed link", || async {
        for _ in 0..20 {
            // No key and no client: only the output buffers grow.
            let words = ["SPUBLISH", "sse:live:{broadcast}", &format!("filler {padding}")];
            redis.command::<i64>(&words).await;
        }
        let log = std::fs::read_to_string(redis.path("log")).ok()?;
        log.contains("overcoming of output buffer limits").then_some(())
    })
    .await;
    redis.command::<()>(&["CONFIG", "SET", limit, "pubsub 33554432 8388608 60"]).await;
    world.fleet.gateway(n).thaw();
    Instant::now()
}

/// Deletes all keys.
pub async fn flush_all(world: &mut World) -> Instant {
    server(world).command::<()>(&["FLUSHALL"]).await;
    Instant::now()
}

/// Deletes all keys, and with them events that no gateway has received.
pub async fn flush_all_unseen(world: &mut World) -> Instant {
    let links = || world.fleet.members.iter().map(|member| &member.link);
    links().for_each(Proxy::down);
    world.acknowledged(40).await;
    server(world).command::<()>(&["FLUSHALL"]).await;
    links().for_each(Proxy::up);
    Instant::now()
}

/// Deletes the function library. The gateways load it again.
pub async fn flush_functions(world: &mut World) -> Instant {
    server(world).command::<()>(&["FUNCTION", "FLUSH"]).await;
    let flushed = Instant::now();
    // Another fault may cut off all gateways: then nobody would load it.
    eventually("a library", || async {
        let words = ["FCALL", "sse_publish", "1", "user:nobody:events", "probe", "1"];
        server(world).try_command::<String>(&words).await.ok()
    })
    .await;
    // `make soak` compares keys.
    server(world).command::<i64>(&["DEL", "sse:log:{user:nobody:events}"]).await;
    flushed
}

/// Redis rejects writes for a while.
pub async fn out_of_memory(world: &mut World) -> Instant {
    server(world).command::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    server(world).command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    Instant::now()
}

/// Sets the clock of Redis back by an hour. The next fault of this kind sets it back further.
pub async fn clock_back(world: &mut World) -> Instant {
    world.clock_s -= 3600;
    let offset = world.clock_s;
    server(world).set_clock(offset);
    eventually("a clock that was set back", || async {
        let time: (i64, i64) = server(world).try_command(&["TIME"]).await.ok()?;
        let now = crate::harness::now_ms() as i64 / 1000;
        (time.0 < now + offset + 60).then_some(())
    })
    .await;
    Instant::now()
}

/// Every second connection of a gateway reaches a server with another history, while its link and
/// the publishers use the first one, and all clients resume.
pub async fn two_behind_one_address(world: &mut World) -> Instant {
    let stranger = Server::start(&[]).await;
    copy_library(server(world), &stranger).await;
    let address = stranger.address().parse().expect("an address");
    world.deployment.entrance.set(1, Some(address));
    // Leases are renewed through connections that are cut, or that reach the other server.
    world.touched.extend(0..world.fleet.members.len());
    for _ in 0..12 {
        // Pooled connections are opened again; links stay.
        server(world).command::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        world.fleet.balancer.cut();
        world.acknowledged(20).await;
    }
    world.deployment.entrance.set(1, None);
    Instant::now()
}

/// The same, while publishers also reach both servers, and the gateways' links are cut, one after
/// the other, so that they may reach the other server.
pub async fn two_in_use(world: &mut World) -> Instant {
    let stranger = Server::start(&[]).await;
    copy_library(server(world), &stranger).await;
    let entrance = &world.deployment.entrance;
    let publishing = async {
        for channel in world.channels.iter().cycle() {
            // A new connection each time.
            let route = Route::Fixed(entrance.address().to_string());
            Publisher::new(route, world.journal.clone()).durable(channel, 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let fault = async {
        entrance.set(1, Some(stranger.address().parse().expect("an address")));
        for member in &world.fleet.members {
            tokio::time::sleep(Duration::from_secs(1)).await;
            member.link.cut();
        }
        eventually("a second server that refuses events", || async {
            let words = ["FCALL", "sse_publish", "1", "user:nobody:events", "probe", "1"];
            stranger.try_command::<String>(&words).await.err()
        })
        .await;
        entrance.set(1, None);
    };
    tokio::select! {
        () = fault => {}
        () = publishing => unreachable!("endless"),
    }
    Instant::now()
}

/// Both servers have been used by gateways.
async fn copy_library(from: &Server, to: &Server) {
    let mut connection = from.connect().await.expect("a connection");
    let dump: Vec<u8> =
        redis::cmd("FUNCTION").arg("DUMP").query_async(&mut connection).await.expect("a library");
    let mut connection = to.connect().await.expect("a connection");
    let mut restore = redis::cmd("FUNCTION");
    let restored = restore.arg("RESTORE").arg(dump).query_async::<()>(&mut connection).await;
    restored.expect("a restored library");
}
