//! `GET /api/v1/overview`: the state of this instance. Counters rise from its start, so that a
//! client computes rates from two responses.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::{Admin, access, latency::latency, responses, workers::ask};
use crate::{
    core::reasons::{BusyReason, CloseReason, GapReason},
    metrics::Metrics,
    redis::servers::ServerInfo,
    settings::PlainPublish,
    state::{
        clock::unix_ms,
        mailbox::Command,
        summary::{WorkerSummary, most_frequent},
    },
};

/// Maximum number of topics in a response.
const TOPICS: usize = 20;

/// The state of the instance.
pub async fn overview(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::admin(&request, &admin) {
        return *response;
    }
    let (workers, is_complete) = ask(&admin.delivery, Command::Summarise).await;
    let unready = admin.readiness.unready();
    responses::answer(&json!({
        "instance": &*admin.name,
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeMs": admin.clock.now_ms(),
        "timeMs": unix_ms(),
        "ready": unready.is_none(),
        "unreadyReason": unready,
        "connections": connections(&admin, &workers, is_complete),
        "counters": counters(&admin.metrics),
        "latency": latency(&admin.metrics.publish_to_write),
        "servers": servers(&admin),
        "recorderRole": recorder_role(&admin),
        "gaps": by_reason(GapReason::ALL.iter().map(|r| r.name()), &admin.metrics.gaps),
        "closed": by_reason(CloseReason::ALL.iter().map(|r| r.name()), &admin.metrics.closed),
        "busy": by_reason(BusyReason::ALL.iter().map(|r| r.name()), &admin.metrics.busy),
        "topics": topics(workers),
    }))
}

fn connections(admin: &Admin, workers: &[WorkerSummary], is_complete: bool) -> Value {
    let sum = |of: fn(&WorkerSummary) -> usize| workers.iter().map(of).sum::<usize>();
    json!({
        "streams": sum(|worker| worker.streams),
        "polls": sum(|worker| worker.polls),
        "anonymous": sum(|worker| worker.anonymous),
        "limit": admin.settings.limits.max_connections,
        "queuedBytes": admin.limits.queued_bytes.total(),
        "queuedBytesLimit": admin.settings.limits.queue_bytes_total,
        "complete": is_complete,
    })
}

fn counters(metrics: &Metrics) -> Value {
    let relayed = |kind: &str| metrics.relayed.with_label_values(&[kind]).get();
    json!({
        "userEvents": relayed("user"),
        "broadcasts": relayed("broadcast"),
        "deliveries": metrics.deliveries.get(),
        "bytesSent": metrics.bytes_sent.get(),
        "requests": metrics.requests.get(),
        "replayed": metrics.replayed.get(),
        "recorded": metrics.recorded.get(),
        "published": metrics.published.get(),
        "queueOverflows": metrics.overflows.get(),
    })
}

fn by_reason<'a>(
    names: impl Iterator<Item = &'a str>,
    counts: &prometheus::IntCounterVec,
) -> BTreeMap<&'a str, u64> {
    names.map(|name| (name, counts.with_label_values(&[name]).get())).collect()
}

fn servers(admin: &Admin) -> Vec<Value> {
    admin.servers.all().iter().map(|server| described(&server.info)).collect()
}

fn described(info: &ServerInfo) -> Value {
    let state = &info.state;
    json!({
        "address": info.address().as_deref(),
        "up": state.is_up(),
        "watermarkAgeMs": state.watermark_age().map(|age| age.as_millis() as u64),
        "epochChanges": state.epoch_changes(),
        "subscriptions": state.subscriptions(),
        "slots": info.node.as_ref().map(|node| node.slots().count()),
    })
}

/// The role of this instance; `None` if it does not record plain publishes.
fn recorder_role(admin: &Admin) -> Option<&'static str> {
    let records = admin.settings.publishers.plain == PlainPublish::Record;
    let is = |role: &&str| admin.metrics.recorder_role.with_label_values(&[*role]).get() == 1;
    records.then(|| ["writer", "standby"].into_iter().find(is).unwrap_or("none"))
}

/// The topics that most connections receive. Each worker has named its first ones only, so the
/// number of a topic is a minimum.
fn topics(workers: Vec<WorkerSummary>) -> Vec<Value> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (topic, count) in workers.into_iter().flat_map(|worker| worker.topics) {
        *counts.entry(topic).or_default() += count;
    }
    let top = most_frequent(counts.into_iter(), TOPICS).into_iter();
    top.map(|(topic, count)| json!({ "topic": topic, "connections": count })).collect()
}
