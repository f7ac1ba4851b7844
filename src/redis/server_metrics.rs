//! The metrics of the Redis servers, as of now. Series of servers that are not used any more end.

use super::servers::Servers;
use crate::metrics::Metrics;

/// Updates the metrics before a scrape. Only one thread may do that.
pub fn update(metrics: &Metrics, servers: &Servers) {
    metrics.server_link_up.reset();
    metrics.server_watermark_age.reset();
    metrics.server_epoch_changes.reset();
    metrics.server_slots.reset();
    metrics.server_slots_migrating.reset();
    let all = servers.all();
    let (mut is_every_link_up, mut subscriptions, mut oldest) = (!all.is_empty(), 0, None);
    for info in all.iter().map(|server| &server.info) {
        let (state, age) = (&info.state, info.state.watermark_age());
        is_every_link_up &= state.is_up();
        subscriptions += state.subscriptions();
        oldest = oldest.max(age);
        let Some(address) = info.address() else { continue };
        let server = &[&*address];
        metrics.server_link_up.with_label_values(server).set(i64::from(state.is_up()));
        metrics.server_epoch_changes.with_label_values(server).inc_by(state.epoch_changes());
        if let Some(age) = age {
            metrics.server_watermark_age.with_label_values(server).set(age.as_secs_f64());
        }
        if let Some(node) = &info.node {
            metrics.server_slots.with_label_values(server).set(node.slots().count() as i64);
            let migrating = node.migrating() as i64;
            metrics.server_slots_migrating.with_label_values(server).set(migrating);
        }
    }
    metrics.link_up.set(i64::from(is_every_link_up));
    metrics.subscriptions.set(subscriptions as i64);
    if let Some(age) = oldest {
        metrics.watermark_age.set(age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::servers::{
        Server,
        testing::{cluster, master, single},
    };

    fn shown(servers: &Servers) -> String {
        let metrics = Metrics::new();
        update(&metrics, servers);
        String::from_utf8(metrics.encode()).unwrap()
    }

    fn three() -> Vec<Server> {
        let masters = vec![
            master(0, "a", 0..5000),
            master(1, "b", 5000..10_000),
            master(2, "c", 10_000..16_384),
        ];
        masters.iter().for_each(|server| server.info.state.set_up(true));
        masters.iter().for_each(|server| server.info.state.set_subscriptions(7));
        masters
    }

    #[test]
    fn link_is_up_only_while_every_link_is() {
        let masters = three();
        let servers = cluster(masters.clone());
        let text = shown(&servers);
        assert!(text.contains("\nsse_redis_link_up 1\n"), "{text}");
        assert!(text.contains("\nsse_subscriptions 21\n"));
        assert!(text.contains("\nsse_redis_server_slots{server=\"c:6379\"} 6384\n"));
        masters[1].info.state.set_up(false);
        masters[1].info.state.set_subscriptions(0);
        let text = shown(&servers);
        assert!(text.contains("\nsse_redis_link_up 0\n"));
        assert!(text.contains("\nsse_subscriptions 14\n"));
        for (host, is_up) in [("a", 1), ("b", 0), ("c", 1)] {
            let line = format!("\nsse_redis_server_link_up{{server=\"{host}:6379\"}} {is_up}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn series_of_a_removed_server_end() {
        let (metrics, masters) = (Metrics::new(), three());
        let servers = cluster(masters.clone());
        masters[2].info.state.enter_epoch(1);
        masters[2].info.state.enter_epoch(2);
        update(&metrics, &servers);
        update(&metrics, &servers);
        let text = String::from_utf8(metrics.encode()).unwrap();
        let changes = "sse_redis_server_epoch_changes_total{server=\"c:6379\"} 1\n";
        assert!(text.contains(changes), "{text}");
        servers.set_masters(masters[..2].to_vec());
        update(&metrics, &servers);
        let text = String::from_utf8(metrics.encode()).unwrap();
        assert!(text.contains("server=\"b:6379\"") && !text.contains("server=\"c:6379\""));
    }

    #[test]
    fn single_server_has_a_series_once_it_is_located() {
        let servers = single();
        assert!(!shown(&servers).contains("server="));
        servers.all()[0].info.set_located("redis:6379");
        let text = shown(&servers);
        assert!(text.contains("\nsse_redis_server_link_up{server=\"redis:6379\"} 0\n"), "{text}");
        assert!(text.contains("\nsse_redis_link_up 0\n"));
        assert!(!text.contains("sse_redis_server_slots{"), "there is no cluster");
    }
}
