//! Answers from a small text: the sentences that share the most telling words with the question.
//! No language model and no guess: where too few of the question's words occur, no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent::provider::{ProviderError, ProviderEvent, ProviderSink, Reasoner, ThoughtId};
use base::{CallId, Personal, limit};

/// The reasoner that answers from knowledge, at once and on the caller's thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedReasoner(());

impl Reasoner for EmbeddedReasoner {
    /// # Errors
    /// `Unsupported` for a question over `agent.text_bytes` or knowledge over
    /// `agent.knowledge_bytes`.
    fn think(
        &self,
        call: CallId,
        thought: ThoughtId,
        question: &Personal<String>,
        knowledge: &str,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<(), ProviderError> {
        if question.expose().len() > limit::AGENT_TEXT_BYTES.get()
            || knowledge.len() > limit::AGENT_KNOWLEDGE_BYTES.get()
        {
            return Err(ProviderError::Unsupported);
        }
        let answer = answer(question.expose(), knowledge);
        sink.deliver(call, ProviderEvent::Thought { thought, answer });
        Ok(())
    }
}

/// The share of the question's weight that a sentence must hold.
const ENOUGH: f64 = 0.34;
/// The share of the best sentence's score that its neighbours need to be said too.
const NEARLY_AS_GOOD: f64 = 0.6;
/// Saturation by repetition, and by length: the usual constants of BM25.
const K1: f64 = 1.2;
const B: f64 = 0.5;

/// Words that say nothing about the subject.
const EMPTY: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "at", "be", "by", "can", "could", "did", "do",
    "does", "for", "from", "have", "how", "i", "if", "in", "is", "it", "know", "like", "me", "my",
    "of", "on", "or", "our", "please", "s", "tell", "that", "the", "there", "they", "this", "to",
    "us", "want", "was", "we", "what", "when", "where", "which", "who", "will", "with", "would",
    "you", "your",
];

struct Sentence<'a> {
    text: &'a str,
    paragraph: usize,
    stems: Vec<String>,
}

/// The sentences of `knowledge` that answer `question`.
fn answer(question: &str, knowledge: &str) -> Option<String> {
    let asked: BTreeSet<String> = stems(question).collect();
    let sentences = sentences(knowledge);
    let weights: BTreeMap<&String, f64> =
        asked.iter().map(|stem| (stem, rarity(stem, &sentences))).collect();
    let whole: f64 = weights.values().sum();
    let words: usize = sentences.iter().map(|sentence| sentence.stems.len()).sum();
    let usual = words as f64 / sentences.len().max(1) as f64;
    let scores: Vec<f64> = sentences.iter().map(|it| score(it, &weights, usual)).collect();
    let (best, top) = scores.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let held: f64 = weights
        .iter()
        .filter(|(stem, _)| sentences[best].stems.contains(stem))
        .map(|(_, weight)| weight)
        .sum();
    if top <= 0.0 || held < ENOUGH * whole {
        return None;
    }
    let chosen = sentences.iter().zip(&scores).filter(|(sentence, score)| {
        sentence.paragraph == sentences[best].paragraph && **score >= NEARLY_AS_GOOD * top
    });
    Some(chosen.map(|(sentence, _)| sentence.text).collect::<Vec<_>>().join(" "))
}

/// How telling a word is: the fewer sentences hold it, the more.
fn rarity(stem: &String, sentences: &[Sentence<'_>]) -> f64 {
    let holding = sentences.iter().filter(|sentence| sentence.stems.contains(stem)).count() as f64;
    let all = sentences.len() as f64;
    (1.0 + (all - holding + 0.5) / (holding + 0.5)).ln()
}

fn score(sentence: &Sentence<'_>, weights: &BTreeMap<&String, f64>, usual: f64) -> f64 {
    let length = sentence.stems.len() as f64 / usual.max(1.0);
    let of = |(stem, weight): (&&String, &f64)| {
        let times = sentence.stems.iter().filter(|it| it == stem).count() as f64;
        weight * times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length))
    };
    weights.iter().map(of).sum()
}

fn sentences(knowledge: &str) -> Vec<Sentence<'_>> {
    let mut found = Vec::new();
    let paragraphs = knowledge.split("\n\n").flat_map(|it| it.split("\r\n\r\n"));
    for (paragraph, text) in paragraphs.enumerate() {
        let mut start = 0;
        for (at, mark) in text.match_indices(['.', '!', '?']) {
            let end = at + mark.len();
            if text[end..].chars().next().is_none_or(char::is_whitespace) {
                push(&mut found, &text[start..end], paragraph);
                start = end;
            }
        }
        push(&mut found, &text[start..], paragraph);
    }
    found
}

fn push<'a>(found: &mut Vec<Sentence<'a>>, text: &'a str, paragraph: usize) {
    let text = text.trim();
    if !text.is_empty() {
        found.push(Sentence { text, paragraph, stems: stems(text).collect() });
    }
}

fn stems(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|it: char| !it.is_alphanumeric() && it != '\'');
    let words = words.map(|word| word.trim_matches('\'').to_lowercase());
    words.filter(|word| !word.is_empty() && !EMPTY.contains(&word.as_str())).map(|word| stem(&word))
}

/// Cuts the commonest English endings off.
fn stem(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    for (ending, instead) in
        [("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", "")]
    {
        if let Some(rest) = word.strip_suffix(ending)
            && rest.chars().count() >= 3
            && !(ending == "s" && rest.ends_with('s'))
        {
            // `parking` and `park`, but `stopping` and `stop` too.
            let mut letters = rest.chars().rev();
            let is_doubled =
                letters.next() == letters.next() && !rest.ends_with(['e', 'l', 'o', 's']);
            let cut = if is_doubled && instead.is_empty() { &rest[..rest.len() - 1] } else { rest };
            let whole = format!("{cut}{instead}");
            return whole.strip_suffix('e').map_or_else(|| whole.clone(), str::to_owned);
        }
    }
    word.strip_suffix('e').filter(|rest| rest.len() >= 3).unwrap_or(word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRandom;
    use std::sync::Mutex;

    const TEXT: &str = "We are open from Monday to Friday, from nine to five. On Saturday we are \
                        open from ten to two. On Sunday we are closed.\n\nYou find us at number \
                        twelve, Harbour Street. Parking is behind the building.\n\nDr. Jones \
                        speaks French and German.";

    #[test]
    fn a_question_meets_the_sentence_with_its_rare_words() {
        let cases = [
            ("are you open on saturdays", "On Saturday we are open from ten to two."),
            ("are you closed on sunday", "On Sunday we are closed."),
            ("where can I park", "Parking is behind the building."),
            (
                "what is the number of your house in harbour street please",
                "You find us at number twelve, Harbour Street.",
            ),
            ("does anybody speak german", "Jones speaks French and German."),
        ];
        for (question, expected) in cases {
            assert_eq!(answer(question, TEXT).as_deref(), Some(expected), "{question}");
        }
    }

    #[test]
    fn neighbours_that_fit_nearly_as_well_are_said_too() {
        let answer = answer("when are you open", TEXT).unwrap();
        assert!(answer.contains("nine to five") && answer.contains("ten to two"));
        assert!(!answer.contains("Harbour"));
    }

    #[test]
    fn what_the_text_does_not_hold_is_not_answered() {
        for question in
            ["do you sell bicycles", "", "you are we", "what does open heart surgery cost"]
        {
            assert_eq!(answer(question, TEXT), None, "{question}");
        }
        assert_eq!(answer("are you open", ""), None);
    }

    #[test]
    fn endings_do_not_matter() {
        for (a, b) in [
            ("opening", "open"),
            ("parking", "park"),
            ("stopping", "stop"),
            ("companies", "company"),
            ("closes", "closed"),
            ("hours", "hour"),
            ("calls", "calling"),
        ] {
            assert_eq!(stem(a), stem(b));
        }
        assert_ne!(stem("monday"), stem("sunday"));
    }

    #[derive(Default)]
    struct Kept(Mutex<Vec<ProviderEvent>>);

    impl ProviderSink for Kept {
        fn deliver(&self, _: CallId, event: ProviderEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    #[test]
    fn a_thought_is_answered_once_and_a_text_too_long_is_refused() {
        let (kept, call) = (Arc::new(Kept::default()), CallId::random(&mut SeededRandom::new(1)));
        let question = Personal::new("are you closed on sunday".to_owned());
        let think = |text: &str| {
            EmbeddedReasoner::default().think(call, ThoughtId(3), &question, text, kept.clone())
        };
        assert_eq!(think(TEXT), Ok(()));
        let answer = Some("On Sunday we are closed.".to_owned());
        assert_eq!(
            *kept.0.lock().unwrap(),
            [ProviderEvent::Thought { thought: ThoughtId(3), answer }]
        );
        let long = "a ".repeat(limit::AGENT_KNOWLEDGE_BYTES.get());
        assert_eq!(think(&long), Err(ProviderError::Unsupported));
    }
}
