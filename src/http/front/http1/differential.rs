//! Compares our parser with actix's on generated requests; see `comparison`.

use std::cell::Cell;

use actix_http::ServiceConfig;
use bytes::BytesMut;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::comparison::{compare, ours};

fn with_config<T>(test: impl FnOnce(&ServiceConfig) -> T) -> T {
    actix_rt::System::new().block_on(async { test(&ServiceConfig::default()) })
}

fn any_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(texts).prop_map(str::to_owned)
}

/// A header line: harmless, or typical for request smuggling.
fn field() -> impl Strategy<Value = String> {
    let harmless = any_of(&["A: b\r\n", "Cookie: a=b; c=d\r\n", "Accept: */*\r\n", "X-Y:\tz \r\n"]);
    let tricky = any_of(&[
        "Content-Length: 0\r\n",
        "Content-Length: 3\r\n",
        "content-length: 03\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: \r\n",
        "Content-Length : 3\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding: CHUNKED\r\n",
        "Transfer-Encoding:\tchunked \r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\nContent-Length: 3\r\n",
        "X: y\rContent-Length: 3\r\n",
        "Host: y\r\n",
        "Host: \r\n",
        "Host: u@h\r\n",
        "Expect: 100-continue\r\n",
        "Expect: a\r\n",
        "Connection: close\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
        ": no name\r\n",
        "no colon\r\n",
        "\u{e9}: \u{e9}\r\n",
        "A: \u{e9}\r\n",
        "A: \0\r\n",
    ]);
    prop_oneof![8 => harmless, 1 => tricky]
}

fn chunk() -> impl Strategy<Value = String> {
    let size = any_of(&["", ";a", ";a=b", " ;a", ";a=\"b c\"", " ", "\t", ";a\rb", ";a\nb"]);
    let size = prop_oneof![20 => Just(String::new()), 1 => size];
    let end = prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    ("[a\r\n0]{1,5}", size, end.clone(), end, select(vec!["", "0", "000000000000000"])).prop_map(
        |(data, extension, a, b, zeros)| format!("{zeros}{:x}{extension}{a}{data}{b}", data.len()),
    )
}

fn chunked() -> impl Strategy<Value = String> {
    let end = any_of(&[
        "0\r\n\r\n",
        "00\r\n\r\n",
        "0;a\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
        "0\r\nA: b\r\nC:\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\n\n",
        "0\r\nA: b\r\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\n\rGET",
        "-0\r\n\r\n",
        "0x0\r\n\r\n",
    ]);
    let end = prop_oneof![4 => Just("0\r\n\r\n".to_owned()), 1 => end];
    (vec(chunk(), 0..3), end).prop_map(|(chunks, end)| chunks.concat() + &end)
}

fn request() -> impl Strategy<Value = String> {
    let method = any_of(&[
        "GET", "GET", "POST", "POST", "OPTIONS", "HEAD", "get", "M-SEARCH", "CONNECT", "\r\nPUT",
    ]);
    let target = any_of(&[
        "/",
        "/",
        "/",
        "/",
        "/",
        "/",
        "/",
        "/",
        "/events",
        "/a?b=c&d",
        "*",
        "http://x/y?z",
        "HTTPS://x",
        "//x",
        "/a#b",
        "/a b",
        "x:1",
        "/\u{e9}",
        "/a{b}|c",
        "http://u@x/",
        "http:///",
        "/%zz",
    ]);
    let version = any_of(&["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", ""]);
    let version = prop_oneof![20 => Just("HTTP/1.1".to_owned()), 1 => version];
    let framed = prop_oneof![
        2 => Just(String::new()),
        1 => "[a-z\r\n]{3}".prop_map(|body| format!("Content-Length: 3\r\n\r\n{body}")),
        3 => chunked().prop_map(|body| format!("Transfer-Encoding: chunked\r\n\r\n{body}")),
    ];
    let host = prop_oneof![20 => Just("Host: x\r\n"), 1 => Just("")];
    (method, target, version, host, vec(field(), 0..4), framed).prop_map(
        |(method, target, version, host, fields, framed)| {
            let framed = if framed.is_empty() { "\r\n".to_owned() } else { framed };
            format!("{method} {target} {version}\r\n{host}{}{framed}", fields.concat())
        },
    )
}

/// Position, kind (0: delete, 1: insert, 2: replace, 3: repeat some bytes), and byte of a mutation.
fn mutation() -> impl Strategy<Value = (prop::sample::Index, u8, u8)> {
    (
        any::<prop::sample::Index>(),
        0u8..4,
        select(b"\r\n \t;:,+-0aF\0\x0b\x0c\x7f\x80\xff/?x".to_vec()),
    )
}

fn mutated(text: String, mutations: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    let mut text = text.into_bytes();
    for (at, what, byte) in mutations {
        let at = at.index(text.len());
        match what {
            0 if text.len() > 1 => drop(text.remove(at)),
            1 => text.insert(at, byte),
            2 => text[at] = byte,
            _ => {
                let some = text[at..text.len().min(at + 12)].to_vec();
                text.splice(at..at, some);
            }
        }
    }
    text
}

#[test]
fn accepted_requests_are_read_by_actix_alike() {
    const CASES: u32 = 20_000;
    let texts = vec(request(), 1..4).prop_map(|requests| requests.concat());
    let texts = (texts, vec(mutation(), 0..3)).prop_map(|(text, with)| mutated(text, with));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let accepted = Cell::new(0);
    let done = with_config(|service| {
        TestRunner::new(config).run(&texts, |text| {
            let count = compare(service, &text).map_err(|difference| {
                TestCaseError::fail(format!("{:?}: {difference}", String::from_utf8_lossy(&text)))
            })?;
            accepted.set(accepted.get() + count as u32);
            Ok(())
        })
    });
    done.unwrap_or_else(|error| panic!("{error}"));
    // Otherwise the test would compare nothing.
    assert!(accepted.get() > CASES / 5, "{} were accepted", accepted.get());
}

#[test]
fn known_smuggling_shapes_are_rejected() {
    let head = |fields: &str| format!("POST /publish HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let chunked = |body: &str| head("Transfer-Encoding: chunked\r\n") + body;
    let heads = [
        // CL.TE and TE.CL, in both orders.
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        // TE.TE: one of two parsers ignores the header.
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: \x0cchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t:chunked\r\n",
        "Transfer-Encoding:\n chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "\0Transfer-Encoding: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        // CL.CL.
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: \r\n",
        "Content-Length : 5\r\n",
        "Content-Length:\r\n 5\r\n",
    ]
    .map(head);
    let bodies = [
        "0\r\n\n",
        "0\n\r\n",
        "0\r\nt: r\n\r\n",
        "0\r\nt: r\r\n\n",
        "0\r\n\rx",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "1;\nx\r\n0\r\n\r\n",
        "1;a\n1\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ]
    .map(chunked);
    for text in heads.iter().chain(&bodies) {
        let text = text.clone() + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut held = BytesMut::from(text.as_str());
        assert!(ours(&mut held).is_err(), "{text:?}");
    }
    // Valid requests that resemble them are read as by actix.
    with_config(|config| {
        for (text, count) in [
            (chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n") + &head(""), 2),
            (chunked("1;a=\"0\"\r\nx\r\n00;b\r\nt: r\r\n\r\n") + &head(""), 2),
            (head("Content-Length: 5\r\n") + "0\r\n\r\n" + &head("Content-Length: 0\r\n"), 2),
            (head("X-Transfer-Encoding: chunked\r\nX-Content-Length: 5\r\n") + &head(""), 2),
        ] {
            assert_eq!(compare(config, text.as_bytes()), Ok(count), "{text:?}");
        }
    });
}
