//! Unit tests of [`super`].

use super::*;

const STREAM: &str = ": hello\n\nretry: 250\nid: 1-0\nevent: sse.connected\ndata: {}\n\n\
                      data:a\r\ndata: b\r\nid: 2-0\r\n\r\n\
                      event: x\rdata:  two spaces\r\rid: 3-0\n\ndata\n\n\
                      unknown: y\n\n: c\r\rdata: last\r\n\r\ndata: unfinished\n";

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let (mut parser, mut seen) = (BlockParser::default(), Vec::new());
    for piece in pieces {
        parser.feed(piece, |e| {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            seen.push(format!(
                "{}|{:?}|{}|{}|{:?}",
                text(e.name),
                e.id.map(text),
                text(e.first_line),
                e.data_lines,
                e.retry_ms
            ));
        });
    }
    seen
}

fn expected() -> Vec<String> {
    [
        "sse.connected|Some(\"1-0\")|{}|1|Some(250)",
        "|Some(\"2-0\")|a|2|None",
        "x|None| two spaces|1|None",
        "|Some(\"3-0\")||0|None",
        "|None||1|None",
        "|None|last|1|None",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn whole_stream_yields_all_events() {
    assert_eq!(read(&[STREAM.as_bytes()]), expected());
}

#[test]
fn every_split_yields_all_events() {
    let bytes = STREAM.as_bytes();
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(read(&pieces), expected(), "split at {first} and {second}");
        }
    }
}

#[test]
fn single_bytes_parse_and_leave_no_buffer() {
    let bytes = STREAM.as_bytes();
    let pieces: Vec<&[u8]> = bytes.iter().map(std::slice::from_ref).collect();
    assert_eq!(read(&pieces), expected());

    let mut parser = BlockParser::default();
    for byte in b"data: x\n\n" {
        parser.feed(std::slice::from_ref(byte), |_| {});
    }
    assert_eq!(parser.partial.capacity(), 0);
}

#[test]
fn lone_cr_completes_an_event_at_once() {
    assert_eq!(read(&[b"data: x\r\r"]).len(), 1);
    assert_eq!(read(&[b"data: x\r\r", b"\n", b"data: y\n\n"]).len(), 2);
}

fn all(chunks: &[&[u8]]) -> Vec<Parsed> {
    let (mut parser, mut out) = (Parser::default(), Vec::new());
    chunks.iter().for_each(|c| parser.push(c, |e| out.push(e)));
    out
}

#[test]
fn every_split_gives_the_same_events() {
    let stream = ": hi\r\nretry: 5\rid: 1-0\nevent: a\r\ndata: x\r\ndata: \u{e4}\r\n\r\n\
         data\n\nevent: lost\n\n"
        .as_bytes();
    let whole = all(&[stream]);
    let event =
        |kind: &str, data: &str| Parsed { id: "1-0".into(), kind: kind.into(), data: data.into() };
    assert_eq!(whole, [event("a", "x\n\u{e4}"), event("message", "")]);
    for cut in 0..=stream.len() {
        assert_eq!(all(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
}

#[test]
fn encoded_frames_parse_to_their_parts() {
    let frame = crate::core::frame::encode(
        Some(1),
        crate::core::id::EventId::parse("7-7.z"),
        "t",
        "a\n\nb\rc\r\n",
    );
    assert_eq!(
        all(&[&frame]),
        [Parsed { id: "7-7.z".into(), kind: "t".into(), data: "a\n\nb\nc\n".into() }]
    );
}

#[test]
fn data_lines_are_joined_by_lf() {
    let data = |stream: &str| {
        let mut all = Vec::new();
        BlockParser::default().feed(stream.as_bytes(), |block| {
            all.push(block.data().map(|data| text(&data)));
        });
        all
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(data("data: a\nid: 1\r\ndata\rdata: b\n\n"), [some("a\n\nb")]);
    assert_eq!(data("data: a\n\nid: 1\n\ndata:\ndata\n\n"), [some("a"), None, some("\n")]);
}

#[test]
fn byte_order_mark_is_ignored_at_the_start_only() {
    let stream = "\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes();
    for cut in 0..=stream.len() {
        let events = all(&[&stream[..cut], &stream[cut..]]);
        assert_eq!(events.iter().map(|e| &*e.data).collect::<Vec<_>>(), ["a"], "cut at {cut}");
    }
}

#[test]
fn invalid_ids_and_delays_are_ignored() {
    let mut parser = Parser::default();
    let mut ids = Vec::new();
    let stream = b"id: 1\nretry: 5\ndata\n\nid: 2\0\nretry: +7\ndata\n\nretry: 7 \nretry\n\n";
    parser.push(stream, |event| ids.push(event.id));
    assert_eq!((ids, parser.retry_ms), (vec!["1".to_owned(), "1".to_owned()], Some(5)));
}
