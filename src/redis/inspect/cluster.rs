//! The report on a cluster: each master is inspected, and equal findings are reported once.

use super::{Finding, ServerReport, Verdict, inspect};
use crate::{
    redis::{
        cluster::{nodes::Node, slots::SLOTS},
        commands::{CommandError, Commands},
    },
    settings::Settings,
};

/// Maximum number of nodes that one finding names.
const LISTED: usize = 10;

/// A finding and the nodes that it concerns.
struct Shared {
    finding: Finding,
    nodes: Vec<String>,
}

/// Reads everything that [`ServerReport`] contains from each master. `nodes`: all nodes of the
/// cluster.
///
/// # Errors
/// No master replies, or one refuses the connection.
pub async fn inspect_cluster(
    commands: &Commands,
    nodes: &[Node],
    settings: &Settings,
) -> Result<ServerReport, CommandError> {
    let address = |node: &Node| format!("{}:{}", node.host, node.port);
    let mut facts =
        vec![("address", commands.address().to_string()), ("mode", "cluster".to_owned())];
    let mut shared: Vec<Shared> = Vec::new();
    let mut failed = None;
    let mut masters = commands.each_server();
    masters.sort_by_key(|master| master.node().and_then(|node| node.slots().iter().next()));
    for master in &masters {
        let name = master.address().to_string();
        let slots = master.node().map(|node| node.slots().to_string()).unwrap_or_default();
        let report = match inspect(master, settings).await {
            Ok(report) => report,
            Err(error) if error.is_login_refusal() => return Err(error),
            Err(error) => {
                facts.push(("master", format!("{name}, slots {slots}, unavailable")));
                let text = "the master does not reply: the channels of its slots are unavailable";
                add(&mut shared, Finding::warning(text), &name);
                failed = Some(error);
                continue;
            }
        };
        let fact = |wanted: &str| {
            let found = report.facts.iter().find(|(name, _)| *name == wanted);
            found.map_or("unknown", |(_, value)| value.as_str())
        };
        facts.push(("master", format!("{name}, slots {slots}, {}", fact("server"))));
        facts.push(("", format!("{}, library {}", fact("role"), fact("library"))));
        for finding in report.findings {
            add(&mut shared, finding, &name);
        }
        if fact("role").contains(", 0 connected replicas") {
            let text = "the master has no replica: while it is down, the channels of its slots are \
                        unavailable; add one with `CLUSTER REPLICATE`";
            add(&mut shared, Finding::warning(text), &name);
        }
    }
    if let Some(error) = failed.filter(|_| facts.iter().all(|(name, _)| !name.is_empty())) {
        return Err(error);
    }
    for node in nodes.iter().filter(|node| node.slots.is_empty()) {
        let name = if node.is_master { "no slots" } else { "replica" };
        let state = if node.has_failed { ", failed" } else { "" };
        facts.push((name, format!("{}{state}", address(node))));
    }
    let mut findings: Vec<Finding> = coverage(nodes).into_iter().collect();
    findings.extend(shared.into_iter().map(|shared| shared.shown(masters.len())));
    Ok(ServerReport { facts, findings })
}

fn add(shared: &mut Vec<Shared>, finding: Finding, node: &str) {
    match shared.iter_mut().find(|known| known.finding == finding) {
        Some(known) => known.nodes.push(node.to_owned()),
        None => shared.push(Shared { finding, nodes: vec![node.to_owned()] }),
    }
}

impl Shared {
    /// The finding with its nodes, unless it is `ok` on all of them.
    fn shown(self, masters: usize) -> Finding {
        let Self { mut finding, nodes } = self;
        if finding.verdict == Verdict::Ok && nodes.len() == masters {
            return finding;
        }
        let listed = nodes[..nodes.len().min(LISTED)].join(", ");
        let more = match nodes.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        finding.text = format!("{} ({listed}{more})", finding.text);
        finding
    }
}

/// Whether each slot has a master.
fn coverage(nodes: &[Node]) -> Option<Finding> {
    let owned: usize = nodes.iter().map(|node| node.slots.iter().count()).sum();
    let missing = usize::from(SLOTS).saturating_sub(owned);
    (missing > 0).then(|| {
        Finding::warning(format!(
            "{missing} slots have no master: the channels in them are unavailable; assign them \
             with `redis-cli --cluster fix`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_findings_are_reported_once_with_their_nodes() {
        let mut shared = Vec::new();
        for node in ["a:1", "b:1", "c:1"] {
            add(&mut shared, Finding::ok("fine"), node);
            if node != "b:1" {
                add(&mut shared, Finding::warning("not fine"), node);
            }
        }
        add(&mut shared, Finding::ok("on one"), "c:1");
        let shown: Vec<String> = shared.into_iter().map(|s| s.shown(3).text).collect();
        assert_eq!(shown, ["fine", "not fine (a:1, c:1)", "on one (c:1)"]);
        let many = (0..12).map(|n| format!("h:{n}")).collect();
        let text = Shared { finding: Finding::error("x"), nodes: many }.shown(12).text;
        assert!(text.ends_with("h:9 and 2 more)"), "{text}");
    }
}
