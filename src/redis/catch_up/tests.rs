use futures_util::FutureExt;
use tokio::task::LocalSet;

use super::*;
use crate::state::client::MAX_GAP_CHANNELS;
use crate::{
    core::{control_events::closing, part::ServerIndex, reasons::CloseReason},
    redis::{
        link::{Supervisor, testing::unreachable},
        link_context::LinkContext,
        servers::Server,
    },
    state::testing::{TestClient, client, connection, context, event, id, written},
};

/// A driver whose link is down, and the supervisor of that link.
fn driver() -> (Rc<CatchUpDriver>, Supervisor) {
    let (link_context, link, supervisor) = unreachable("record");
    let commands = link_context.commands();
    let delivery = link_context.delivery.clone();
    let inbox = delivery.mailboxes.open();
    let (hub, _requests) =
        Hub::new(context(&[]), delivery.clone(), &inbox, &[ServerIndex::default()]);
    let LinkContext { servers, server, clock, .. } = link_context;
    servers.set_single(Server { info: server, link });
    let routes = Routes::new(servers, commands, clock);
    (CatchUpDriver::new(hub, delivery, routes), supervisor)
}

/// A connection of user `a` that names 0-0.
fn client_connection(topics: &[&str]) -> Rc<Connection> {
    connection(&context(&[]), client("a", topics, "0a", 1), TestClient::default())
}

const NO_FLAGS: GapFlags =
    GapFlags { reset: false, unrecorded: false, stale: false, too_many: false };

/// The first page of a log whose events between 0-0 and 4-0 were trimmed.
fn trimmed_page(channel: &str) -> Page {
    Page { events: vec![event(channel, 5, 4)], ..Page::default() }
}

/// The reason and the channels of the `sse.gap` for the first pages of some logs, if there is one.
fn reported_gap(
    topics: &[&str],
    logs: Vec<(&str, Page)>,
    flags: GapFlags,
) -> Option<(String, Vec<String>)> {
    let c = client_connection(topics);
    let (channels, pages): (Vec<_>, Vec<_>) = logs.into_iter().unzip();
    let log = |name| CatchUpSource::Log(Channel::parse(name).expect("a channel"));
    let merge = Merge::new(EventId::ZERO, &ClockSnapshot::default(), channels.into_iter().map(log));
    let pages: Vec<_> = pages.into_iter().enumerate().collect();
    let is_stale = |_: &Channel| flags.stale;
    let gap = find_gap(&c, Part::Whole, &merge, &pages, EventId::ZERO, flags, is_stale);
    gap.map(|(reason, channels)| (reason.name().to_owned(), channels))
}

#[test]
fn gap_has_the_first_reason_that_applies() {
    let gap = |is_trimmed: bool, flags| {
        let trimmed = if is_trimmed { trimmed_page("broadcast:news") } else { Page::default() };
        let logs = vec![("user:a:events", Page::default()), ("broadcast:news", trimmed)];
        let (reason, channels) = reported_gap(&["news", "n*"], logs, flags)?;
        Some(format!("{reason}: {}", channels.join(" ")))
    };
    let all = GapFlags { reset: true, unrecorded: true, stale: true, too_many: true };
    let (user, news, pattern) = ("user:a:events", "broadcast:news", "broadcast:n*");
    let of = |reason, channels: &[&str]| Some(format!("{reason}: {}", channels.join(" ")));
    assert_eq!(gap(true, all), of("reset", &[user, news, pattern]));
    let not_reset = GapFlags { reset: false, too_many: false, ..all };
    // Channels with expired events follow.
    assert_eq!(gap(true, not_reset), of("trimmed", &[news, user, pattern]));
    assert_eq!(gap(false, not_reset), of("expired", &[user, news, pattern]));
    let not_stale = GapFlags { stale: false, ..not_reset };
    assert_eq!(gap(true, not_stale), of("trimmed", &[news]));
    assert_eq!(gap(false, not_stale), of("unrecorded", &[user, news, pattern]));
    assert_eq!(gap(false, GapFlags { too_many: true, ..not_stale }), of("trimmed", &[pattern]));
    assert_eq!(gap(false, NO_FLAGS), None);
}

#[test]
fn gap_names_each_channel_once_up_to_the_maximum() {
    let patterns = GapFlags { stale: true, too_many: true, ..NO_FLAGS };
    let (reason, channels) = reported_gap(&["n*", "s*"], vec![], patterns).expect("a gap");
    assert_eq!((&*reason, channels.len()), ("trimmed", 2), "{channels:?}");
    let names: Vec<_> = (0..=MAX_GAP_CHANNELS).map(|n| format!("broadcast:{n}")).collect();
    let logs = names.iter().map(|name| (&**name, trimmed_page(name))).collect();
    let (_, channels) = reported_gap(&["*"], logs, NO_FLAGS).expect("a gap");
    assert_eq!(channels, names[..MAX_GAP_CHANNELS]);
}

#[test]
fn later_catch_up_supersedes_the_earlier_one() {
    let (driver, _supervisor) = driver();
    let connection = client_connection(&[]);
    let earlier = CatchUp::begin(connection.clone(), Part::Whole, CatchUpCause::Resume);
    assert!(earlier.check_current().is_ok());
    let later = CatchUp::begin(connection.clone(), Part::Whole, CatchUpCause::Link);
    assert!(matches!(earlier.check_current(), Err(Interrupted::Superseded)));
    assert!(later.check_current().is_ok());
    // The cursor is past H: an attempt that continued would report it.
    let attempt = |mut catch_up: CatchUp| {
        catch_up.from = Some(EventId { epoch: 1, ..id(5) });
        let route = driver.routes.broadcasts().expect("a route");
        let snapshot = Snapshot { route, clock: ClockSnapshot::default() };
        driver.attempt(&catch_up, &snapshot).now_or_never().expect("no waiting")
    };
    assert!(matches!(attempt(earlier), Err(Interrupted::Superseded)));
    assert_eq!(written(&connection), "");
    assert!(attempt(later).is_ok());
    assert!(written(&connection).contains("unknown-id"));
}

#[tokio::test]
async fn refused_subscription_of_a_client_is_not_counted() {
    let (driver, mut supervisor) = driver();
    let connection = client_connection(&[]);
    let subscribed = supervisor.refuse_until(driver.subscribe(&connection, true)).await;
    assert!(matches!(subscribed, Err(LinkDown)));
    assert_eq!(supervisor.connected_users().await, Vec::<Arc<str>>::new());
}

#[tokio::test]
async fn requested_catch_up_waits_for_the_link_or_the_end() {
    let (driver, mut supervisor) = driver();
    let connection = client_connection(&[]);
    let (sender, requests) = mpsc::unbounded_channel();
    sender.send((connection.clone(), Part::Whole, CatchUpCause::Link)).expect("a receiver");
    drop(sender);
    let mut tasks = LocalSet::new();
    tasks.spawn_local(driver.clone().run(requests));
    // The second request follows the failure of the first one.
    for _ in 0..2 {
        tokio::select! {
            () = &mut tasks => panic!("the catch-up did not wait"),
            () = supervisor.refuse_one() => {}
        }
    }
    assert!(!connection.is_live() && !connection.is_ending() && connection.is_idle());
    connection.close(CloseReason::Draining, closing(CloseReason::Draining, 1));
    tokio::select! {
        () = &mut tasks => {}
        () = supervisor.refuse_one() => panic!("the catch-up continued after the end"),
    }
    assert_eq!(driver.hub.context.metrics.catch_ups.with_label_values(&["link"]).get(), 0);
    let text = written(&connection);
    assert!(text.contains("event: sse.closing") && text.matches("\n\n").count() == 1, "{text}");
}
