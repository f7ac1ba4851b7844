//! Ratios of the gateway to other servers in the same round, with their limits. They are shown and
//! do not change the exit status: CPU on a busy machine varies too much.

use super::results::Results;
use super::rows::{CONNECT_CPU, CPU, LOW_CPU, Row, STORM_CPU, STORM_TIME, USER_CPU};
use super::servers::{GATEWAY, NCHAN, PLAIN_ACTIX, SEND_LOOP};
use super::spread::Spread;

/// Required ratio.
struct Required {
    row: Row,
    /// Server to compare with.
    other: &'static str,
    /// Maximum ratio.
    max: f64,
}

const REQUIRED: [Required; 10] = [
    Required { row: CONNECT_CPU, other: PLAIN_ACTIX, max: 1.75 },
    Required { row: LOW_CPU, other: SEND_LOOP, max: 1.15 },
    Required { row: CPU, other: SEND_LOOP, max: 1.15 },
    Required { row: LOW_CPU, other: PLAIN_ACTIX, max: 1.0 },
    Required { row: CPU, other: PLAIN_ACTIX, max: 1.0 },
    Required { row: LOW_CPU, other: NCHAN, max: 1.0 },
    Required { row: CPU, other: NCHAN, max: 1.0 },
    Required { row: USER_CPU, other: PLAIN_ACTIX, max: 1.0 },
    Required { row: STORM_TIME, other: NCHAN, max: 1.0 },
    Required { row: STORM_CPU, other: NCHAN, max: 1.0 },
];

/// Ratio of the gateway to another server.
pub(super) struct Ratio {
    /// Name of the row.
    pub(super) row: String,
    /// Server to compare with.
    pub(super) other: &'static str,
    /// Median and range of the rounds.
    pub(super) found: Spread,
    /// Maximum ratio.
    pub(super) max: f64,
}

impl Ratio {
    /// Returns whether the median is within the limit.
    pub(super) fn is_met(&self) -> bool {
        self.found.median <= self.max
    }
}

/// Returns the ratios that were measured.
pub(super) fn ratios(results: &Results) -> Vec<Ratio> {
    let server = |name: &str| results.servers.iter().find(|server| server.name == name);
    let Some(gateway) = server(GATEWAY) else { return Vec::new() };
    let found = |required: &Required| {
        Some(Ratio {
            row: required.row.name(&results.size),
            other: required.other,
            found: required.row.ratio(&results.size, gateway, server(required.other)?)?,
            max: required.max,
        })
    };
    REQUIRED.iter().filter_map(found).collect()
}
