//! Several stream counts with one server: ascending to measure idle streams, then descending to
//! measure deliveries. Ascending first, because a load leaves buffers behind that would count as
//! memory of idle streams.

use std::time::Duration;

use serde::Serialize;

use super::{pause, setup};
use crate::args::Common;
use crate::report::{Connect, Load, Memory};

/// Duration of the load before the measured load.
const WARM_UP: Duration = Duration::from_millis(500);

/// Cost at one stream count.
#[derive(Clone, Debug, Serialize)]
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
}

/// Measures each stream count. `counts` must be ascending. The rate is reduced where `--rate` would
/// exceed `max_deliveries_per_s`, because a server that falls behind writes several events at once
/// and looks cheaper than it is. Must run in a `LocalSet`.
pub async fn measure(
    common: &Common,
    counts: &[u32],
    max_deliveries_per_s: f64,
) -> Result<Vec<ScalePoint>, String> {
    let max_streams = counts.last().copied().ok_or("no stream counts to measure")?;
    let mut run = setup::run("broadcast", &Common { streams: max_streams, ..common.clone() })?;
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
        // Gives the server time to process the disconnects.
        tokio::time::sleep(run.settle).await;
        if let Some(schedule) = &mut run.schedule {
            schedule.broadcasts_per_s = point.rate;
        }
        // Costs that appear with the first write (a closed stream, a first buffer) are over before
        // the measured load.
        run.load(async |_| pause(WARM_UP).await).await?;
        point.load = Some(run.load(async |_| pause(common.duration).await).await?);
        if point.streams == max_streams {
            // At lower counts the server still holds memory from the streams that were open before.
            point.memory.server_bytes_per_loaded_stream = run.server_bytes_per_stream();
        }
    }
    Ok(points)
}
