//! A stream with a filter gets exactly the events that its filter lets pass, in order, also if live
//! messages are lost, for any filters and tags.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
};

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;
use crate::{
    core::{
        channel::Channel,
        event::Event,
        event_options::{EventOptions, Tags},
        filter::Filter,
    },
    state::testing::{TestClient, client, connection, context, id, make_live, written},
};

const SERVER: ServerIndex = ServerIndex(0);
const CHANNELS: [&str; 3] = ["broadcast:news", "broadcast:nearby", "user:a:events"];
const NAMES: [&str; 2] = ["region", "team"];
const VALUES: [&str; 3] = ["1", "2", "3"];

#[derive(Clone, Debug)]
enum Action {
    /// Events of one round: channel, tags, and whether the live message is lost. Another one of the
    /// channel follows that reveals it.
    Publish(Vec<(usize, [Option<usize>; 2], bool)>),
    /// A detached stream catches up from the logs.
    CatchUp(usize),
    /// The writer of a stream takes everything.
    Write(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let tags = [proptest::option::of(0..3usize), proptest::option::of(0..3usize)];
    let event = (0..3usize, tags, prop::bool::weighted(0.1));
    prop_oneof![
        4 => vec(event, 1..5).prop_map(Action::Publish),
        2 => (0..8usize).prop_map(Action::CatchUp),
        2 => (0..8usize).prop_map(Action::Write),
    ]
}

/// For each tag, the values that pass; none: the filter does not name the tag.
type Values = [BTreeSet<usize>; 2];

fn filter() -> impl Strategy<Value = Values> {
    let values = || proptest::collection::btree_set(0..3usize, 0..3);
    let filter: [_; 2] = [values(), values()];
    filter.prop_filter("no empty filter", |values| values.iter().any(|v| !v.is_empty()))
}

struct Stream {
    connection: Rc<Connection>,
    /// What a client without a queue got.
    direct: Rc<RefCell<Vec<String>>>,
    got: Vec<u64>,
}

impl Stream {
    fn new(hub: &Hub, n: usize, values: &Values) -> Self {
        let claim = NAMES.iter().zip(values).filter(|(_, values)| !values.is_empty());
        let claim: HashMap<_, Vec<_>> = claim
            .map(|(name, values)| (*name, values.iter().map(|v| VALUES[*v]).collect()))
            .collect();
        let topics: &[&str] = [&["news"][..], &["ne*"], &["news", "n*"], &["*"]][n % 4];
        let mut client = client("a", topics, &format!("{n:02}"), 2);
        client.filter = Some(Filter::of_claim(&json!(claim)).expect("a filter").into());
        let direct = Rc::<RefCell<Vec<String>>>::default();
        let taking = n.is_multiple_of(2).then(|| direct.clone());
        let test_client = TestClient { written: taking, ..TestClient::default() };
        let connection = connection(&hub.context, client, test_client);
        hub.add(&connection);
        make_live(&connection);
        Self { connection, direct, got: Vec::new() }
    }

    /// The client receives everything that was written.
    fn write(&mut self) {
        let mut text = self.direct.take().concat();
        text.push_str(&written(&self.connection));
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")?.split_once('-'));
        self.got.extend(ids.map(|(ms, _)| ms.parse::<u64>().expect("an id")));
    }

    fn wants(&self, event: &Event) -> bool {
        let client = &self.connection.client;
        let has_channel = match &event.channel {
            Channel::User(user) => &**user == "a",
            Channel::Broadcast(topic) => client.topics.allows(topic),
        };
        has_channel && self.connection.sees(event)
    }

    fn catch_up(&mut self, log: &[Arc<Event>]) {
        let c = self.connection.clone();
        if c.is_part_live(Part::Whole) {
            return;
        }
        self.write();
        let (_, from) = c.begin_catch_up(Part::Whole);
        let from = from.unwrap_or_default();
        for event in log.iter().filter(|event| event.id > Some(from) && self.wants(event)) {
            c.replay(Part::Whole, event);
        }
        let h = log.last().and_then(|event| event.id).unwrap_or_default();
        c.finish_catch_up(Part::Whole, h);
        self.write();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn filtered_streams_get_exactly_what_passes(
        filters in vec(filter(), 1..8),
        actions in vec(action(), 1..40),
    ) {
        let delivery = Arc::new(Delivery::new(0));
        let inbox = delivery.mailboxes.open();
        let (hub, _requests) = Hub::new(context(&[]), delivery, &inbox, &[SERVER]);
        let streams = filters.iter().enumerate();
        let mut streams: Vec<_> = streams.map(|(n, values)| Stream::new(&hub, n, values)).collect();
        let mut log: Vec<Arc<Event>> = Vec::new();
        let mut last = [EventId::ZERO; 3];
        let mut publish = |log: &mut Vec<Arc<Event>>, channel: usize, tags: [Option<usize>; 2]| {
            let named = NAMES.iter().zip(tags).filter_map(|(name, value)| Some((name, value?)));
            let tags: Vec<_> = named.map(|(name, v)| format!("{name}={}", VALUES[v])).collect();
            let tags = Tags::parse(&tags.join(" ")).unwrap_or_default();
            let position = id(log.len() as u64 + 1);
            let before = std::mem::replace(&mut last[channel], position);
            let of = Channel::parse(CHANNELS[channel]).expect("a channel");
            let event = Event::new(position, before, of, None, "t", "");
            let options = Box::new(EventOptions { tags, ..EventOptions::default() });
            log.push(Arc::new(event.with_options(Some(options))));
            log[log.len() - 1].clone()
        };
        for action in actions {
            match action {
                Action::Publish(events) => {
                    let mut round = Round::default();
                    for (channel, tags, is_lost) in events {
                        let mut event = publish(&mut log, channel, tags);
                        if is_lost {
                            event = publish(&mut log, channel, [tags[1], tags[0]]);
                        }
                        round.push(SERVER, Item::Event(event), None);
                    }
                    hub.deliver(&mut round, 0);
                    // A socket that takes everything at once has no queue.
                    streams.iter_mut().step_by(2).for_each(Stream::write);
                }
                Action::CatchUp(n) => {
                    let n = n % streams.len();
                    streams[n].catch_up(&log);
                }
                Action::Write(n) => {
                    let n = n % streams.len();
                    streams[n].write();
                }
            }
        }
        for stream in &mut streams {
            stream.catch_up(&log);
            stream.write();
            let wanted = log.iter().filter(|event| stream.wants(event));
            let wanted: Vec<_> = wanted.filter_map(|event| Some(event.id?.ms)).collect();
            prop_assert_eq!(&stream.got, &wanted, "{:?}", stream.connection.client.filter);
        }
    }
}
