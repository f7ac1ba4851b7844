//! Property tests of the pure core against models.

mod catch_up;
mod gateway_model;
mod redis_model;
mod text;
