//! What the admin page and the demo page share: the look, and helpers for their elements.

/// Colours, fonts and components.
pub const STYLE: &str = include_str!("page/base.css");
/// The module `dom.js`.
pub const DOM: &str = include_str!("page/dom.js");
