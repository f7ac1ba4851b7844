//! Messages of Centrifugo's unidirectional SSE. Each is an event without an id: the reply to the
//! connect request, a publication, a ping (`{}`) or a disconnect. A client resumes with the epoch
//! and offset of its last publication in the connect request, instead of `Last-Event-ID`.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Env, StreamState};
use crate::stats::count;

/// Member of a publication that precedes its offset. The load tester's payloads do not contain it.
const OFFSET: &[u8] = br#""offset":"#;

/// Message that is not a publication.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    connect: Option<Connected<'a>>,
    disconnect: Option<Disconnected>,
}

#[derive(Deserialize)]
struct Connected<'a> {
    #[serde(borrow, default)]
    subs: BTreeMap<String, Subscribed<'a>>,
}

/// Reply for a channel. Its publications are those that a resuming client missed.
#[derive(Deserialize)]
struct Subscribed<'a> {
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    publications: Vec<Publication<'a>>,
    #[serde(default)]
    was_recovering: bool,
    #[serde(default)]
    recovered: bool,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Disconnected {
    reason: String,
}

impl StreamState {
    /// Processes a message.
    pub(super) fn centrifugo_message(&mut self, env: &Env, data: &[u8]) {
        // Publications are not parsed as JSON: that would cost the load tester more than
        // everything else.
        if data.starts_with(br#"{"channel":"#)
            && let Some(offset) = offset(data)
        {
            self.set_offset(offset);
            return self.receive(env, data);
        }
        let Ok(message) = serde_json::from_slice::<Message<'_>>(data) else {
            return count(&env.stats.failed, "a message of Centrifugo is not valid JSON");
        };
        if let Some(Disconnected { reason }) = message.disconnect {
            self.end_reason = Some(format!("disconnect: {reason}").into());
        }
        let subscribed = message.connect.and_then(|reply| reply.subs.into_values().next());
        if let Some(subscribed) = subscribed {
            self.subscribed(env, &subscribed);
        }
    }

    fn subscribed(&mut self, env: &Env, reply: &Subscribed<'_>) {
        if reply.was_recovering && !reply.recovered {
            count(&env.stats.gaps, "not recovered");
        }
        self.cursor.clear();
        let _ = write!(self.cursor, r#""recover":true,"epoch":"{}","offset":"#, reply.epoch);
        self.set_offset(reply.offset);
        self.opened(env);
        for publication in &reply.publications {
            self.receive(env, publication.data.get().as_bytes());
        }
    }

    /// Replaces the offset at the end of the cursor.
    fn set_offset(&mut self, offset: u64) {
        let end = self.cursor.iter().rposition(|byte| *byte == b':').map_or(0, |at| at + 1);
        self.cursor.truncate(end);
        let _ = write!(self.cursor, "{offset}");
    }
}

/// Returns the offset of a publication, which follows its data.
fn offset(publication: &[u8]) -> Option<u64> {
    let start = memchr::memmem::rfind(publication, OFFSET)? + OFFSET.len();
    let digits = publication[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&publication[start..start + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_of_a_publication_follows_its_data() {
        let publication =
            |rest| format!(r#"{{"channel":"load","pub":{{"data":{{"n":1}}{rest}}}}}"#);
        assert_eq!(offset(publication(r#","offset":12"#).as_bytes()), Some(12));
        assert_eq!(offset(publication("").as_bytes()), None);
    }

    #[test]
    fn pings_and_replies_are_not_publications() {
        for message in
            ["{}", r#"{"connect":{"client":"c","subs":{"load":{"epoch":"e","offset":2}}}}"#]
        {
            assert!(!message.starts_with(r#"{"channel":"#));
            let message: Message<'_> = serde_json::from_str(message).unwrap();
            assert!(message.disconnect.is_none());
        }
        let ping: Message<'_> = serde_json::from_str("{}").unwrap();
        assert!(ping.connect.is_none());
    }

    #[test]
    fn reply_contains_what_a_resuming_client_missed() {
        let reply = r#"{"connect":{"subs":{"load":{"epoch":"e","offset":3,"was_recovering":true,
            "recovered":true,"publications":[{"data":{"n":2},"offset":2},{"data":{"n":3}}]}}}}"#;
        let message: Message<'_> = serde_json::from_str(reply).unwrap();
        let subscribed = &message.connect.unwrap().subs["load"];
        assert_eq!((subscribed.epoch.as_str(), subscribed.offset), ("e", 3));
        let missed: Vec<&str> = subscribed.publications.iter().map(|one| one.data.get()).collect();
        assert_eq!(missed, [r#"{"n":2}"#, r#"{"n":3}"#]);
    }

    #[test]
    fn cursor_contains_the_latest_offset() {
        let mut state = StreamState::new(0);
        state.cursor.extend_from_slice(br#""epoch":"abc","offset":9"#);
        state.set_offset(10);
        assert_eq!(state.cursor, br#""epoch":"abc","offset":10"#);
    }
}
