//! Several stream counts with one server: ascending to measure idle streams, then descending to
//! measure deliveries. Ascending first, because a load leaves buffers behind that would count as
//! memory of idle streams.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Run, pause, setup};
use crate::args::Common;
use crate::report::{Breaks, Connect, Load, Memory};

/// Duration of the load before the measured load.
const WARM_UP: Duration = Duration::from_millis(500);

/// Cost at one stream count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScalePoint {
    /// Number of streams.
    pub streams: u32,
    /// Broadcasts per second.
    pub rate: f64,
    /// Figures for opening the last streams of this count.
    pub connect: Connect,
    /// Memory of idle streams.
    pub memory: Memory,
    /// Cost of deliveries.
    pub load: Option<Load>,
    /// Cost of deliveries at a lower rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_rate: Option<LowRate>,
    /// Streams that ended without a request since the previous stream count; absent in results of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaks: Option<Breaks>,
}

/// Deliveries at a rate at which no server falls behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LowRate {
    /// Broadcasts per second.
    pub rate: f64,
    /// Cost of deliveries.
    pub load: Load,
}

/// Stream counts and rates of `measure`.
#[derive(Clone, Copy, Debug)]
pub struct Scale<'a> {
    /// Stream counts, ascending.
    pub counts: &'a [u32],
    /// Rate limit, in deliveries per second: a server that falls behind writes several events at
    /// once and looks cheaper than it is. Reduces the rate of `--rate`.
    pub max_deliveries_per_s: f64,
    /// Stream count at which to measure another load, and its broadcasts per second.
    pub low_rate: Option<(u32, f64)>,
}

/// Measures each stream count. Must run in a `LocalSet`.
pub async fn measure(common: &Common, scale: Scale<'_>) -> Result<Vec<ScalePoint>, String> {
    let max_streams = scale.counts.last().copied().ok_or("no stream counts to measure")?;
    let mut run = setup::run("broadcast", &Common { streams: max_streams, ..common.clone() })?;
    let mut points = Vec::new();
    run.active = 0;
    for &streams in scale.counts {
        let (connect, memory) = run.open(streams, common).await?;
        let rate = common.rate.min(scale.max_deliveries_per_s / f64::from(streams));
        let (load, low_rate, breaks) = (None, None, None);
        points.push(ScalePoint { streams, rate, connect, memory, load, low_rate, breaks });
    }
    let mut counted = Breaks::default();
    for point in points.iter_mut().rev() {
        run.fleet.cut(point.streams..run.active).await;
        run.active = point.streams;
        // Gives the server time to process the disconnects.
        tokio::time::sleep(run.settle).await;
        // Costs that appear with the first write (a closed stream, a first buffer) are over before
        // the measured load.
        load(&mut run, point.rate, WARM_UP).await?;
        if let Some((_, rate)) = scale.low_rate.filter(|(streams, _)| *streams == point.streams) {
            let load = load(&mut run, rate, common.duration).await?;
            point.low_rate = Some(LowRate { rate, load });
        }
        point.load = Some(load(&mut run, point.rate, common.duration).await?);
        if point.streams == max_streams {
            // At lower counts the server still holds memory from the streams that were open before.
            point.memory.server_bytes_per_loaded_stream = run.server_bytes_per_stream();
        }
        let now = Breaks::new(&run.fleet.env.stats);
        point.breaks = Some(now.since(counted));
        counted = now;
    }
    Ok(points)
}

async fn load(run: &mut Run, rate: f64, duration: Duration) -> Result<Load, String> {
    if let Some(schedule) = &mut run.schedule {
        schedule.broadcasts_per_s = rate;
    }
    run.load(async |_| pause(duration).await).await
}
