//! Writes the fields of log lines as text, as tracing-subscriber does, but plain strings without
//! its formatter, which handles styles even if there are none: that took 6 % of the instructions of
//! a connect.

use std::{
    error::Error,
    fmt::{self, Debug},
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput},
    fmt::{
        FormatFields,
        format::{DefaultVisitor, Writer},
    },
};

/// Formats fields without colors.
pub struct PlainFields;

impl<'writer> FormatFields<'writer> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn write_plain(&mut self, name: &str, value: &str) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        for text in [name, "=\"", value, "\""] {
            self.writer.write_str(text)?;
        }
        Ok(())
    }

    /// Leaves a field to the library.
    fn leave(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_ok() {
            let mut visitor = DefaultVisitor::new(self.writer.by_ref(), self.is_empty);
            record(&mut visitor);
            self.result = visitor.finish();
            self.is_empty = false;
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |byte| matches!(byte, b' '..=b'~' if byte != b'"' && byte != b'\\');
        let has_own_form = field.name() == "message" || field.name().starts_with("r#");
        if has_own_form || !value.bytes().all(is_plain) {
            return self.leave(|library| library.record_str(field, value));
        }
        self.result = self.result.and_then(|()| self.write_plain(field.name(), value));
        self.is_empty = false;
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.leave(|library| library.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.leave(|library| library.record_debug(field, value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing_subscriber::{fmt::format::DefaultFields, layer::SubscriberExt};

    use super::*;

    /// The text of some lines, formatted by `fields`.
    fn logged(fields: impl for<'writer> FormatFields<'writer> + Send + Sync + 'static) -> String {
        #[derive(Clone, Default)]
        struct Text(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Text {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let text = Text::default();
        let writer = text.clone();
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_ansi(false)
            .fmt_fields(fields)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let none: Option<&str> = None;
            let cause = std::io::Error::other(fmt::Error);
            let error: &(dyn Error + 'static) = &std::io::Error::other(cause);
            tracing::info!(a = "plain", b = "a \"quote\" \\ \n ä \u{7f}", none, r#type = 1, "text");
            tracing::warn!(error, display = %"shown \"as\" it is", debug = ?"x\ty", no = false);
            tracing::error!("only {} text", "\u{1b}[31m");
            tracing::error!(escaped = %"\u{1b}[31m", message = "not formatted");
            let span = tracing::info_span!("outer", id = "x", size = 1.5);
            span.in_scope(|| tracing::info!(message = "in a span", user = none));
        });
        let text = text.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(text.clone()).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let plain = logged(PlainFields);
        assert_eq!(plain, logged(DefaultFields::new()));
        assert!(plain.contains("a=\"plain\" b=\"a \\\"quote\\\"") && plain.contains("type=1"));
    }
}
