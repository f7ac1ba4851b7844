//! The adapters of the benchmark with the servers that are installed: each is started as by
//! `make bench`, and a few streams must receive everything in every scenario that it supports.
//! Servers that are not installed are listed in the file `SSE_SKIPPED`, which `make test` prints.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_loadtest");

#[test]
fn nchan_delivers_and_resumes() {
    assert_peer_delivers("nchan");
}

#[test]
fn pushpin_delivers() {
    assert_peer_delivers("pushpin");
}

#[test]
fn centrifugo_delivers_and_resumes() {
    assert_peer_delivers("centrifugo");
}

#[test]
fn anycable_delivers_and_resumes() {
    assert_peer_delivers("anycable");
}

#[test]
fn mercure_delivers_and_resumes() {
    assert_peer_delivers("mercure");
}

/// Without a program on the PATH no peer is installed.
#[test]
fn absent_peers_are_listed_as_skipped() {
    let out = std::env::temp_dir().join(format!("loadtest-peers-{}-absent", std::process::id()));
    let list = out.join("skipped");
    for name in ["nchan", "pushpin", "centrifugo", "anycable", "mercure"] {
        let results = bench(name, &out, Some(&out));
        let absent = &results["absent"][0];
        assert_eq!(absent[0], name, "{results:#}");
        skip(name, absent[1].as_str().unwrap(), Some(list.clone().into()));
    }
    let listed = std::fs::read_to_string(list).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(listed.contains("load tester with mercure: mercure is not on the PATH"), "{listed}");
    let makefile = include_str!("../../Makefile");
    assert!(makefile.contains("\texport SSE_SKIPPED=$(SKIPPED)/test-rust\n"));
}

/// Asserts that a peer, if it is installed, loses, duplicates and breaks nothing.
fn assert_peer_delivers(name: &str) {
    let out = std::env::temp_dir().join(format!("loadtest-peers-{}-{name}", std::process::id()));
    let results = bench(name, &out, None);
    std::fs::remove_dir_all(&out).unwrap();
    if let Some(absent) = results["absent"].as_array().unwrap().first() {
        return skip(name, absent[1].as_str().unwrap(), std::env::var_os("SSE_SKIPPED"));
    }
    assert_eq!(results["failed"], json!([]), "{results:#}");
    let server = &results["servers"][0];
    assert!(server["version"].as_str().unwrap().contains(|c: char| c.is_ascii_digit()), "{server}");
    let point = &server["rounds"][0][0];
    let users = &server["scenarios"]["users"][0];
    assert_complete(&point["load"]);
    assert_complete(&point["low_rate"]["load"]);
    assert_complete(&users["load"]);
    assert_eq!((&point["breaks"], &users["breaks"]), (&unbroken(), &unbroken()), "{server:#}");
    if server["unsupported"]["storm"].is_string() {
        return;
    }
    let run = &server["scenarios"]["storm"][0];
    assert_complete(&run["load"]);
    assert_eq!((&run["storm"]["cut"], &run["storm"]["caught_up"]), (&20.into(), &20.into()));
    assert!(run["load"]["replayed"].as_u64() > Some(0), "nothing was missed: {run:#}");
    assert_eq!(run["breaks"], unbroken(), "{run:#}");
}

/// Runs a short benchmark, optionally with another PATH, and returns its results.
fn bench(name: &str, out: &Path, path: Option<&Path>) -> Value {
    let mut command = Command::new(TOOL);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command
        .args(["bench", "--quick", "--streams", "20", "--load", "3", "--servers", name])
        .args(["--only", "broadcast,users,storm", "--out"])
        .arg(out)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    serde_json::from_str(&std::fs::read_to_string(out.join("benchmarks.json")).unwrap()).unwrap()
}

fn assert_complete(load: &Value) {
    assert!(load["expected"].as_u64() > Some(0), "{load:#}");
    assert_eq!(load["delivered"], load["expected"], "{load:#}");
    for name in ["lost", "doubled", "out_of_order", "foreign"] {
        assert_eq!(load[name], 0, "{name}: {load:#}");
    }
    assert_eq!(load["published"]["failed"], 0, "{load:#}");
    assert_eq!(load["gaps"], json!({}), "{load:#}");
}

fn unbroken() -> Value {
    json!({ "broken": 0, "reopened": 0 })
}

/// Adds a peer that is not installed to the list of skipped tests, if there is one.
fn skip(name: &str, why: &str, list: Option<OsString>) {
    let line = format!("test-rust, load tester with {name}: {why}");
    println!("skipped: {line}");
    if let Some(file) = list {
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
