//! What of a stream is read from one Redis server (ARCHITECTURE.md#stream-rules).

/// The number of a Redis server of this instance; 0 if there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerIndex(pub u16);
