//! A parser of event streams (WHATWG HTML, section 9.2.6).

/// An event as an `EventSource` would dispatch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The last event id after this event.
    pub id: String,
    /// The event name.
    pub kind: String,
    /// The data, with its lines joined by LF.
    pub data: String,
}

/// An incremental parser: accepts bytes in pieces of any size and dispatches complete events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    last_id: String,
    kind: String,
    data: Option<String>,
    /// The last `retry:` in ms.
    pub retry_ms: Option<u64>,
}

impl Parser {
    /// Parses bytes, and calls `dispatch` with every event that they complete.
    pub fn push(&mut self, bytes: &[u8], mut dispatch: impl FnMut(Parsed)) {
        for &byte in bytes {
            let lf_of_crlf = std::mem::take(&mut self.after_cr) && byte == b'\n';
            match byte {
                _ if lf_of_crlf => {}
                b'\r' | b'\n' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8_lossy(&line);
                    self.line(line.strip_prefix('\u{feff}').unwrap_or(&line), &mut dispatch);
                }
                _ => self.line.push(byte),
            }
        }
    }

    fn line(&mut self, line: &str, dispatch: &mut impl FnMut(Parsed)) {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            if let Some(data) = self.data.take() {
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                dispatch(Parsed { id: self.last_id.clone(), kind, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.last_id = value.to_owned(),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<Parsed> {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        chunks.iter().for_each(|c| parser.push(c, |e| out.push(e)));
        out
    }

    #[test]
    fn every_split_yields_the_same_events() {
        let stream = ": hi\r\nretry: 5\rid: 1-0\nevent: a\r\ndata: x\r\ndata: \u{e4}\r\n\r\n\
             data\n\nevent: lost\n\n"
            .as_bytes();
        let whole = all(&[stream]);
        let event = |kind: &str, data: &str| Parsed {
            id: "1-0".into(),
            kind: kind.into(),
            data: data.into(),
        };
        assert_eq!(whole, [event("a", "x\n\u{e4}"), event("message", "")]);
        for cut in 0..=stream.len() {
            assert_eq!(all(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn encoded_frames_parse_to_their_parts() {
        let frame = crate::core::frame::encode(
            Some(1),
            crate::core::id::EventId::parse("7-7"),
            "t",
            "a\n\nb\rc\r\n",
        );
        assert_eq!(
            all(&[&frame]),
            [Parsed { id: "7-7".into(), kind: "t".into(), data: "a\n\nb\nc\n".into() }]
        );
    }
}
