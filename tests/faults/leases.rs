//! Leases of recorders that were lost because the machine was too busy to renew them.

use crate::fleet::Fleet;
use crate::world::World;

/// The line of a gateway that lost a lease.
const LINE: &str = "another instance has the recorder's lease";

/// The processes at the start of a round, and how many leases each had lost.
pub struct Leases(Vec<Option<(i32, usize)>>);

impl Leases {
    /// Counts those of the running gateways.
    pub fn of(fleet: &Fleet) -> Leases {
        Leases((0..fleet.members.len()).map(|n| count(fleet, n)).collect())
    }

    /// Number of leases that gateways have lost since then, without those that a fault touched.
    pub fn lost(&self, world: &World) -> usize {
        let lost = |n: usize| {
            let (pid, now) = count(&world.fleet, n)?;
            let before = self.0[n].filter(|(same, _)| *same == pid).map_or(0, |(_, before)| before);
            Some(now - before)
        };
        let untouched = (0..self.0.len()).filter(|n| !world.touched.contains(n));
        untouched.filter_map(lost).sum()
    }
}

/// The process of gateway `n`, and how many leases it has lost by not renewing them in time.
fn count(fleet: &Fleet, n: usize) -> Option<(i32, usize)> {
    let gateway = fleet.members[n].gateway.as_ref()?;
    let count = gateway.log_text().lines().filter(|line| is_late(line)).count();
    Some((gateway.pid() as i32, count))
}

fn is_late(line: &str) -> bool {
    let is_lost = |line: &serde_json::Value| line["message"] == LINE;
    let line = serde_json::from_str::<serde_json::Value>(line).ok().filter(is_lost);
    line.is_some_and(|line| line["late_ms"].as_u64().is_some_and(|late| late > 0))
}

#[test]
fn only_leases_renewed_too_late_count() {
    let line = |late: u64| format!(r#"{{"message":"{LINE}","role":"writer","late_ms":{late}}}"#);
    assert!(is_late(&line(1)));
    assert!(!is_late(&line(0)));
    assert!(!is_late(r#"{"message":"recorder role changed","late_ms":1}"#));
}
