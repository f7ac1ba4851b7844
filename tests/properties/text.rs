//! Encoders and parsers of text from outside: round trips, and no panic on any input.

use proptest::prelude::*;
use sse_gateway::core::{
    address::{self, AddressHeader},
    channel::Channel,
    channel_pattern::ChannelPattern,
    channel_rules::{ChannelPolicy, ChannelRule, ChannelRules},
    envelope,
    event::Event,
    frame,
    id::EventId,
    parser::Parser,
    topics::Topics,
};

/// The data of an `EventSource`: CR, LF and CRLF end a line, lines are joined by LF.
fn as_browser_reads(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

fn id() -> impl Strategy<Value = EventId> {
    let epoch = prop_oneof![0..40u64, 0..36u64.pow(9)];
    let number = || prop_oneof![0..3u64, any::<u64>()];
    (epoch, number(), number()).prop_map(|(epoch, ms, seq)| EventId { epoch, ms, seq })
}

/// Texts in which the sides of a pattern overlap the fixed parts of channel names.
fn pieces(most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("user:"),
        Just(":events"),
        Just("broadcast:"),
        Just("us"),
        Just("ents"),
        Just("a"),
        Just("b"),
        Just(":"),
    ];
    proptest::collection::vec(piece, 0..=most).prop_map(|pieces| pieces.concat())
}

fn pattern() -> impl Strategy<Value = ChannelPattern> {
    let star = prop_oneof![Just(""), Just("*"), Just("*"), Just("*")];
    let text = (pieces(2), star, pieces(2)).prop_map(|(a, star, b)| format!("{a}{star}{b}"));
    text.prop_filter_map("no channel matches", |text| ChannelPattern::parse(&text).ok())
}

fn channel() -> impl Strategy<Value = Channel> {
    let name = (any::<bool>(), pieces(3)).prop_map(|(is_user, name)| match is_user {
        true => format!("user:{name}:events"),
        false => format!("broadcast:{name}"),
    });
    name.prop_filter_map("no channel", |name| Channel::parse(&name))
}

proptest! {
    #[test]
    fn covering_patterns_match_every_channel_of_the_others(
        one in pattern(),
        other in pattern(),
        channels in proptest::collection::vec(channel(), 1..40),
    ) {
        for name in channels.iter().map(Channel::to_string) {
            let both = (one.matches(&name), other.matches(&name));
            prop_assert!(!one.covers(&other) || both.0 || !both.1, "{} {} {}", one, other, name);
            let overlap = one.overlaps(&other) || both != (true, true);
            prop_assert!(overlap, "{} {} {}", one, other, name);
        }
    }

    #[test]
    fn patterns_require_keep_only_if_each_channel_does(
        rules in proptest::collection::vec((pattern(), any::<bool>()), 0..4),
        prefix in pieces(1),
        channels in proptest::collection::vec(channel(), 1..40),
    ) {
        let rule = |(pattern, requires_keep)| ChannelRule {
            pattern,
            max_len: None,
            retention: None,
            max_event_bytes: None,
            requires_keep,
            is_ephemeral: false,
            rate: None,
        };
        let rules: Vec<_> = rules.into_iter().map(rule).collect();
        let rules = ChannelRules::new(rules, ChannelPolicy::default());
        if rules.pattern_requires_keep(&prefix) {
            let of_prefix = |channel: &&Channel| match channel {
                Channel::Broadcast(topic) => topic.starts_with(&prefix),
                Channel::User(_) => false,
            };
            for channel in channels.iter().filter(of_prefix) {
                prop_assert!(rules.requires_keep(channel), "{}", channel);
            }
        }
    }

    #[test]
    fn frames_parse_to_their_parts(
        name in "[a-z][a-z.-]{0,20}",
        data in any::<String>(),
        id in id(),
        retry in proptest::option::of(0..86_400_000u64),
        split in 1..40usize,
    ) {
        let bytes = frame::encode(retry, Some(id), &name, &data);
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for part in bytes.chunks(split) {
            parser.push(part, |event| events.push(event));
        }
        prop_assert_eq!(events.len(), 1);
        prop_assert_eq!(&events[0].kind, &name);
        prop_assert_eq!(&events[0].data, &as_browser_reads(&data));
        prop_assert_eq!(EventId::parse(&events[0].id), Some(id));
        prop_assert_eq!(parser.retry_ms, retry);
    }

    #[test]
    fn events_return_their_kind_and_data(name in "[a-z]{1,20}", data in any::<String>()) {
        let Some(channel) = Channel::parse("broadcast:a") else { return Ok(()) };
        let id = EventId { epoch: 3, ms: 1, seq: 2 };
        let event = Event::new(id, EventId::ZERO, channel, None, &name, &data);
        prop_assert_eq!(event.kind(), name);
        prop_assert_eq!(event.data(), as_browser_reads(&data));
    }

    #[test]
    fn ids_round_trip_and_reject_the_rest(id in id(), text in ".{0,40}") {
        prop_assert_eq!(EventId::parse(&id.to_string()), Some(id));
        if let Some(id) = EventId::parse(&text) {
            prop_assert_eq!(EventId::parse(&id.to_string()), Some(id), "{:?} became {}", text, id);
        }
    }

    #[test]
    fn epochs_have_one_spelling(id in id(), zeros in "0{1,9}", longer in "[0-9a-z]{1,5}") {
        let text = id.to_string();
        let Some((entry, epoch)) = text.split_once('.') else { return Ok(()) };
        prop_assert_eq!(EventId::parse(&format!("{entry}.{zeros}{epoch}")), None);
        let upper = epoch.to_uppercase();
        prop_assert_eq!(EventId::parse(&format!("{entry}.{upper}")).is_some(), upper == epoch);
        let long = format!("{entry}.{epoch}{longer}");
        if epoch.len() + longer.len() > 9 {
            prop_assert_eq!(EventId::parse(&long), None);
        } else if epoch != "0" {
            let parsed = EventId::parse(&long).map(|id| id.to_string());
            prop_assert_eq!(parsed, Some(long));
        }
        prop_assert_eq!(EventId::parse(entry), None);
        prop_assert_eq!(EventId::parse_entry(entry, id.epoch), Some(id));
    }

    #[test]
    fn ids_are_ordered_by_epoch_then_time_then_number(a in id(), b in id(), epoch in 0..3u64) {
        prop_assert_eq!(a.cmp(&b), (a.epoch, a.ms, a.seq).cmp(&(b.epoch, b.ms, b.seq)));
        // In one epoch, and whatever the ids in different ones.
        let (a, b) = (EventId { epoch, ..a }, EventId { epoch: epoch + 1, ..b });
        prop_assert!(a < b);
    }

    #[test]
    fn channels_round_trip(text in "(user:|broadcast:)?[ -~]{0,40}(:events)?") {
        if let Some(channel) = Channel::parse(&text) {
            prop_assert_eq!(channel.to_string(), text);
        }
    }

    #[test]
    fn narrowed_topics_never_exceed_the_ticket(
        ticket in proptest::collection::vec("[a-c]{0,3}\\*?", 0..5),
        wanted in proptest::collection::vec("[a-c]{1,3}", 0..5),
        topic in "[a-c]{1,4}",
    ) {
        let parse = |list: &[String]| Topics::parse(list.iter().map(String::as_str)).ok();
        let (Some(ticket), Some(wanted)) = (parse(&ticket), parse(&wanted)) else { return Ok(()) };
        let narrowed = ticket.narrow(&wanted);
        if narrowed.allows(&topic) {
            prop_assert!(ticket.allows(&topic) && wanted.allows(&topic));
        }
    }

    #[test]
    fn envelopes_keep_the_payload_byte_for_byte(
        payload in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap_or_default()),
            "[ ]{0,3}\\{\"a\": [1-9][0-9]{0,5}\\}",
        ],
    ) {
        let message = format!("{{\"type\":\"t\",\"payload\":{payload}}}");
        if let Ok(decoded) = envelope::decode(message.as_bytes(), 1 << 20) {
            prop_assert_eq!(decoded.payload, payload.trim());
        }
    }

    #[test]
    fn malformed_envelopes_do_not_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = envelope::decode(&message, 200);
    }

    #[test]
    fn untrusted_peers_cannot_name_their_address(line in ".{0,80}") {
        let peer = std::net::IpAddr::from([203, 0, 113, 9]);
        for header in [AddressHeader::Forwarded, AddressHeader::XForwardedFor] {
            let found = address::client(peer, &[], header, std::iter::once(line.as_str()));
            prop_assert_eq!(found, peer);
        }
    }
}
