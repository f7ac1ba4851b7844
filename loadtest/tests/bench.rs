//! `loadtest bench` with a few streams and servers that need nothing but Redis: every scenario is
//! measured with the gateway and with a peer, and lost events and missing files are reported.
//! Assertions cover counts, never speed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_loadtest");
const SCENARIOS: [&str; 3] = ["users", "storm", "stalled"];

/// Output directory of a test, deleted when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("loadtest-bench-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn results(&self) -> Value {
        serde_json::from_str(&self.read("benchmarks.json")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(out: &Path, options: &str) -> Output {
    let mut command = Command::new(TOOL);
    command.arg("bench").arg("--out").arg(out).args(options.split_whitespace());
    command.output().unwrap()
}

fn server<'a>(results: &'a Value, name: &str) -> &'a Value {
    let servers = results["servers"].as_array().unwrap();
    servers.iter().find(|server| server["name"] == name).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Returns a value that must be a number.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// Measures every scenario of one server, and checks its broadcasts.
fn measured(out: &Directory, name: &str) -> Value {
    let output = bench(&out.0, &format!("--quick --streams 40 --load 1 --servers {name}"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let results = out.results();
    assert_eq!(results["failed"], serde_json::json!([]), "{}", text(&output));
    let size = &results["size"]["scenarios"];
    assert_eq!((&size["main_streams"], &size["user_streams"]), (&40.into(), &20.into()));
    let server = server(&results, name);
    // One measurement of the main stream count, one of the others.
    let rounds = server["rounds"].as_array().unwrap().iter();
    let counts: Vec<Vec<u64>> = rounds
        .map(|points| points.as_array().unwrap())
        .map(|points| points.iter().filter_map(|point| point["streams"].as_u64()).collect())
        .collect();
    assert_eq!(counts, [vec![40], vec![4, 20]]);
    let point = &server["rounds"][0][0];
    for load in [&point["load"], &point["low_rate"]["load"]] {
        assert_all_delivered(load);
    }
    assert_eq!((&point["rate"], &point["low_rate"]["rate"]), (&10.0.into(), &2.0.into()));
    server.clone()
}

fn assert_all_delivered(load: &Value) {
    assert!(number(&load["expected"]) > 0.0, "{load:#}");
    assert_eq!(load["delivered"], load["expected"], "{load:#}");
}

#[test]
fn every_scenario_of_the_gateway_is_measured() {
    let out = Directory::new("gateway");
    let server = measured(&out, "sse-gateway");
    let gateway = &server["scenarios"];
    for name in SCENARIOS {
        assert_all_delivered(&gateway[name][0]["load"]);
    }
    let storm = &gateway["storm"][0]["storm"];
    assert_eq!((&storm["cut"], &storm["caught_up"]), (&40.into(), &40.into()));
    assert!(number(&storm["server_cpu_s"]) >= 0.0 && number(&storm["redis_cpu_s"]) > 0.0);
    let stall = &gateway["stalled"][0]["stall"];
    assert_eq!((&stall["stalled"], &stall["broken"]), (&20.into(), &0.into()));
    assert!(stall["server_bytes"].is_u64(), "{stall:#}");
    let idle = &gateway["idle"][0]["idle"];
    assert!(number(&idle["server_cpu_ms_per_s"]) >= 0.0, "{idle:#}");
    let page = out.read("benchmarks.md");
    let row = "| Storm of 40: all caught up after, s |";
    assert!(page.contains(row), "{row} is missing from\n{page}");
}

#[test]
fn every_scenario_that_a_peer_supports_is_measured() {
    let out = Directory::new("peer");
    let actix = measured(&out, "plain-actix");
    assert_all_delivered(&actix["scenarios"]["users"][0]["load"]);
    assert_eq!(actix["scenarios"]["storm"], Value::Null);
    assert!(actix["unsupported"]["storm"].as_str().unwrap().contains("resume"));
    let page = out.read("benchmarks.md");
    for expected in ["- plain-actix, storm: ", "| 20 users"] {
        assert!(page.contains(expected), "{expected} is missing from\n{page}");
    }
    // The page can be written again from the results.
    std::fs::remove_file(out.0.join("benchmarks.md")).unwrap();
    assert_eq!(bench(&out.0, "--render").status.code(), Some(0));
    assert_eq!(out.read("benchmarks.md"), page);
}

#[test]
fn only_selected_scenarios_and_servers_are_measured_within_the_budget() {
    let out = Directory::new("subset");
    let output = bench(
        &out.0,
        "--quick --streams 10 --load 1 --only users,stalled \
         --servers sse-gateway,plain-actix,send-loop --rounds 3 --time-budget 1ms",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let results = out.results();
    assert_eq!(results["servers"].as_array().unwrap().len(), 3);
    assert_eq!(server(&results, "send-loop")["scenarios"], Value::Null);
    let actix = server(&results, "plain-actix");
    assert_eq!(actix["rounds"], serde_json::json!([]));
    let scenarios = actix["scenarios"].as_object().unwrap();
    assert_eq!(scenarios.keys().collect::<Vec<_>>(), ["stalled", "users"]);
    // The first round does not depend on the budget; no further one was started.
    assert_eq!(scenarios["users"].as_array().unwrap().len(), 1);
    assert!(text(&output).contains("skipping round 3 of users"), "{}", text(&output));
    // The page compares the servers of one run.
    let page = out.read("benchmarks.md");
    assert!(page.contains("| sse-gateway | plain-actix |"), "{page}");
}

#[test]
fn unknown_servers_and_scenarios_are_refused() {
    let out = Directory::new("unknown");
    for (options, expected) in [
        ("--servers nginx", "--servers nginx: unknown server; must be one of sse-gateway,"),
        ("--only nginx", "[possible values: broadcast, users, storm, stalled, idle, scale]"),
        ("--render", "benchmarks.json: No such file"),
    ] {
        let output = bench(&out.0, options);
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(text(&output).contains(expected), "{options}: {}", text(&output));
    }
}
