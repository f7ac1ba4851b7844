//! Which clients are admitted. Knows nothing of HTTP.

pub mod readiness;
