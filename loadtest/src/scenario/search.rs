//! Scenario `slow-publish`: finds the highest sustainable broadcast rate. Doubles the rate while it
//! is sustained, then bisects between the last sustained and the first unsustained rate.

use std::time::Duration;

use super::Run;
use crate::option_values::MAX_RATE;
use crate::report::{Load, Search, Step};

/// Bisections between the last sustained and the first unsustained rate.
const HALVINGS: u32 = 4;

/// Tries each rate for `duration`.
pub(super) async fn run(run: &mut Run, duration: Duration, p99: Duration) -> Result<(), String> {
    let mut search = Search { highest_rate: 0.0, steps: Vec::new() };
    let mut rate = run
        .schedule
        .as_ref()
        .map(|schedule| schedule.broadcasts_per_s)
        .unwrap_or_else(|| unreachable!("setup requires a schedule for this scenario"));
    let mut too_high = None;
    let mut halvings = 0;
    while rate <= MAX_RATE && halvings < HALVINGS {
        if let Some(schedule) = &mut run.schedule {
            schedule.broadcasts_per_s = rate;
        }
        let load = run.load(async |_| super::pause(duration).await).await?;
        let step = step(rate, &load, p99);
        match step.fell_behind {
            None => search.highest_rate = rate,
            Some(_) => too_high = Some(rate),
        }
        let lost = load.lost;
        search.steps.push(step);
        run.report.load = Some(load);
        if lost > 0 {
            // The next step would count these lost events too.
            break;
        }
        rate = match too_high {
            None => rate * 2.0,
            Some(too_high) => {
                halvings += 1;
                f64::midpoint(search.highest_rate, too_high)
            }
        };
    }
    run.report.search = Some(search);
    Ok(())
}

fn step(rate: f64, load: &Load, p99: Duration) -> Step {
    let limit_ms = p99.as_secs_f64() * 1000.0;
    let fell_behind = if load.lost > 0 {
        Some(format!("{} events lost", load.lost))
    } else if load.published.unsent > 0 {
        Some(format!("{} events not sent: the publisher was the bottleneck", load.published.unsent))
    } else if load.published.failed > 0 {
        Some(format!("{} events could not be published", load.published.failed))
    } else if load.latency.p99_ms > limit_ms {
        Some(format!("p99 above {limit_ms:.0} ms"))
    } else {
        None
    };
    Step {
        rate,
        deliveries_per_s: load.deliveries_per_s,
        p99_ms: load.latency.p99_ms,
        server_cpu_s_per_million: load.server_cpu.map(|cpu| cpu.total_s),
        tool_cpu_percent: load.tool_cpu_percent,
        fell_behind,
    }
}
