//! W3C trace context: the `traceparent` that a publisher passes with an event.
//! `library/options.lua` has the same rules.

use std::fmt;

/// Length of a `traceparent` of version 00, in bytes.
const BYTES: usize = 55;
/// Maximum length of a `traceparent` of a later version, in bytes.
const MAX_BYTES: usize = 256;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// The position in a trace: the trace, and the span that is the parent of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Id of the trace; not zero.
    pub trace_id: u128,
    /// Id of the parent; not zero.
    pub span_id: u64,
    /// Whether the trace is recorded. An event of another trace is published without the
    /// `traceparent`, which nothing would use.
    pub is_sampled: bool,
}

/// A text that is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedTraceParent;

impl TraceParent {
    /// Parses a `traceparent`. `Ok(None)`: an id is zero, which OpenTelemetry writes if it is not
    /// set up, so there is no trace.
    ///
    /// ```
    /// use sse_gateway::core::trace_context::TraceParent;
    ///
    /// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let parent = TraceParent::parse(text).expect("well-formed").expect("a trace");
    /// assert!(parent.is_sampled);
    /// assert_eq!(parent.to_string(), text);
    /// assert!(TraceParent::parse("4bf92f3577b34da6a3ce929d0e0e4736").is_err());
    /// ```
    ///
    /// # Errors
    /// It has another form. A later version than 00 may have more fields, which are ignored.
    pub fn parse(text: &str) -> Result<Option<Self>, MalformedTraceParent> {
        let bytes = text.as_bytes();
        if !(BYTES..=MAX_BYTES).contains(&bytes.len()) {
            return Err(MalformedTraceParent);
        }
        let hyphens = [bytes[2], bytes[35], bytes[52]];
        let [version, trace_id, span_id, flags] =
            [0..2, 3..35, 36..52, 53..55].map(|range| hex(&bytes[range]));
        let (Some(version), Some(trace_id), Some(span_id), Some(flags)) =
            (version, trace_id, span_id, flags)
        else {
            return Err(MalformedTraceParent);
        };
        let is_end = match version {
            0 => bytes.len() == BYTES,
            255 => false,
            _ => bytes.get(BYTES).is_none_or(|b| *b == b'-'),
        };
        if hyphens != *b"---" || !is_end {
            return Err(MalformedTraceParent);
        }
        let is_sampled = flags as u8 & SAMPLED == SAMPLED;
        let parent = Self { trace_id, span_id: span_id as u64, is_sampled };
        Ok((trace_id != 0 && span_id != 0).then_some(parent))
    }

    /// Parses a `traceparent` that is worth passing on: `None` if it is malformed, names no trace,
    /// or names one that is not recorded.
    pub fn sampled(text: &str) -> Option<Self> {
        Self::parse(text).ok().flatten().filter(|parent| parent.is_sampled)
    }

    /// The id of the trace as OpenTelemetry writes it.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// The number in lower-case hexadecimal digits; up to 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    #[test]
    fn traceparent_is_parsed_and_written() {
        let parent = TraceParent::parse(&format!("00-{TRACE}-01")).unwrap().unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        let is_sampled = |text: &str| TraceParent::parse(text).unwrap().unwrap().is_sampled;
        assert!(is_sampled(&format!("00-{TRACE}-03")));
        assert!(!is_sampled(&format!("00-{TRACE}-02")));
        assert_eq!(TraceParent::sampled(&format!("00-{TRACE}-00")), None);
    }

    #[test]
    fn later_versions_may_have_more_fields() {
        for text in [format!("01-{TRACE}-01"), format!("fe-{TRACE}-01-what-else")] {
            let parent = TraceParent::parse(&text).unwrap().unwrap();
            assert_eq!(parent.to_string(), format!("00-{TRACE}-01"), "{text}");
        }
    }

    #[test]
    fn zero_ids_are_no_trace() {
        for (trace, span) in [("0".repeat(32), "1".repeat(16)), ("1".repeat(32), "0".repeat(16))] {
            assert_eq!(TraceParent::parse(&format!("00-{trace}-{span}-01")), Ok(None));
        }
    }

    #[test]
    fn other_forms_are_malformed() {
        let long = format!("01-{TRACE}-01-{}", "x".repeat(201));
        for text in [
            "",
            "00",
            &format!("ff-{TRACE}-01"),
            &format!("00-{TRACE}-1"),
            &format!("00-{TRACE}-01-x"),
            &format!("01-{TRACE}-01x"),
            &format!("00-{}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}_01"),
            &format!("00 {TRACE}-01"),
            &format!(" 00-{TRACE}-01"),
            &format!("00-{}-01", TRACE.replace('f', "g")),
            &format!("00-{}-01", TRACE.replace('f', "ä")),
            &long,
        ] {
            assert_eq!(TraceParent::parse(text), Err(MalformedTraceParent), "{text}");
        }
    }
}
