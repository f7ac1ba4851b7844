//! h2spec (github.com/summerwind/h2spec) against a gateway, in the clear and over TLS: `make test-http2`.

use std::process::Command;

use crate::harness::keys::Dir;
use crate::harness::{Gateway, Redis};

/// Where the program is.
const PROGRAM: &str = "SSE_GATEWAY_H2SPEC";
/// Fewer cases than h2spec has would mean that it was cut short.
const MIN_CASES: usize = 140;
/// The failures that docs/http2.md explains: section, case, whether TLS is used.
const EXPLAINED: &[(&str, &str, bool)] = &[("3.5", "Sends invalid connection preface", false)];

/// A case that failed.
type Failure = (String, String);

/// The value of an attribute of a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("no {name}: {tag}"));
    rest.split('"').next().unwrap_or_default()
}

/// The number of cases of a JUnit report, and those that failed.
fn read(report: &str) -> (usize, Vec<Failure>) {
    let cases: Vec<&str> = report.split("<testcase").skip(1).collect();
    let failed = cases.iter().filter(|case| case.contains("<failure") || case.contains("<error"));
    let name = |case: &&str| {
        let section = attribute(case, "package").rsplit('/').next().unwrap_or_default().to_owned();
        (section, attribute(case, "classname").to_owned())
    };
    (cases.len(), failed.map(name).collect())
}

/// Runs all cases; gives the number and the failures.
fn run(gateway: &Gateway, dir: &Dir, tls: bool) -> (usize, Vec<Failure>) {
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| panic!("{PROGRAM} is not set: make test-http2"));
    let (report, port) = (dir.text("report.xml"), gateway.public.port().to_string());
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port, "-P", "/events", "-S", "-o", "15", "-j", &report]);
    command.args(if tls { &["-t", "-k"][..] } else { &[] });
    // It exits with 1 if a case fails.
    let output = command.output().expect("h2spec starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let (count, failed) = read(&dir.read("report.xml"));
    println!("{}", text.split("Failures:").nth(1).unwrap_or_default());
    (count, failed)
}

fn check(gateway: &Gateway, dir: &Dir, tls: bool) {
    let (count, failed) = run(gateway, dir, tls);
    assert!(count >= MIN_CASES, "h2spec ran {count} cases only");
    let explained = EXPLAINED.iter().filter(|case| case.2 == tls).map(|case| (case.0.to_owned(), case.1.to_owned()));
    assert_eq!(failed, explained.collect::<Vec<_>>(), "the failures are those of docs/http2.md");
}

#[tokio::test]
#[ignore = "needs h2spec: make test-http2"]
async fn h2spec_passes_but_for_what_is_explained() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    dir.certificate();
    let builder = Gateway::builder(&redis);
    check(&builder.start().await, &dir, false);
    let builder = builder.env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"));
    let gateway = builder.env("SERVER__TLS__KEY", &dir.text("server.key")).start().await;
    check(&gateway, &dir, true);
    let page = include_str!("../../docs/http2.md");
    for (section, case, _) in EXPLAINED {
        assert!(page.contains(&format!("| {section} | {case} |")), "docs/http2.md explains {case}");
    }
}
