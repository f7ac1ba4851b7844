//! The delivery latency as an operator reads it: quantiles, estimated from a histogram.

use prometheus::{Histogram, core::Collector};
use serde_json::{Value, json};

/// The quantiles since the start of the instance, and the cumulative buckets, from which a client
/// computes those of an interval.
pub fn latency(histogram: &Histogram) -> Value {
    let families = histogram.collect();
    let metric = families.first().and_then(|family| family.get_metric().first());
    let Some(histogram) = metric.map(|metric| metric.get_histogram()) else { return Value::Null };
    let buckets: Vec<(f64, u64)> = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .collect();
    let count = histogram.get_sample_count();
    let quantile = |q| quantile(&buckets, count, q);
    let listed: Vec<Value> =
        buckets.iter().map(|(le, count)| json!({ "le": le, "count": count })).collect();
    json!({
        "count": count,
        "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99),
        "buckets": listed,
    })
}

/// A quantile in seconds, linear within its bucket; `None` without samples, or beyond the last
/// bucket.
fn quantile(buckets: &[(f64, u64)], count: u64, q: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let rank = q * count as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (upper, upto) in buckets {
        if *upto as f64 >= rank {
            let share = (rank - below as f64) / (upto - below).max(1) as f64;
            return Some(lower + (upper - lower) * share);
        }
        (lower, below) = (*upper, *upto);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let buckets = [(0.001, 50), (0.002, 90), (0.01, 99)];
        assert_eq!(quantile(&buckets, 100, 0.5), Some(0.001));
        assert_eq!(quantile(&buckets, 100, 0.7), Some(0.0015));
        assert_eq!(quantile(&buckets, 100, 0.99), Some(0.01));
        assert_eq!(quantile(&buckets, 100, 0.999), None, "longer than the last bucket");
        assert_eq!(quantile(&buckets, 0, 0.5), None);
    }
}
