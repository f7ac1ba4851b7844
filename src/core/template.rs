//! Texts with fields of an entry in braces: `user:{userId}:events`.

use std::fmt;

/// A text in which `{name}` stands for the value of the field `name`.
///
/// ```
/// use sse_gateway::core::template::Template;
///
/// let template = Template::parse("user:{userId}:events")?;
/// let value = |name: &str| (name == "userId").then_some("42");
/// assert_eq!(template.render(value), Ok("user:42:events".to_owned()));
/// assert_eq!(template.render(|_| None::<&str>), Err("userId"));
/// # Ok::<(), sse_gateway::core::template::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

/// Why a text is not a template: the end of a sentence that begins with the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is empty.
    #[error("must not be empty; use a text such as \"user:{{userId}}:events\"")]
    Empty,
    /// A brace without its counterpart, or nothing between two.
    #[error(
        "must have a field name between each pair of braces, such as \"user:{{userId}}:events\""
    )]
    Braces,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(TemplateError::Braces)?;
            if name.is_empty() || name.contains('{') || before.contains('}') {
                return Err(TemplateError::Braces);
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.push(Piece::Field(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Braces);
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        if pieces.is_empty() {
            return Err(TemplateError::Empty);
        }
        Ok(Self(pieces))
    }

    /// The text with the values of its fields.
    ///
    /// # Errors
    /// The name of the first field without a value.
    pub fn render<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, &str> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Field(name) => text.push_str(value(name).ok_or(name.as_str())?),
            }
        }
        Ok(text)
    }

    /// The text, if it has no field.
    pub fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Field(name) => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced_once() {
        let value = |name: &str| (name == "a").then_some("{a}");
        let render = |text: &str| Template::parse(text).unwrap().render(value).unwrap();
        assert_eq!(render("x"), "x");
        assert_eq!(render("{a}"), "{a}");
        assert_eq!(render("x{a}y{a}"), "x{a}y{a}");
        assert_eq!(Template::parse("x{b}").unwrap().render(value), Err("b"));
        assert_eq!(Template::parse("x{b}y").unwrap().to_string(), "x{b}y");
        assert_eq!(Template::parse("x").unwrap().fixed(), Some("x"));
        assert_eq!(Template::parse("{a}").unwrap().fixed(), None);
    }

    #[test]
    fn unpaired_braces_are_errors() {
        for bad in ["{", "}", "{}", "a}b{c}", "{a", "{a}}", "{{a}}", "x{a{b}}"] {
            assert_eq!(Template::parse(bad), Err(TemplateError::Braces), "{bad}");
        }
        assert_eq!(Template::parse(""), Err(TemplateError::Empty));
    }
}
