//! Where a text may be cut for the synthesiser: a sentence is spoken as a whole, and the first
//! piece of sound comes sooner the shorter the first sentence is.

use std::collections::VecDeque;

/// The sentences of `text` that have something to say.
pub(crate) fn split(text: &str) -> VecDeque<String> {
    let mut sentences = VecDeque::new();
    let mut start = 0;
    let mut words = text.char_indices().peekable();
    while let Some((at, letter)) = words.next() {
        let is_end = words.peek().is_none_or(|(_, next)| next.is_whitespace());
        if is_end && ends_sentence(&text[start..at], letter) {
            push(&mut sentences, &text[start..at + letter.len_utf8()]);
            start = at + letter.len_utf8();
        }
    }
    push(&mut sentences, &text[start..]);
    sentences
}

/// Whether `letter` ends the sentence `before`; a point behind a short word may be `Dr.` or `p.m.`.
fn ends_sentence(before: &str, letter: char) -> bool {
    match letter {
        '!' | '?' | ';' => true,
        '.' => {
            let word = before.rsplit(char::is_whitespace).next().unwrap_or(before);
            word.chars().count() > 3 && !word.contains('.')
        }
        _ => false,
    }
}

fn push(sentences: &mut VecDeque<String>, sentence: &str) {
    let sentence = sentence.trim();
    if sentence.chars().any(char::is_alphanumeric) {
        sentences.push_back(sentence.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_behind_its_sentences() {
        let text = "Welcome to Acme.  Press one! Ready? 3.5 or so; at 5 p.m. sharp. ...";
        let sentences =
            ["Welcome to Acme.", "Press one!", "Ready?", "3.5 or so;", "at 5 p.m. sharp."];
        assert_eq!(split(text), sentences);
    }

    #[test]
    fn a_title_does_not_end_a_sentence() {
        assert_eq!(split("Ask Dr. Who. Or not"), ["Ask Dr. Who. Or not"]);
    }

    #[test]
    fn nothing_to_say_is_no_sentence() {
        assert!(split(" .?! \n").is_empty());
        assert!(split("").is_empty());
    }
}
