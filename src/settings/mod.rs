//! The settings: one table ([`table::KEYS`]) names every key with its default, its meaning and its parser; files,
//! environment, `check-config`, the sample file and the README are held against it (DESIGN.md section 5).

pub mod load;
pub mod parse;
pub mod sample;
pub mod table;
mod types;

pub use load::{Fault, Loaded, Source, load};
pub use types::*;
