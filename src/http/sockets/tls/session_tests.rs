//! The session against rustls' client, and against rustls' own buffered server.

use std::io::{Read, Write};

use rustls::{
    ClientConnection, Error, ServerConnection, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::io::ReadBuf;

use super::{TlsSession, testing};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(testing::client(version), name).unwrap()
}

/// A client and the session that serves it.
struct Pair {
    client: ClientConnection,
    session: TlsSession,
    random: fastrand::Rng,
    /// Maximum size of the pieces in which bytes arrive.
    piece_bytes: usize,
    /// What the client has decrypted.
    seen: Vec<u8>,
}

impl Pair {
    /// A pair whose handshake is complete.
    fn new(version: &'static SupportedProtocolVersion, piece_bytes: usize, seed: u64) -> Self {
        let session = TlsSession::new(testing::server()).unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let mut pair =
            Self { client: client(version), session, random, piece_bytes, seen: Vec::new() };
        while pair.client.is_handshaking() || pair.session.is_handshaking() {
            pair.reach_server().unwrap();
        }
        assert!(!pair.session.has_agreed_on_http2());
        pair
    }

    /// Delivers what the client sends, and what the session responds.
    fn reach_server(&mut self) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        self.deliver(bytes)
    }

    fn deliver(&mut self, mut bytes: Vec<u8>) -> std::io::Result<()> {
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let size = self.random.usize(1..=self.piece_bytes).min(rest.len());
            let (piece, after) = rest.split_at_mut(size);
            rest = after;
            let mut outbound = Vec::new();
            let received = self.session.receive(piece, &mut outbound);
            self.reach_client(&outbound)?;
            received?;
        }
        Ok(())
    }

    fn reach_client(&mut self, mut outbound: &[u8]) -> std::io::Result<()> {
        while !outbound.is_empty() {
            self.client.read_tls(&mut outbound).unwrap();
            self.client.process_new_packets().map_err(std::io::Error::other)?;
            // No more is to be read now, or ever.
            let _ = self.client.reader().read_to_end(&mut self.seen);
        }
        Ok(())
    }

    fn sends(&mut self, text: &[u8]) {
        self.client.writer().write_all(text).unwrap();
        self.reach_server().unwrap();
        assert_eq!(read(&mut self.session), text);
    }

    fn gets(&mut self, text: &[u8]) {
        let mut outbound = Vec::new();
        self.session.encrypt(text, &mut outbound).unwrap();
        self.reach_client(&outbound).unwrap();
        assert!(std::mem::take(&mut self.seen) == text);
    }

    /// The client's error after it got the alert of a session that has failed.
    fn alert_after(&mut self, bytes: Vec<u8>) -> String {
        let error = self.deliver(bytes).expect_err("the session fails");
        assert!(self.session.encrypt(b"x", &mut Vec::new()).is_err(), "it has failed");
        assert!(self.session.receive(&mut [0], &mut Vec::new()).is_err());
        error.to_string()
    }
}

/// All plaintext that a session has, in small reads.
fn read(session: &mut TlsSession) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 7];
        let mut buffer = ReadBuf::new(&mut bytes);
        let has_read = session.read(&mut buffer);
        assert_eq!(has_read, !buffer.filled().is_empty());
        match has_read {
            true => all.extend_from_slice(buffer.filled()),
            false => return all,
        }
    }
}

#[test]
fn any_fragmentation_gives_the_same_plaintext() {
    for (version, piece_bytes) in VERSIONS.iter().flat_map(|v| [(v, 1), (v, 50), (v, 1 << 15)]) {
        let mut pair = Pair::new(version, piece_bytes, piece_bytes as u64);
        for size in [1, 300, 1 << 14, (1 << 14) + 1, 50_000] {
            let text: Vec<u8> = (0..size).map(|n| n as u8).collect();
            pair.sends(&text);
            pair.gets(&text);
        }
        assert_eq!(pair.session.buffer_bytes(), 0, "an idle session has no buffer");
        assert!(!pair.session.has_unread());
    }
}

#[test]
fn both_sides_continue_after_key_updates() {
    let mut pair = Pair::new(&TLS13, 20, 1);
    for n in 0..5 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.reach_server().unwrap();
        // The session's own update precedes what it writes next.
        pair.gets(format!("event {n}").as_bytes());
        pair.sends(format!("request {n}").as_bytes());
    }
}

#[test]
fn key_update_floods_end_the_connection() {
    let mut pair = Pair::new(&TLS13, 1 << 14, 2);
    let flood = (0..100).try_for_each(|_| {
        pair.client.refresh_traffic_keys().unwrap();
        pair.reach_server()
    });
    assert!(flood.is_err(), "the session accepts any number");
}

#[test]
fn close_notify_ends_the_plaintext_in_both_directions() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, 3, 3);
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        pair.reach_server().unwrap();
        // What follows is ignored.
        pair.deliver(b"anything".to_vec()).unwrap();
        assert!(pair.session.has_unread());
        let mut bytes = [0; 9];
        let mut buffer = ReadBuf::new(&mut bytes);
        assert!(pair.session.read(&mut buffer));
        assert_eq!(buffer.filled(), b"last");
        buffer.clear();
        assert!(pair.session.read(&mut buffer) && buffer.filled().is_empty(), "the end");
        // The other direction is still open.
        pair.gets(b"response");
        let mut outbound = Vec::new();
        pair.session.close(&mut outbound).unwrap();
        pair.reach_client(&outbound).unwrap();
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "close_notify");
        outbound.clear();
        let _ = pair.session.close(&mut outbound);
        assert!(outbound.is_empty(), "it is sent once");
    }
}

#[test]
fn forged_records_get_an_alert() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, 11, 4);
        let mut forged = vec![23, 3, 3, 0, 40];
        forged.extend([7; 40]);
        let alert = pair.alert_after(forged);
        assert!(alert.contains("BadRecordMac"), "{alert}");
        let mut pair = Pair::new(version, 11, 5);
        let alert = pair.alert_after(vec![23, 3, 3, 0xff, 0xff]);
        assert!(alert.contains("RecordOverflow") || alert.contains("DecodeError"), "{alert}");
    }
}

/// What rustls' buffered server says to these bytes: its error, and what it sends.
fn of_buffered(mut bytes: &[u8]) -> (Option<Error>, Vec<u8>) {
    let mut server = ServerConnection::new(testing::server()).unwrap();
    let mut result = Ok(());
    while !bytes.is_empty() && result.is_ok() {
        server.read_tls(&mut bytes).unwrap();
        result = server.process_new_packets().map(drop);
    }
    let mut outbound = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut outbound).unwrap();
    }
    (result.err(), outbound)
}

#[test]
fn bad_handshakes_are_rejected_as_by_the_buffered_server() {
    let mut hello = Vec::new();
    client(&TLS13).write_tls(&mut hello).unwrap();
    let record = |kind: u8, content: &[u8]| {
        let length = (content.len() as u16).to_be_bytes();
        [&[kind, 3, 1], &length[..], content].concat()
    };
    let mut too_long = vec![1, 1, 0, 0];
    too_long.extend([0; 1000]);
    let mut random = fastrand::Rng::with_seed(6);
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![22, 3, 1, 0xff, 0xff],
        record(22, &too_long),
        record(22, &[]).repeat(40),
        record(23, b"data"),
        record(21, &[2, 40]),
        record(21, &[1, 90]).repeat(10),
        record(20, &[1]).repeat(10),
        record(22, &hello[5..].repeat(2)),
        [record(22, &hello[5..60]), record(23, b"x")].concat(),
    ];
    for _ in 0..500 {
        let mut damaged = hello.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
        }
        inputs.push(damaged);
    }
    let mut rejected = 0;
    for input in inputs {
        let (expected, alerts) = of_buffered(&input);
        let mut session = TlsSession::new(testing::server()).unwrap();
        let mut outbound = Vec::new();
        let received = session.receive(&mut input.clone(), &mut outbound);
        let error = received.err().map(|error| error.to_string());
        assert_eq!(error, expected.as_ref().map(Error::to_string), "{input:?}");
        rejected += usize::from(expected.is_some());
        match outbound.first() {
            // An alert in the clear.
            Some(21) => assert_eq!(outbound, alerts, "{input:?}"),
            // Keys and signatures are random; the latter differ in length.
            _ => assert!(outbound.len().abs_diff(alerts.len()) < 8, "{input:?}"),
        }
    }
    assert!(rejected > 50, "{rejected}");
}

#[test]
fn unfinished_messages_are_bounded() {
    let mut session = TlsSession::new(testing::server()).unwrap();
    // A handshake message of the maximum size, in small records.
    let mut record = vec![22, 3, 1, 0, 100];
    record.extend([0; 100]);
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
    let mut accepted_bytes = 0;
    let mut next = first;
    while session.receive(&mut next, &mut Vec::new()).is_ok() {
        accepted_bytes += next.len();
        assert!(accepted_bytes < 1 << 17, "any amount is accepted");
        next = record.clone();
    }
}

/// ARCHITECTURE.md#what-a-stream-holds lists what else a stream over TLS holds.
#[test]
fn session_takes_at_most_its_budget() {
    assert_eq!(size_of::<TlsSession>(), 1152, "update the table");
}
