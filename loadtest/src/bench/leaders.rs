//! Which server leads in each row of the main table, computed from the medians.

use super::results::{Results, ServerResults};
use super::rows::{Better, MISSING, Row};
use super::servers::SEND_LOOP;

/// Returns the names of the servers with the best median of a row, as shown in the table: several
/// if they are equal, none if nothing can be compared. `send-loop` does not compete: it is the
/// minimum cost of a delivery, not a server.
pub(super) fn leaders<'a>(results: &'a Results, row: &Row) -> Vec<&'a str> {
    let size = &results.size;
    let shown = |server: &ServerResults| {
        let scale = 10f64.powi(i32::try_from(row.decimals).unwrap_or_default());
        row.spread(size, server).map(|spread| (spread.median * scale).round())
    };
    let competes =
        |server: &&ServerResults| server.name != SEND_LOOP && row.comparable(size, server);
    let competitors: Vec<(&str, f64)> = results
        .servers
        .iter()
        .filter(competes)
        .filter_map(|server| Some((server.name.as_str(), shown(server)?)))
        .collect();
    let values = competitors.iter().map(|(_, value)| *value);
    let best = match row.better {
        Better::Neither => None,
        Better::Lower => values.min_by(f64::total_cmp),
        Better::Higher => values.max_by(f64::total_cmp),
    };
    // A server that was measured alone leads nobody.
    let measured =
        |server: &&ServerResults| server.name != SEND_LOOP && row.cell(size, server) != MISSING;
    let best = best.filter(|_| results.servers.iter().filter(measured).count() > 1);
    let leads = |(name, value): &(&'a str, f64)| (Some(*value) == best).then_some(*name);
    competitors.iter().filter_map(leads).collect()
}
