//! Property tests of the pure core against models.

mod catch_up;
mod redis_model;
mod text;
