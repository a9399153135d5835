//! HTML whose every value is escaped: only the text of the program itself goes in as it stands.

use std::fmt::{self, Write as _};

use base::{CallId, WallTime};
use vault::RecordingId;

/// A piece of a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds what [`put`] has made of a form and its values; for that macro alone.
    pub(crate) fn put_escaped(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(what);
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Adds to a piece of a page: a literal with `{}` where values go, each of which is escaped. It
/// stands in text or between double quotes. Values cannot be named in the literal, since it is made
/// by `concat`.
macro_rules! put {
    ($page:expr, $form:literal $(, $value:expr)* $(,)?) => {
        $page.put_escaped(format_args!(concat!($form) $(, $crate::console::html::Shown(&$value))*))
    };
}
pub(crate) use put;

/// A value as it stands in a page.
pub(crate) struct Shown<'a, T: Show + ?Sized>(pub(crate) &'a T);

impl<T: Show + ?Sized> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}

/// What may stand in a page.
pub(crate) trait Show {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Show for str {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // What turns the direction of text round, and what no page may have.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                // Lines of a message end with both; one is enough.
                '\r' => {}
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl Show for String {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().show(f)
    }
}

impl<T: Show + ?Sized> Show for &T {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).show(f)
    }
}

/// A piece has been escaped when it was made.
impl Show for Html {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Show for $type {
            fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )* };
}

plain!(u8, u32, u64, usize, CallId, RecordingId, WallTime);

/// A number with one decimal.
pub(crate) struct Tenths(pub(crate) f64);

impl Show for Tenths {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_text_wherever_it_stands() {
        let mut page = Html::default();
        let hostile = "\"><script>alert('x')</script>&amp;\u{202e}\u{0}";
        put!(page, "<a title=\"{}\">{}</a>", hostile, hostile.to_owned());
        let text = page.into_string();
        let escaped =
            "&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;amp;\u{fffd}\u{fffd}";
        assert_eq!(text, format!("<a title=\"{escaped}\">{escaped}</a>"));
    }

    #[test]
    fn a_piece_goes_in_as_it_is_and_numbers_are_numbers() {
        let (mut inner, mut page) = (Html::default(), Html::default());
        put!(inner, "<b>{}</b>", "<");
        put!(page, "<p>{} {} {}</p>", inner, 7_u32, Tenths(1.25));
        assert_eq!(page.into_string(), "<p><b>&lt;</b> 7 1.2</p>");
    }
}
