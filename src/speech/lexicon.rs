//! How words are pronounced, in the acoustic model's phones: from the model's dictionary, or
//! guessed from the letters. The decoder's own dictionary holds only the words of grammars, which
//! saves it 20 MB and a second of loading.

use std::collections::BTreeSet;

use crate::voice;

/// A pronouncing dictionary, as text in memory.
pub(crate) struct Lexicon {
    /// Lines of a word (variants have `(2)` and so on behind it), a space and phones.
    text: String,
    /// Where each line starts, in the order of the words.
    lines: Vec<usize>,
}

impl Lexicon {
    pub(crate) fn new(text: String) -> Self {
        let mut start = 0;
        let mut lines = Vec::new();
        for line in text.split_inclusive('\n') {
            lines.push(start);
            start += line.len();
        }
        // Variants stay in their order, the likeliest first.
        lines.sort_by_key(|&start| word_at(&text, start));
        Self { text, lines }
    }

    /// Every pronunciation of `word`, which is in lower case, the likeliest first.
    pub(crate) fn pronunciations(&self, word: &str) -> Vec<String> {
        let first = self.lines.partition_point(|&start| word_at(&self.text, start) < word);
        let lines = self.lines[first..].iter();
        let known: Vec<String> = lines
            .take_while(|&&start| word_at(&self.text, start) == word)
            .filter_map(|&start| self.text[start..].lines().next()?.split_once(' '))
            .map(|(_, phones)| phones.trim().to_owned())
            .collect();
        if known.is_empty() { guesses(word) } else { known }
    }
}

fn word_at(text: &str, start: usize) -> &str {
    let rest = &text[start..];
    &rest[..rest.find([' ', '(', '\n']).unwrap_or(rest.len())]
}

/// The synthesiser's idea of the word; spelled letter by letter too where it has no vowel, as in
/// `bbc`.
fn guesses(word: &str) -> Vec<String> {
    let letters: String = word.chars().filter(char::is_ascii_lowercase).collect();
    let mut found = BTreeSet::new();
    found.extend(phones(&voice::phones_of(&letters)));
    if !letters.contains(['a', 'e', 'i', 'o', 'u', 'y']) {
        let spelled: Vec<String> =
            letters.chars().flat_map(|letter| voice::phones_of(&letter.to_string())).collect();
        found.extend(phones(&spelled));
    }
    found.into_iter().collect()
}

/// The synthesiser's phones (lower case, some with a stress digit) as the model's.
fn phones(said: &[String]) -> Option<String> {
    let model = said.iter().filter(|phone| *phone != "pau").map(|phone| {
        match phone.trim_end_matches(|it: char| it.is_ascii_digit()) {
            "ax" => "AH".to_owned(),
            phone => phone.to_ascii_uppercase(),
        }
    });
    let phones = model.collect::<Vec<_>>().join(" ");
    (!phones.is_empty()).then_some(phones)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_all_its_pronunciations_and_no_neighbours() {
        let text = "a AH\na(2) EY\nabc EY B IY S IY\nab AE B\n";
        let lexicon = Lexicon::new(text.to_owned());
        assert_eq!(lexicon.pronunciations("a"), ["AH", "EY"]);
        assert_eq!(lexicon.pronunciations("ab"), ["AE B"]);
        assert_eq!(lexicon.pronunciations("abc"), ["EY B IY S IY"]);
    }

    #[test]
    fn an_unknown_word_is_pronounced_from_its_letters() {
        let lexicon = Lexicon::new(String::new());
        assert_eq!(lexicon.pronunciations("callgate"), ["K AE L G EY T"]);
        assert!(lexicon.pronunciations("bbc").contains(&"B IY B IY S IY".to_owned()));
        assert!(lexicon.pronunciations("'").is_empty());
    }
}
