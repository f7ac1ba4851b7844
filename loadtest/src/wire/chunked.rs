//! Chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1).

/// Error for an invalid chunked body.
pub const BAD_CHUNK: &str = "invalid chunked encoding (RFC 9112, section 7.1)";

/// Decodes a chunked body that arrives in arbitrary pieces.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Remaining bytes of the chunk; while its size is read, the size so far.
    remaining: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    /// Chunk extensions and the CR after a size.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// After the last chunk. Trailers are ignored.
    End,
}

impl Chunked {
    /// Decodes a piece and passes its content to `each`. Fails if the encoding is invalid.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        while let Some(&byte) = bytes.first() {
            if self.state == State::Data {
                let part = bytes.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                each(&bytes[..part]);
                self.remaining -= part as u64;
                bytes = &bytes[part..];
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            bytes = &bytes[1..];
            self.state = match (self.state, byte) {
                (State::Start | State::Size, _) if byte.is_ascii_hexdigit() => {
                    let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                    self.remaining = self.remaining.checked_mul(16).ok_or(BAD_CHUNK)? + digit;
                    State::Size
                }
                (State::Size, b';' | b' ' | b'\t' | b'\r') => State::SizeEnd,
                (State::Size | State::SizeEnd, b'\n') if self.remaining == 0 => State::End,
                (State::Size | State::SizeEnd, b'\n') => State::Data,
                (State::SizeEnd, _) => State::SizeEnd,
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Start,
                (State::End, _) => return Ok(()),
                _ => return Err(BAD_CHUNK),
            };
        }
        Ok(())
    }

    /// Returns whether the last chunk has arrived.
    pub fn ended(&self) -> bool {
        self.state == State::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\n1;a=b\r\n \r\n00B\r\nwide\r\nworld\r\n0\r\n\r\n";

    fn read(pieces: &[&[u8]]) -> (Result<(), &'static str>, Vec<u8>, bool) {
        let (mut chunked, mut body) = (Chunked::default(), Vec::new());
        let mut result = Ok(());
        for piece in pieces {
            result = result.and(chunked.feed(piece, |part| body.extend_from_slice(part)));
        }
        (result, body, chunked.ended())
    }

    #[test]
    fn every_split_yields_the_whole_body() {
        for first in 0..=BODY.len() {
            for second in first..=BODY.len() {
                let (result, body, ended) =
                    read(&[&BODY[..first], &BODY[first..second], &BODY[second..]]);
                assert_eq!(
                    (result, body.as_slice(), ended),
                    (Ok(()), &b"hello wide\r\nworld"[..], true),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn invalid_chunks_are_rejected() {
        for bad in [
            &b"hello"[..],
            b"\r\n",
            b"5\r\nhelloX",
            b"-1\r\n",
            b"fffffffffffffffff\r\n",
            b"2\r\nab\rX",
        ] {
            assert_eq!(read(&[bad]).0, Err(BAD_CHUNK), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn body_without_last_chunk_has_not_ended() {
        assert!(!read(&[b"5\r\nhello\r\n"]).2);
    }
}
