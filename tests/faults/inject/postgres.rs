//! Faults of the server whose outbox the gateways read.

use crate::world::World;
use std::time::{Duration, Instant};

/// Kills it, and starts it again after a while.
pub async fn kill(world: &mut World) -> Instant {
    world.postgres.kill9();
    world.acknowledged(20).await;
    world.postgres.start_again().await;
    Instant::now()
}

/// Stops it for longer than the gateways wait for it, without the kernel closing anything.
pub async fn freeze(world: &mut World) -> Instant {
    world.postgres.freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.postgres.thaw();
    Instant::now()
}
