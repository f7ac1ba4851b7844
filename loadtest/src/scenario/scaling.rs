//! Many numbers of streams in one run of a server: up for what an idle stream costs, down for what a delivery costs. Up first,
//! since a load leaves buffers behind that would count as the idle streams' own.

use std::time::Duration;

use serde::Serialize;

use super::{pause, setup};
use crate::args::Common;
use crate::report::{Connect, Load, Memory};

/// Load before the load that is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a number of streams cost.
#[derive(Clone, Debug, Serialize)]
pub struct ScalePoint {
    /// How many.
    pub streams: u32,
    /// Broadcasts a second.
    pub rate: f64,
    /// How the last of them were opened.
    pub connect: Connect,
    /// What they cost at rest.
    pub memory: Memory,
    /// What deliveries to them cost.
    pub load: Option<Load>,
}

/// Climbs up and down. `counts` rises; where `--rate` would make more than `max_deliveries_per_s`, the rate falls: a server that cannot keep
/// up writes several events at once, and looks cheaper than it is. Call inside of a `LocalSet`.
pub async fn measure(
    common: &Common,
    counts: &[u32],
    max_deliveries_per_s: f64,
) -> Result<Vec<ScalePoint>, String> {
    let most = counts.last().copied().ok_or("no stream counts to measure")?;
    let mut run = setup::run("broadcast", &Common { streams: most, ..common.clone() })?;
    let mut points = Vec::new();
    run.active = 0;
    for &streams in counts {
        let (connect, memory) = run.open(streams, common).await?;
        let rate = common.rate.min(max_deliveries_per_s / f64::from(streams));
        points.push(ScalePoint { streams, rate, connect, memory, load: None });
    }
    for point in points.iter_mut().rev() {
        run.fleet.cut(point.streams..run.active).await;
        run.active = point.streams;
        // The server takes note of those that left.
        tokio::time::sleep(run.settle).await;
        if let Some(schedule) = &mut run.schedule {
            schedule.broadcasts_per_s = point.rate;
        }
        // Whatever is only noticed by writing (a stream that left, a first buffer) is over before the load is measured.
        run.load(async |_| pause(WARM_UP).await).await?;
        point.load = Some(run.load(async |_| pause(common.duration).await).await?);
        if point.streams == most {
            // Further down the server still holds what the streams above left behind.
            point.memory.server_bytes_per_loaded_stream = run.server_bytes_per_stream();
        }
    }
    Ok(points)
}
