//! Acceptance criteria for the gateway; `make bench` fails if they are not met.

use super::results::Results;
use super::rows::CPU;
use super::servers::{GATEWAY, PLAIN_ACTIX as YARDSTICK};
use crate::report::Load;

/// Maximum CPU per delivery of the gateway relative to the yardstick. The gateway does more than a
/// plain server.
const MAX_RATIO: f64 = 1.15;

/// Returns the violated criteria as text. CPU is checked only in a `full` run, because a quick run
/// is too short. Servers that were not `selected` are not checked; a selected server without
/// figures is a violation.
pub(super) fn check(results: &Results, full: bool, selected: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    if !selected(GATEWAY) {
        return found;
    }
    let Some(gateway) = results.servers.iter().find(|server| server.name == GATEWAY) else {
        return vec![format!("{GATEWAY} was not measured")];
    };
    let sum = |count: fn(&Load) -> u64| gateway.loads().map(count).sum::<u64>();
    // `idle` has no load.
    if gateway.loads().count() > 0 && sum(|load| load.delivered) == 0 {
        found.push(format!("{GATEWAY}: nothing was delivered"));
    }
    let faults = [
        ("lost", sum(|load| load.lost)),
        ("duplicated", sum(|load| load.doubled)),
        ("out of order", sum(|load| load.out_of_order)),
    ];
    found.extend(
        faults
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{GATEWAY}: {count} {what}, allowed 0")),
    );
    if full && selected(YARDSTICK) {
        let main_streams = results.size.main_streams();
        let yardstick = results.servers.iter().find(|server| server.name == YARDSTICK);
        match yardstick.and_then(|other| CPU.ratio(&results.size, gateway, other)) {
            None => found.push(format!(
                "{GATEWAY}: CPU per delivery relative to {YARDSTICK} was not measured"
            )),
            Some(ratio) if ratio.median > MAX_RATIO => found.push(format!(
                "{GATEWAY}: CPU per delivery is {} times that of {YARDSTICK} at {main_streams} \
                 streams, allowed {MAX_RATIO}",
                ratio.text(2)
            )),
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::results;
    use super::*;

    fn violations(results: &Results) -> Vec<String> {
        check(results, true, |_| true)
    }

    fn gateway_load(results: &mut Results) -> &mut Load {
        results.servers[0].rounds[1][0].load.as_mut().unwrap()
    }

    #[test]
    fn met_criteria_report_nothing() {
        assert_eq!(violations(&results(&[6.0, 12.0, 6.3], 0)), [""; 0]);
        assert_eq!(violations(&results(&[6.8, 13.6, 6.8], 0)), [""; 0]);
    }

    #[test]
    fn single_fault_in_any_round_is_reported() {
        let mut lost = results(&[6.0, 12.0, 6.0], 0);
        gateway_load(&mut lost).lost = 1;
        assert_eq!(violations(&lost), ["sse-gateway: 1 lost, allowed 0"]);
        let mut others = results(&[6.0, 12.0, 6.0], 0);
        gateway_load(&mut others).doubled = 2;
        gateway_load(&mut others).out_of_order = 3;
        assert_eq!(
            violations(&others),
            ["sse-gateway: 2 duplicated, allowed 0", "sse-gateway: 3 out of order, allowed 0"]
        );
        // A quick run does not check CPU, but it does check for lost events.
        assert_eq!(check(&lost, false, |_| true).len(), 1);
    }

    #[test]
    fn faults_of_other_servers_are_ignored() {
        let mut faulty_peer = results(&[6.0, 12.0, 6.0], 0);
        faulty_peer.servers[1].rounds[0][0].load.as_mut().unwrap().lost = 5;
        assert_eq!(violations(&faulty_peer), [""; 0]);
    }

    #[test]
    fn excessive_median_cpu_is_reported() {
        let excessive = results(&[7.0, 14.0, 6.0], 0);
        assert_eq!(
            violations(&excessive),
            ["sse-gateway: CPU per delivery is 1.17 (1.00–1.17) times that of plain-actix at \
                 5000 streams, allowed 1.15"]
        );
        assert_eq!(check(&excessive, false, |_| true), [""; 0]);
        assert_eq!(violations(&results(&[6.0, 14.0, 6.0], 0)), [""; 0]);
    }

    #[test]
    fn selected_but_unmeasured_servers_are_reported() {
        let mut alone = results(&[6.0, 12.0, 6.0], 0);
        alone.servers.remove(1);
        assert_eq!(
            violations(&alone),
            ["sse-gateway: CPU per delivery relative to plain-actix was not measured"]
        );
        assert_eq!(check(&alone, true, |name| name == GATEWAY), [""; 0]);
        alone.servers.remove(0);
        assert_eq!(violations(&alone), ["sse-gateway was not measured"]);
        assert_eq!(check(&alone, true, |name| name == YARDSTICK), [""; 0]);
        let mut silent = results(&[6.0, 12.0, 6.0], 0);
        silent.servers[0]
            .rounds
            .iter_mut()
            .flatten()
            .for_each(|point| point.load.as_mut().unwrap().delivered = 0);
        assert!(violations(&silent).contains(&"sse-gateway: nothing was delivered".to_owned()));
    }
}
