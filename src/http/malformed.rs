//! Why a request is malformed: a closed set, because it is also the label of a metric.

use crate::metrics::Metrics;

/// What makes an HTTP/1.1 request malformed (RFC 9112).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The request line has the wrong form.
    RequestLine,
    /// The request target is invalid, or has the wrong form for its method.
    Target,
    /// The HTTP version is neither 1.0 nor 1.1.
    Version,
    /// A header field has the wrong form, or a line does not end with CRLF.
    Header,
    /// `Host` is missing, repeated or invalid.
    Host,
    /// `Content-Length` is invalid, repeated or combined with `Transfer-Encoding`.
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    Coding,
    /// `Expect` is not `100-continue`.
    Expectation,
    /// The method is CONNECT, but the gateway is not a proxy.
    Connect,
    /// The head has too many bytes.
    HeadTooLong,
    /// The head has too many header fields.
    TooManyHeaders,
    /// The chunked encoding of the body is invalid.
    Chunk,
}

impl Malformed {
    /// Every value.
    pub const ALL: [Self; 12] = [
        Self::RequestLine,
        Self::Target,
        Self::Version,
        Self::Header,
        Self::Host,
        Self::Length,
        Self::Coding,
        Self::Expectation,
        Self::Connect,
        Self::HeadTooLong,
        Self::TooManyHeaders,
        Self::Chunk,
    ];

    /// Label in `sse_requests_malformed_total`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::Target => "target",
            Self::Version => "version",
            Self::Header => "header",
            Self::Host => "host",
            Self::Length => "content-length",
            Self::Coding => "transfer-encoding",
            Self::Expectation => "expect",
            Self::Connect => "connect",
            Self::HeadTooLong => "head-too-long",
            Self::TooManyHeaders => "too-many-headers",
            Self::Chunk => "chunk",
        }
    }

    /// Adds every value to the metric, so that it exists before the first malformed request.
    pub fn init_metric(metrics: &Metrics) {
        for reason in Self::ALL {
            metrics.malformed.with_label_values(&[reason.name()]);
        }
    }
}
