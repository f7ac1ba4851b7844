//! Finds the end of a request's body (RFC 9112 sections 6 and 7). Pure, and strict: input that
//! another parser might read differently is malformed.

use bytes::{Buf, Bytes, BytesMut};

use crate::http::malformed::Malformed;

/// Maximum length of a line with a chunk's size and extensions, in bytes, including CRLF.
const MAX_SIZE_LINE_BYTES: usize = 256;
/// Maximum length of all trailer fields together, in bytes. They are discarded.
const MAX_TRAILER_BYTES: usize = 4 << 10;
/// Maximum number of digits of a chunk's size: 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// Finds the end of one request's body.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Clone, Copy, Debug)]
enum State {
    /// Remaining bytes of a body with Content-Length.
    Length(u64),
    ChunkSize,
    /// Remaining bytes of a chunk.
    ChunkData(u64),
    ChunkEnd,
    /// Remaining maximum length of the trailer.
    Trailer(usize),
    Ended,
}

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next bytes of the body.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body has ended; the remaining bytes belong to the next request.
    Ended,
}

impl Decoder {
    /// A body of `bytes` bytes; 0 means no body.
    pub fn length(bytes: u64) -> Self {
        Self(if bytes == 0 { State::Ended } else { State::Length(bytes) })
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Self(State::ChunkSize)
    }

    /// Whether the body has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }

    /// Takes bytes of the body from the start of `held`.
    ///
    /// # Errors
    /// [`Malformed::Chunk`]; the start of the next request is then unknown.
    pub fn decode(&mut self, held: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            self.0 = match self.0 {
                State::Ended => return Ok(Step::Ended),
                State::Length(_) | State::ChunkData(_) if held.is_empty() => {
                    return Ok(Step::More);
                }
                State::Length(left) => {
                    let data = take(held, left);
                    *self = Self::length(left - data.len() as u64);
                    return Ok(Step::Data(data));
                }
                State::ChunkData(left) => {
                    let data = take(held, left);
                    self.0 = match left - data.len() as u64 {
                        0 => State::ChunkEnd,
                        left => State::ChunkData(left),
                    };
                    return Ok(Step::Data(data));
                }
                State::ChunkSize => match line(held, MAX_SIZE_LINE_BYTES)? {
                    None => return Ok(Step::More),
                    Some(line) => match chunk_size(&line).ok_or(Malformed::Chunk)? {
                        0 => State::Trailer(MAX_TRAILER_BYTES),
                        bytes => State::ChunkData(bytes),
                    },
                },
                State::ChunkEnd => match line(held, 2)? {
                    None => return Ok(Step::More),
                    Some(_) => State::ChunkSize,
                },
                State::Trailer(left) => match line(held, left)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => State::Ended,
                    Some(line) if is_field(&line) => State::Trailer(left - line.len() - 2),
                    Some(_) => return Err(Malformed::Chunk),
                },
            }
        }
    }
}

fn take(held: &mut BytesMut, most: u64) -> Bytes {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(held.len());
    held.split_to(count).freeze()
}

/// Takes a line, without its CRLF; `None` if it is incomplete. With CRLF it has at most
/// `max_bytes`, and it contains no other CR or LF.
fn line(held: &mut BytesMut, max_bytes: usize) -> Result<Option<BytesMut>, Malformed> {
    let seen = &held[..held.len().min(max_bytes)];
    match seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) if seen[end..].starts_with(b"\r\n") => {
            let line = held.split_to(end);
            held.advance(2);
            Ok(Some(line))
        }
        // The LF may not have arrived yet.
        Some(end) if seen[end..] == *b"\r" && seen.len() < max_bytes => Ok(None),
        None if seen.len() < max_bytes => Ok(None),
        _ => Err(Malformed::Chunk),
    }
}

/// Parses a chunk's size (RFC 9112 section 7.1): hexadecimal digits; white space only before an
/// extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if digits.len() > MAX_SIZE_DIGITS || !rest.iter().all(is_text) {
        return None;
    }
    if !rest.is_empty() && rest.trim_ascii_start().first() != Some(&b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether a line is a trailer field: a name, a colon, a value.
fn is_field(line: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 1];
    let text = [line, b"\r\n\r\n"].concat();
    httparse::parse_headers(&text, &mut headers).is_ok_and(|status| status.is_complete())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `step` bytes at a time; returns the body and the bytes after it.
    fn decoded(
        mut decoder: Decoder,
        text: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let (mut held, mut body) = (BytesMut::new(), Vec::new());
        let mut pieces = text.chunks(step);
        loop {
            match decoder.decode(&mut held)? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::Ended => {
                    held.extend(pieces.flatten());
                    return Ok((body, held.to_vec()));
                }
                Step::More => held.extend_from_slice(pieces.next().expect("it is whole")),
            }
        }
    }

    #[test]
    fn bodies_end_correctly_for_every_split() {
        let chunked = b"5;a=\"b c\"\r\n\r\n\r\nx\r\n2 \t;x\r\nab\r\n0\r\nt: r\r\nu:\r\n\r\nGET /";
        for step in 1..=chunked.len() {
            let body = decoded(Decoder::chunked(), chunked, step).unwrap();
            assert_eq!(body, (b"\r\n\r\nxab".to_vec(), b"GET /".to_vec()), "{step}");
            let body = decoded(Decoder::length(5), b"\r\n\r\nxGET /", step).unwrap();
            assert_eq!(body, (b"\r\n\r\nx".to_vec(), b"GET /".to_vec()), "{step}");
        }
        assert_eq!(decoded(Decoder::length(0), b"GET /", 9).unwrap().1, b"GET /");
    }

    #[test]
    fn ambiguous_chunks_are_malformed() {
        let long_extension = format!("1;{}\r\nx", "e".repeat(MAX_SIZE_LINE_BYTES));
        let long_trailer = format!("0\r\n{}\r\n", "t: r\r\n".repeat(MAX_TRAILER_BYTES / 6 + 1));
        for bad in [
            "\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\nt: r\n\r\n",
            "0\r\nt: r\n\n",
            "0\r\n t: r\r\n\r\n",
            "0\r\nnone\r\n\r\n",
            "1\nx\r\n",
            "1\r\nx\n",
            "1\r\nxy\r\n",
            "1\r\nx\r\r\n",
            "+1\r\nx",
            "-1\r\n",
            "0x1\r\nx",
            " 1\r\nx",
            "1 \r\nx",
            "1\t\r\nx",
            "1 2\r\nx",
            "g\r\n",
            "1;a\rb\r\nx",
            "1;a\nb\r\nx",
            "1;\0\r\nx",
            "1,\r\nx",
            "10000000000000000\r\nx",
            "00000000000000001\r\nx",
            "1_0\r\n",
            "f0000000000000003\r\nabc",
            "0\r\n: r\r\n\r\n",
            "0\r\nt : r\r\n\r\n",
            "0\r\nt: \0\r\n\r\n",
            "0\r\n\rx",
            long_extension.as_str(),
            long_trailer.as_str(),
        ] {
            for step in [1, bad.len()] {
                let body = decoded(Decoder::chunked(), bad.as_bytes(), step);
                assert_eq!(body, Err(Malformed::Chunk), "{bad:?}");
            }
        }
    }
}
