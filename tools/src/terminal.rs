//! What a terminal shows of texts that come from files and arguments.

use std::borrow::Cow;

/// Whether a terminal would act on a character instead of showing it: control characters, with which names could move the
/// cursor or change the window's title, and those that reorder the text around them.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, with what a terminal would act on written as an escape: `\u{1b}[31m`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, acts)
}

/// As [`line()`], of a text with lines of its own.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && acts(c))
}

fn escaped(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_nothing_else() {
        assert_eq!(line("\u{1b}[31mred\n\u{9b}2J\u{202e}"), "\\u{1b}[31mred\\n\\u{9b}2J\\u{202e}");
        assert_eq!(lines("a\tb\nc"), "a\\tb\nc");
        assert!(matches!(line("Größe 3×3, 日本"), Cow::Borrowed(_)));
    }
}
