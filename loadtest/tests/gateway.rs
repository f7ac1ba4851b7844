//! End-to-end tests with the real gateway and Redis. Each scenario is small; assertions cover
//! counts, never speed.

mod harness;

use harness::{Harness, SECRET, finish};
use serde_json::Value;

/// Asserts that every event arrived once and in order, and that all streams were open at the end.
fn assert_clean(report: &Value, streams: u64) {
    let load = &report["load"];
    assert!(number(&load["expected"]) > 0, "{report:#}");
    assert_eq!(load["delivered"], load["expected"], "{report:#}");
    for name in ["lost", "doubled", "out_of_order", "foreign"] {
        assert_eq!(load[name], 0, "{name}: {report:#}");
    }
    assert_eq!(load["gaps"], serde_json::json!({}));
    assert_eq!(load["published"]["failed"], 0);
    let all = &report["streams"];
    assert_eq!(all["broken"], all["reopened"], "{report:#}");
    assert_eq!(report["streams"]["held"], streams);
    assert_eq!(report["streams"]["refused"], serde_json::json!({}));
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[test]
fn idle_streams_stay_open_and_are_measured() {
    let report = Harness::start()
        .report("idle -n 60 --duration 1s --min-held 60 --max-bytes-per-stream 1000000");
    assert_eq!(report["scenario"], "idle");
    assert_eq!(
        (&report["streams"]["held"], &report["streams"]["opened"]),
        (&60.into(), &60.into())
    );
    assert_eq!(report["load"], Value::Null);
    assert!(number(&report["memory"]["server_bytes_empty"]) > 1_000_000);
    assert!(number(&report["memory"]["server_bytes_per_idle_stream"]) > 100);
    assert!(report["connect"]["per_second"].as_f64().unwrap() > 1.0);
    assert!(report["connect"]["server_cpu_s_per_1000"].as_f64().is_some());
    assert!(report["held"]["server_cpu_ms_per_s"].as_f64().is_some());
    assert!(report["held"]["redis_cpu_ms_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn broadcasts_arrive_with_every_publish_method() {
    let harness = Harness::start();
    let key = harness.file("api-key");
    for how in ["durable", "plain", "bare", &format!("http --api-key-file {key}")] {
        let report = harness.report(&format!(
            "broadcast -n 30 --rate 40 --duration 1s --publish {how} --max-lost 0"
        ));
        assert_clean(&report, 30);
        let load = &report["load"];
        assert_eq!(number(&load["expected"]), 30 * number(&load["published"]["published"]));
        assert_eq!(load["latency"]["count"], load["delivered"]);
        assert!(load["server_cpu"]["total_s"].as_f64().unwrap() > 0.0, "{load:#}");
        assert!(load["redis_cpu_s"].as_f64().unwrap() > 0.0, "{load:#}");
        // The amount is only accurate for a newly started server.
        assert!(report["memory"]["server_bytes_per_loaded_stream"].as_u64().is_some());
    }
}

#[test]
fn user_events_reach_only_streams_of_the_user() {
    let report =
        Harness::start().report("users -n 20 --streams-per-user 2 --user-rate 100 --duration 1s");
    assert_clean(&report, 20);
    let load = &report["load"];
    assert_eq!(number(&load["expected"]), 2 * number(&load["published"]["published"]));
}

#[test]
fn mixed_broadcasts_and_user_events_arrive() {
    let report = Harness::start().report("mixed -n 20 --rate 20 --user-rate 100 --duration 1s");
    assert_clean(&report, 20);
    let load = &report["load"];
    assert!(number(&load["expected"]) > number(&load["published"]["published"]));
}

#[test]
fn all_streams_catch_up_after_a_storm() {
    let report = Harness::start()
        .report("storm -n 40 --rate 40 --duration 2s --away 500ms --max-caught-up 60s");
    assert_clean(&report, 40);
    assert_eq!((&report["storm"]["cut"], &report["storm"]["caught_up"]), (&40.into(), &40.into()));
    assert_eq!(report["storm"]["caught_up_after"]["count"], 40);
    assert_eq!(
        (&report["streams"]["opened"], &report["streams"]["resumed"]),
        (&80.into(), &40.into())
    );
    assert_eq!(report["streams"]["broken"], 0, "{report:#}");
    // Disconnected for 500 ms at 40 events per second.
    assert!(number(&report["load"]["replayed"]) >= 40 * 10, "{report:#}");
}

#[test]
fn churning_streams_miss_nothing() {
    let report = Harness::start().report("churn -n 20 --churn-rate 20 --rate 40 --duration 2s");
    assert_clean(&report, 20);
    assert_eq!(report["streams"]["broken"], 0, "{report:#}");
    let (opened, resumed) =
        (number(&report["streams"]["opened"]), number(&report["streams"]["resumed"]));
    assert!(opened > 20 && resumed >= opened - 20, "{report:#}");
}

#[test]
fn stalled_streams_are_closed_and_miss_nothing() {
    let harness = Harness::with(&[("LIMITS__STALL", "1s")]);
    // 21 MB per stream in 6 s, far more than the buffers of an unread socket hold.
    let report = harness.report(
        "stalled -n 6 --stalled-percent 50 --stall 6s --rate 60 --payload-bytes 60000 \
         --drain 60s --max-lost 0",
    );
    assert_clean(&report, 6);
    // On a busy machine other streams may stall too.
    assert!(number(&report["stall"]["broken"]) >= 3, "{report:#}");
    assert_eq!(report["stall"]["broken"], report["streams"]["broken"], "{report:#}");
    assert!(number(&report["streams"]["resumed"]) >= 3, "{report:#}");
    assert!(number(&report["load"]["replayed"]) > 0);
    assert!(harness.metric(r#"sse_connections_closed_total{reason="stalled"}"#) >= 3.0);
}

#[test]
fn http2_connections_carry_many_streams() {
    let harness = Harness::start();
    let report = harness
        .report("broadcast -n 30 --http2 --streams-per-connection 10 --rate 40 --duration 1s");
    assert_clean(&report, 30);
    assert_eq!(report["protocol"], "http2");
    let report = harness.report(
        "storm -n 30 --http2 --streams-per-connection 10 --rate 40 --duration 1s --away 300ms",
    );
    assert_clean(&report, 30);
    assert_eq!(report["storm"]["caught_up"], 30);
}

#[test]
fn tls_works_with_both_protocols() {
    let harness = Harness::with_tls();
    let ca = harness.file("ca.pem");
    for protocol in ["", "--http2 --streams-per-connection 5"] {
        let report = harness
            .report(&format!("broadcast -n 15 --ca {ca} --rate 40 --duration 1s {protocol}"));
        assert_clean(&report, 15);
    }
    // Ticket requests and publishes use TLS too.
    let key = harness.file("api-key");
    let all = format!(
        "broadcast -n 5 --insecure --api-key-file {key} --publish http --rate 40 --duration 500ms"
    );
    let (report, status, error) = finish(harness.tool(&all));
    assert_eq!(status, 0, "{error}");
    assert_clean(&report, 5);

    let (_, status, error) = harness.run_tool("broadcast -n 5 --duration 500ms");
    assert_eq!(status, 2);
    assert!(error.contains("https requires --ca FILE or --insecure"), "{error}");
}

#[test]
fn tickets_are_requested_without_a_secret() {
    let harness = Harness::start();
    let asked = format!(
        "storm -n 20 --api-key-file {} --rate 40 --duration 1s --away 300ms",
        harness.file("api-key")
    );
    let (report, status, error) = finish(harness.tool(&asked));
    assert_eq!(status, 0, "{error}");
    assert_clean(&report, 20);
    // The streams used the same ticket again, which remains valid within its session.
    assert_eq!(report["streams"]["resumed"], 20);
}

#[test]
fn signed_tickets_match_issuer_audience_and_keys() {
    let key =
        format!(r#"[{{"kid":"k1","algorithm":"HS256","secret":"{}"}}]"#, SECRET.to_uppercase());
    let harness = Harness::with(&[
        ("TICKETS__ISSUER", "https://issuer.example"),
        ("TICKETS__AUDIENCE", "production"),
        ("TICKETS__MAX_TTL", "20s"),
        ("TICKETS__KEYS", &key),
    ]);
    let named = "--issuer https://issuer.example --audience production --ticket-ttl 20s";
    assert_clean(&harness.report(&format!("broadcast -n 5 --rate 40 --duration 500ms {named}")), 5);
    let other = format!(
        "broadcast -n 5 --rate 40 --duration 500ms {named} --secret-file {}",
        harness.file("wrong-secret")
    );
    let (report, status, error) = finish(harness.tool(&format!("{other} --kid k1")));
    assert_eq!(status, 0, "{error}");
    assert_clean(&report, 5);
    let (report, _, error) = finish(harness.tool(&other));
    assert!(
        number(&report["streams"]["refused"]["401 ticket-bad-signature"]) >= 5,
        "without --kid: {error}"
    );
    // Each of the other options is required too.
    for (without, code) in [
        ("--audience production --ticket-ttl 20s", "ticket-missing-claim"),
        ("--issuer https://issuer.example --ticket-ttl 20s", "ticket-wrong-audience"),
        ("--issuer https://issuer.example --audience production", "ticket-too-long-lived"),
    ] {
        let (report, status, error) = harness.run_tool(&format!("idle -n 2 {without}"));
        assert_eq!(status, 2, "{error}");
        assert!(number(&report["streams"]["refused"][format!("401 {code}")]) >= 2, "{report:#}");
    }
}

#[test]
fn permanent_refusals_end_the_run_with_their_reason() {
    let harness = Harness::start();
    let wrong = harness.file("wrong-secret");
    for (options, code) in [
        (format!("-n 12 --secret-file {wrong}"), "401 ticket-bad-signature"),
        (format!("-n 12 --secret-file {wrong} --http2"), "401 ticket-bad-signature"),
        // The second stream would connect after 1000 s.
        (format!("-n 2 --secret-file {wrong} --connect-rate 0.001"), "401 ticket-bad-signature"),
        (format!("-n 12 --api-key-file {wrong}"), "POST /tickets: 401 api-key-unknown"),
    ] {
        // A run that continued would end by the timeout, with another message.
        let (report, status, error) =
            finish(harness.tool(&format!("idle --connect-timeout 20s {options}")));
        assert_eq!(status, 2, "{error}");
        assert!(error.contains("connection attempts were all refused permanently"), "{error}");
        assert!(error.contains(&format!("first refusal: {code}: ")), "{error}");
        let streams = &report["streams"];
        assert!(number(&streams["refused"][code]) >= 1, "{report:#}");
        assert!(streams["first_refusal"].as_str().unwrap().starts_with(code), "{report:#}");
        assert_eq!(report["failure"], report["violations"][0]);
    }
}

#[test]
fn full_gateway_reports_open_and_refused_streams() {
    let harness = Harness::with(&[("LIMITS__MAX_CONNECTIONS", "5")]);
    let (report, status, error) =
        harness.run_tool("broadcast -n 8 --connect-timeout 10s --max-lost 0 --min-held 5");
    assert_eq!((status, error.as_str()), (1, ""));
    assert_eq!(report["streams"]["held"], 5);
    assert!(number(&report["streams"]["refused"]["busy: full"]) >= 3, "{report:#}");
    assert_eq!(report["failure"], Value::Null);
    let violations: Vec<&str> =
        report["violations"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert!(
        violations[0].starts_with("only 5 of 8 streams were open after 10 s (--connect-timeout)"),
        "{violations:?}"
    );
    assert_eq!(violations[1..], ["lost: not measured"]);
}

#[test]
fn exceeded_thresholds_set_the_exit_status() {
    let harness = Harness::start();
    let (report, status, _) = harness.run_tool(
        "broadcast -n 10 --rate 40 --duration 1s --max-lost 0 --max-p99 1us \
         --max-cpu-per-million 0.001 --min-held 11",
    );
    assert_eq!(status, 1);
    let violations = report["violations"].as_array().unwrap();
    assert_eq!(violations.len(), 3, "{violations:?}");
    for (violation, start) in violations.iter().zip([
        "p99 latency, ms: ",
        "server CPU per million deliveries, s: ",
        "streams open at the end: 10",
    ]) {
        assert!(violation.as_str().unwrap().starts_with(start), "{violations:?}");
    }
}

#[test]
fn events_of_another_run_are_foreign() {
    let harness = Harness::start();
    let secret = harness.file("secret");
    let mut listening = harness.tool(&format!(
        "broadcast -n 5 --user-prefix other- --secret-file {secret} --publish none \
         --duration 8s --max-lost 0"
    ));
    while listening.try_wait().unwrap().is_none() {
        let report = harness.report("broadcast -n 10 --rate 40 --duration 500ms");
        assert_clean(&report, 10);
    }
    let (report, status, error) = finish(listening);
    // Events of another run count as foreign, and a figure that was not measured fails its
    // threshold.
    let load = &report["load"];
    assert_eq!(
        (number(&load["expected"]), number(&load["delivered"]), number(&load["doubled"])),
        (0, 0, 0),
        "{error}"
    );
    assert!(number(&load["foreign"]) > 0, "{report:#}");
    assert_eq!((status, &report["violations"]), (1, &serde_json::json!(["lost: not measured"])));
}

#[test]
fn rate_search_ends_when_nothing_is_sustainable() {
    // No latency is below 1 µs, so the search only goes down.
    let report =
        Harness::start().report("slow-publish -n 10 --rate 100 --p99 1us --duration 300ms");
    let steps = report["search"]["steps"].as_array().unwrap();
    assert_eq!(report["search"]["highest_rate"], 0.0);
    assert!(steps.len() > 1 && steps.len() <= 5, "{steps:?}");
    for step in steps {
        assert!(step["fell_behind"].as_str().is_some(), "{step:?}");
        assert!(step["server_cpu_s_per_million"].as_f64().is_some());
    }
}
