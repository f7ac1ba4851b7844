//! Where a request ends and the next begins (RFC 9112 section 6): pure. It only tells how many bytes may go on; what is wrong with a
//! request, and what it means, is the business of whoever gets them.

/// No head is longer: the end of one that is, is not seen.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// A chunk's size with its extensions, or a trailer.
const MAX_LINE_BYTES: usize = 4 << 10;
const MAX_HEADERS: usize = 128;
const STREAM: &[u8] = b"GET /events";

/// Lets one request through at a time: the next when the one before is answered.
#[derive(Debug)]
pub struct Framing {
    at: At,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk and its line end are still to come.
    Chunk(u64),
    Trailer,
    /// A request is through.
    End,
    /// This is not HTTP/1.1.
    Free,
}

impl Framing {
    /// Of a connection that begins.
    pub fn new() -> Self {
        Self { at: At::Head, answered: false }
    }

    /// Of one that shall not be bounded.
    pub fn free() -> Self {
        Self { at: At::Free, answered: false }
    }

    /// The server has begun to answer.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// Whether the next request has to wait.
    pub fn waits(&self) -> bool {
        matches!(self.at, At::End) && !self.answered
    }

    /// Whether a request was answered, and nothing of the next has gone on.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::End) && self.answered
    }

    /// Whether no request is known to be under way.
    pub fn is_idle(&self) -> bool {
        self.is_between() || matches!(self.at, At::Head | At::Free)
    }

    /// How many of these bytes, which are the next, may go on. 0: more are needed to know, or the answer.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            let rest = &bytes[passed..];
            let (count, next) = match self.at {
                At::Free => (rest.len(), Some(At::Free)),
                At::Head => head(rest),
                At::Body(left) => counted(left, rest, At::Body, At::End),
                At::Chunk(left) => counted(left, rest, At::Chunk, At::ChunkSize),
                At::ChunkSize => line(rest, |line| match size(line) {
                    None => At::End,
                    Some(0) => At::Trailer,
                    Some(bytes) => At::Chunk(bytes.saturating_add(2)),
                }),
                At::Trailer => line(rest, |line| if line.trim_ascii().is_empty() { At::End } else { At::Trailer }),
                // One at a time, also where an answer came before the end of its request.
                At::End if self.answered && passed == 0 => {
                    self.answered = false;
                    (0, Some(At::Head))
                }
                At::End => (0, None),
            };
            passed += count;
            let Some(next) = next else { return passed };
            self.at = next;
            if passed == bytes.len() {
                return passed;
            }
        }
    }
}

/// Whether these first bytes are of a request for a stream; None: it cannot be known yet.
pub fn starts_stream(seen: &[u8]) -> Option<bool> {
    match seen.strip_prefix(STREAM) {
        Some(rest) => rest.first().map(|next| matches!(next, b' ' | b'?')),
        None if STREAM.starts_with(seen) => None,
        None => Some(false),
    }
}

/// What this part takes of the bytes, and what comes next; None: more is needed.
type Step = (usize, Option<At>);

fn head(bytes: &[u8]) -> Step {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD_BYTES => (len, Some(body(head.headers))),
        Ok(_) => (0, None),
        // It will be refused.
        Err(_) => (bytes.len(), Some(At::End)),
    }
}

fn body(headers: &[httparse::Header<'_>]) -> At {
    let has = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if has("transfer-encoding").is_some() {
        return At::ChunkSize;
    }
    let length = has("content-length").and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    match length {
        None | Some(0) => At::End,
        Some(bytes) => At::Body(bytes),
    }
}

fn counted(left: u64, bytes: &[u8], more: impl Fn(u64) -> At, end: At) -> Step {
    let taken = (bytes.len() as u64).min(left);
    let next = if taken == left { end } else { more(left - taken) };
    (taken as usize, if taken == 0 { None } else { Some(next) })
}

fn line(bytes: &[u8], next: impl Fn(&[u8]) -> At) -> Step {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (end + 1, Some(next(&bytes[..end]))),
        None if bytes.len() < MAX_LINE_BYTES => (0, None),
        None => (bytes.len(), Some(At::End)),
    }
}

/// RFC 9112 section 7.1; None: no size.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    const SIZED: &str = "POST /publish HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\n\r\n\r\nx";
    const CHUNKED: &str = "POST /publish HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n\r\n\r\nx\r\n2\r\nab\r\n0\r\nt: r\r\n\r\n";
    /// A body of nothing, and line ends as some hand-made clients have them.
    const BARE: &str = "POST /publish HTTP/1.1\nContent-Length: 0\n\n";

    /// What goes on of these bytes when they come `step` at a time: once, and after each answer.
    fn passed(text: &str, step: usize) -> Vec<String> {
        let (mut framing, mut held, mut rest) = (Framing::new(), Vec::new(), text.as_bytes());
        let (mut all, mut now) = (Vec::new(), Vec::new());
        loop {
            let count = framing.pass(&held);
            now.extend(held.drain(..count));
            if count > 0 {
                continue;
            }
            if framing.waits() {
                all.push(String::from_utf8(std::mem::take(&mut now)).unwrap());
                framing.answered();
            } else if rest.is_empty() {
                assert_eq!((now.len(), held.len()), (0, 0), "something is left");
                return all;
            } else {
                let (next, later) = rest.split_at(step.min(rest.len()));
                held.extend(next);
                rest = later;
            }
        }
    }

    #[test]
    fn one_request_goes_on_at_a_time_however_they_come() {
        let requests = [GET, SIZED, CHUNKED, BARE, GET, CHUNKED, SIZED];
        let text = requests.concat();
        for step in 1..=text.len() {
            assert_eq!(passed(&text, step), requests, "{step} at a time");
        }
    }

    #[test]
    fn a_body_goes_on_as_it_comes() {
        let mut framing = Framing::new();
        let (start, end) = SIZED.split_at(SIZED.len() - 3);
        assert_eq!(framing.pass(start.as_bytes()), start.len());
        // An answer may come early; the body is still its request's.
        framing.answered();
        assert_eq!(framing.pass(format!("{end}{GET}{GET}").as_bytes()), end.len());
        assert_eq!(framing.pass(format!("{GET}{GET}").as_bytes()), GET.len());
        assert!(framing.waits());
    }

    #[test]
    fn what_is_no_request_goes_on_to_be_refused_and_nothing_behind_it() {
        let size = "POST /publish HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n";
        for bad in ["no request\r\n\r\n", size] {
            let mut framing = Framing::new();
            assert_eq!(framing.pass(bad.as_bytes()), bad.len());
            assert!(framing.waits());
            assert_eq!(framing.pass(GET.as_bytes()), 0);
        }
        assert_eq!(Framing::free().pass(size.as_bytes()), size.len());
    }
}
