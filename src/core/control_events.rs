//! The frames of the gateway's own events, `sse.*`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::{
    frame::{self, Encoded},
    id::{Cursor, EventId},
    reasons::{BusyReason, CloseReason, GapReason},
};

/// `sse.connected`, the first frame of a stream.
pub struct Connected<'a> {
    /// `retry:` hint in ms.
    pub retry_ms: u64,
    /// The cursor; `None` if the client's cursor cannot be sent back.
    pub id: Option<Cursor>,
    /// Id of this connection.
    pub connection: &'a str,
    /// The user; `None`: an anonymous client.
    pub user: Option<&'a str>,
    /// The topics of the stream.
    pub topics: Vec<String>,
    /// Whether the stream resumes from the client's cursor.
    pub resumed: bool,
}

impl Connected<'_> {
    /// Encodes the event as an SSE frame.
    pub fn frame(&self) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Data<'a> {
            connection_id: &'a str,
            user: Option<&'a str>,
            topics: &'a [String],
            resumed: bool,
        }
        let data = Data {
            connection_id: self.connection,
            user: self.user,
            topics: &self.topics,
            resumed: self.resumed,
        };
        let data = serde_json::to_string(&data).unwrap_or_default();
        frame::encode(Some(self.retry_ms), self.id, "sse.connected", &data)
    }
}

/// The data of `sse.gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Why events may be missing.
    #[serde(serialize_with = "reason_name")]
    pub reason: GapReason,
    /// The channels (or topic patterns) that may have lost events.
    pub channels: Vec<String>,
    /// The cursor after which events may be missing.
    pub from: String,
}

fn reason_name<S: serde::Serializer>(reason: &GapReason, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(reason.name())
}

impl Gap {
    /// Encodes the event as an SSE frame. `restart` is the id from which the stream continues; only
    /// `unknown-id` has one.
    pub fn frame(&self, restart: Option<Cursor>) -> Bytes {
        frame::encode(None, restart, "sse.gap", &serde_json::to_string(self).unwrap_or_default())
    }
}

/// The data of `sse.snapshot`, which precedes retained values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotKeys {
    /// The channels and patterns about which it says everything: a channel of these that it does
    /// not list has no retained values.
    pub covers: Vec<String>,
    /// The current keys of each channel that has retained values.
    pub channels: BTreeMap<String, Vec<Box<str>>>,
}

impl SnapshotKeys {
    /// Adds the keys of other channels.
    pub fn extend(&mut self, other: Self) {
        self.covers.extend(other.covers);
        self.channels.extend(other.channels);
    }

    /// Encodes the event as an SSE frame.
    pub fn frame(&self) -> Bytes {
        let data = serde_json::to_string(self).unwrap_or_default();
        frame::encode(None, None::<EventId>, "sse.snapshot", &data)
    }
}

/// Encodes `sse.heartbeat`.
pub fn heartbeat(id: Cursor, timestamp_ms: u64) -> Encoded {
    let data = json!({ "timestamp": timestamp_ms }).to_string();
    frame::encode_event(None, Some(id), "sse.heartbeat", &data)
}

/// Encodes `sse.closing`, the last frame of a stream that the gateway ends.
pub fn closing(reason: CloseReason, retry_ms: u64) -> Bytes {
    frame::encode(
        Some(retry_ms),
        None::<EventId>,
        "sse.closing",
        &json!({ "reason": reason.name() }).to_string(),
    )
}

/// Encodes `sse.busy`, the only frame of a response that asks the client to retry later.
pub fn busy(reason: BusyReason, retry_ms: u64) -> Bytes {
    let data = json!({ "reason": reason.name() }).to_string();
    frame::encode(Some(retry_ms), None::<EventId>, "sse.busy", &data)
}
