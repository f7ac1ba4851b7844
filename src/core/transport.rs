//! How a client receives events.

/// How a client receives events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `GET /events`: one response without end.
    Stream,
    /// `GET /events/poll`: one response for each request.
    Poll,
}

impl Transport {
    /// All transports.
    pub const ALL: [Self; 2] = [Self::Stream, Self::Poll];

    /// The name in metrics and in `GET /connections`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Poll => "poll",
        }
    }
}
