//! The page docs/operations/reliability.md: one row for each round.

use crate::round::Outcome;
use std::process::Command;
use std::time::Duration;

const HEAD: [&str; 14] = [
    "deployment",
    "publishers",
    "fault",
    "acknowledged",
    "due",
    "lost and notified",
    "lost although kept",
    "lost without notification",
    "duplicated",
    "out of order",
    "unnecessary gaps",
    "precautionary gaps",
    "broken streams",
    "recovery p50 / max (ms)",
];

const TEXT: &str = "\
Results of the fault suite (`tests/faults`): three gateways of a build of this repository, real
Redis processes, 16 clients that behave like `EventSource` behind a round-robin balancer, two
durable publishers and, where named, two plain ones.

`make faults` writes this page, and `FAULTS_SEED` repeats its random parts.
`FAULTS_ONLY` and `FAULTS_KIND` choose faults and deployments by parts of their names.

- **acknowledged**: events that Redis confirmed, durable + plain.
  A plain event counts if a recorder was subscribed.
- **due**: deliveries that the clients must get.
- **lost and notified**: deliveries that a client did not get, and for which it got `sse.gap`.
  Redis had discarded these events, or no recorder had received them.
- **lost although kept**: durable events among them that Redis had not discarded.
  These, **lost without notification**, **duplicated**, **out of order**: violations of the
  guarantees.
- **unnecessary gaps**: `sse.gap` although nothing was lost, or may have been lost without a trace.
- **precautionary gaps**: the same with reason `unrecorded` beside plain publishers: the recorder
  lost its lease because the machine was busy.
- **broken streams**: responses after which a browser never reconnects, and streams that ended
  although no gateway did.
- **recovery**: from the end of the fault, or from the decision of the sentinels, to the first
  delivery.

With replicas, `min-replicas-to-write` is 1, `min-replicas-max-lag` is 1 s and
`down-after-milliseconds` is 3000, except behind the naive proxy: there it is 0.
";

/// The page of these outcomes.
pub fn page(outcomes: &[Outcome], seed: u64, took: Duration) -> String {
    let mut page = format!("# Reliability\n\n{TEXT}\n## Results\n\n{}\n\n", facts(seed, took));
    page.push_str(&format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len())));
    for outcome in outcomes {
        page.push_str(&row(outcome));
        page.push('\n');
    }
    page
}

/// Commit, machine, duration and seed.
fn facts(seed: u64, took: Duration) -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let date = output("date", &["-u", "+%Y-%m-%d"]);
    let redis = output("redis-server", &["--version"]);
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{date}, commit {commit}, {build} build, Redis {redis}, {cores} cores, {} minutes.\n\
         Repeat with `FAULTS_SEED={seed} make faults`.",
        took.as_secs() / 60
    )
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    let text = done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

/// One line of the table.
pub fn row(outcome: &Outcome) -> String {
    let f = &outcome.findings;
    let mut recovery = f.recovery.clone();
    recovery.sort();
    let at = |part: usize| recovery.get(recovery.len().saturating_sub(1) * part / 100);
    let ms = |time: Option<&Duration>| time.map_or("-".to_owned(), |t| t.as_millis().to_string());
    let cells = [
        outcome.deployment.clone(),
        if outcome.plain > 0 { "durable, plain" } else { "durable" }.to_owned(),
        outcome.faults.clone(),
        format!("{} + {}", outcome.durable, outcome.plain),
        f.due.to_string(),
        f.notified.to_string(),
        f.kept.len().to_string(),
        f.silent.len().to_string(),
        f.duplicated.len().to_string(),
        f.disordered.len().to_string(),
        f.unnecessary.len().to_string(),
        f.tolerated.to_string(),
        f.broken.len().to_string(),
        format!("{} / {}", ms(at(50)), ms(at(100))),
    ];
    format!("| {} |", cells.join(" | "))
}
