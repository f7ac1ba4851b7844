//! The page docs/operations/reliability.md: one row for each round.

use crate::round::Outcome;
use std::process::Command;
use std::time::Duration;

const HEAD: [&str; 20] = [
    "run",
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
    "leases lost",
    "broken streams",
    "outdated values",
    "presence wrong",
    "undelivered wrong",
    "recovery p50 / max (ms)",
    "offline p50 / max (ms)",
];

const TEXT: &str = "\
Results of the fault suite (`tests/faults`): three gateways of a build of this repository, real
Redis processes, 17 clients that behave like `EventSource` behind a round-robin balancer (and three
more in each round), two durable publishers, a writer of rows to a Postgres outbox and, where named,
two plain publishers.
Runs of commits before 3c2da79 had no outbox.

`make faults` writes this page.
A run is named by its seed: `FAULTS_SEED` repeats its random parts.
`FAULTS_KIND`, `FAULTS_PUBLISHERS` and `FAULTS_ONLY` choose deployments, publishers and faults by
parts of their names, and `FAULTS_EARLIER` adds the pages of earlier runs.
The load is the least and the greatest load average of one minute.

- **acknowledged**: events that Redis confirmed, durable + plain.
  A row that Postgres has committed is one of the durable ones.
  A plain event counts if a recorder was subscribed.
- **due**: deliveries that the clients must get.
- **lost and notified**: deliveries that a client did not get, and for which it got `sse.gap`.
  Redis had discarded these events, or no recorder had received them.
- **lost although kept**: durable events among them that Redis had not discarded.
  These, **lost without notification**, **duplicated**, **out of order**: violations of the
  guarantees.
- **unnecessary gaps**: `sse.gap` although nothing was lost, or may have been lost without a trace.
- **precautionary gaps**: the same with reason `unrecorded` beside plain publishers, in a round in
  which an instance that no fault touched lost its recorder's lease of 1 s, because the machine was
  too busy to renew it in time.
- **leases lost**: number of log lines `another instance has the recorder's lease` of such
  instances.
  Without any, a gap with reason `unrecorded` is unnecessary.
- **broken streams**: responses after which a browser never reconnects, and streams that ended
  although no gateway did.
  Also 1 for a round that did not end, with 0 + 0 events: its reason is in the output of the run.
- **outdated values**: retained values of a client that differ from those in Redis at the end.
- **presence wrong**: users whose presence the last event or `GET /presence` got wrong at the end,
  and events that repeat what an earlier one said.
- **undelivered wrong**: events with `UNSEEN` for a user without a stream that are not once in
  `sse:undelivered:{broadcast}`, and those for other users that are in it more than once.
- **recovery**: from the end of the fault, or from the decision of the sentinels, to the first
  delivery.
- **offline**: from the end of the only stream of a user to `sse.offline`, with a linger of 1 s and
  a lease of 4 s.
  Each round has three such users, one at each gateway. They leave when their gateway ends their
  stream, or after the fault.

With replicas, `min-replicas-to-write` is 1, `min-replicas-max-lag` is 1 s and
`down-after-milliseconds` is 3000, except behind the naive proxy: there it is 0.
";

/// The columns of the runs.
const RUN: [&str; 10] =
    ["run", "date", "commit", "build", "Redis", "cores", "load", "rounds", "minutes", "selection"];

/// The page with these rows of runs and of outcomes.
pub fn page(runs: &[String], rows: &[String]) -> String {
    let table = |head: &[&str], rows: &[String]| {
        let dashes = "---|".repeat(head.len());
        format!("| {} |\n|{dashes}\n{}\n", head.join(" | "), rows.join("\n"))
    };
    let (runs, rows) = (table(&RUN, runs), table(&HEAD, rows));
    format!("# Reliability\n\n{TEXT}\n## Runs\n\n{runs}\n## Results\n\n{rows}")
}

/// The rows of runs and of outcomes of a page.
pub fn rows(page: &str) -> (Vec<String>, Vec<String>) {
    let (runs, results) = page.split_once("\n## Results\n").expect("a page of results");
    let table = |text: &str| {
        let lines = text.lines().skip_while(|line| !line.starts_with("|---"));
        lines.skip(1).take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
    };
    (table(runs), table(results))
}

/// What is the same for all rounds of a run.
pub struct Run {
    /// Its seed names it.
    seed: u64,
    /// What was tested, when, and where.
    cells: Vec<String>,
    selection: String,
}

impl Run {
    /// A run of the source in the current directory.
    pub fn new(seed: u64) -> Run {
        let redis = output("redis-server", &["--version"]);
        let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cells = vec![
            output("date", &["-u", "+%Y-%m-%d"]),
            output("git", &["describe", "--always", "--dirty", "--exclude", "*"]),
            if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            redis.unwrap_or("unknown").to_owned(),
            cores.to_string(),
        ];
        let chosen = ["FAULTS_KIND", "FAULTS_PUBLISHERS", "FAULTS_ONLY"];
        let chosen = chosen
            .iter()
            .filter_map(|name| std::env::var(name).ok().map(|value| format!("{name}=\"{value}\"")));
        let selection = chosen.collect::<Vec<_>>().join(" ");
        Run { seed, cells, selection }
    }

    /// The row of this run. `loads`: the load averages of one minute after each round.
    pub fn row(&self, loads: &[f64], took: Duration) -> String {
        let least = loads.iter().copied().fold(f64::INFINITY, f64::min);
        let most = loads.iter().copied().fold(0.0, f64::max);
        let mut cells = vec![self.seed.to_string()];
        cells.extend(self.cells.iter().cloned());
        cells.push(format!("{least:.1}-{most:.1}"));
        cells.push(loads.len().to_string());
        cells.push((took.as_secs() / 60).to_string());
        cells.push(self.selection.clone());
        format!("| {} |", cells.join(" | "))
    }

    /// The row of an outcome.
    pub fn outcome(&self, outcome: &Outcome) -> String {
        format!("| {} {}", self.seed, row(outcome))
    }
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    let text = done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

/// The row of an outcome without the run.
pub fn row(outcome: &Outcome) -> String {
    let f = &outcome.findings;
    let cells = [
        outcome.deployment.clone(),
        if outcome.has_plain { "durable, plain" } else { "durable" }.to_owned(),
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
        outcome.leases.to_string(),
        f.broken.len().to_string(),
        f.outdated.len().to_string(),
        f.presence.len().to_string(),
        f.undelivered.len().to_string(),
        spread(&f.recovery),
        spread(&f.offline),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Median and maximum in milliseconds.
fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let at = |part: usize| {
        let time = times.get(times.len().saturating_sub(1) * part / 100);
        time.map_or("-".to_owned(), |time| time.as_millis().to_string())
    };
    format!("{} / {}", at(50), at(100))
}
