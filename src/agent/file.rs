//! `agents/NAME.toml`: what people write, and its compilation to a [`Flow`]. All errors of a
//! file are reported at once, each with its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::diagnostic::suggest;
use base::{Diagnostic, Personal, limit};
use serde::Deserialize;
use toml::Spanned;

use crate::flow::{Action, Announcement, Choice, Flow, Step, StepId};
use crate::provider::{Grammar, Phrase};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    #[serde(default)]
    description: String,
    #[serde(default)]
    voice: String,
    #[serde(default)]
    recording: bool,
    #[serde(default = "yes")]
    transcript: bool,
    #[serde(default = "yes")]
    barge_in: bool,
    start: Spanned<String>,
    #[serde(default)]
    silence: SilenceFile,
    #[serde(default)]
    knowledge: BTreeMap<String, String>,
    step: BTreeMap<String, Spanned<StepFile>>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SilenceFile {
    reprompt_after_ms: u64,
    times: u8,
    end_of_turn_ms: u64,
    goodbye: String,
}

impl Default for SilenceFile {
    fn default() -> Self {
        Self { reprompt_after_ms: 6_000, times: 3, end_of_turn_ms: 400, goodbye: String::new() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    say: Option<Spanned<String>>,
    ask: Option<Spanned<String>>,
    answer_from: Option<Spanned<String>>,
    goodbye: Option<Spanned<String>>,
    transfer: Option<Spanned<String>>,

    next: Option<Spanned<String>>,
    question: Option<Spanned<String>>,
    unknown: Option<Spanned<String>>,
    #[serde(default)]
    choice: Vec<Spanned<ChoiceFile>>,
    misheard: Option<Spanned<String>>,
    tries: Option<Spanned<u8>>,
    give_up: Option<Spanned<String>>,
    announce: Option<Spanned<String>>,
    announce_to: Option<Spanned<String>>,
    accept: Option<Spanned<String>>,
    failed: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceFile {
    key: Option<Spanned<String>>,
    #[serde(default)]
    say: Vec<Spanned<String>>,
    go: Spanned<String>,
}

/// Compiles the text of an agent's file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn compile(file: &str, text: &str) -> Result<Flow, Vec<Diagnostic>> {
    let parsed: AgentFile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let word = text.get(span.clone()).unwrap_or_default();
        vec![Diagnostic::new(file, text, &span, error.message(), None).did_you_mean(word, &KEYS)]
    })?;
    let names: Vec<&str> = parsed.step.keys().map(String::as_str).collect();
    let mut compiler =
        Compiler { file, text, names, knowledge: &parsed.knowledge, errors: Vec::new() };
    let flow = compiler.flow(&parsed);
    let mut errors = compiler.errors;
    errors.sort_by_key(|error| (error.line, error.column));
    if errors.is_empty() { Ok(flow) } else { Err(errors) }
}

const KEYS: [&str; 30] = [
    "description",
    "voice",
    "recording",
    "transcript",
    "barge_in",
    "start",
    "silence",
    "knowledge",
    "step",
    "say",
    "ask",
    "answer_from",
    "goodbye",
    "transfer",
    "announce",
    "announce_to",
    "accept",
    "failed",
    "next",
    "question",
    "unknown",
    "choice",
    "misheard",
    "tries",
    "give_up",
    "key",
    "go",
    "reprompt_after_ms",
    "times",
    "end_of_turn_ms",
];

struct Compiler<'a> {
    file: &'a str,
    text: &'a str,
    /// Names of the steps in the order of their ids.
    names: Vec<&'a str>,
    knowledge: &'a BTreeMap<String, String>,
    errors: Vec<Diagnostic>,
}

impl Compiler<'_> {
    fn flow(&mut self, file: &AgentFile) -> Flow {
        if file.step.len() > limit::AGENT_FLOW_STEPS.get() {
            let most = limit::AGENT_FLOW_STEPS.value;
            self.error(file.start.span(), &format!("more than {most} steps"));
        }
        let steps = file.step.iter().map(|(name, step)| self.step(name, step)).collect();
        let flow = Flow {
            description: file.description.trim().to_owned(),
            voice: file.voice.clone(),
            recording: file.recording,
            transcript: file.transcript,
            barge_in: file.barge_in,
            reprompt_after: Duration::from_millis(file.silence.reprompt_after_ms.max(1_000)),
            silences: file.silence.times.max(1),
            end_of_turn: Duration::from_millis(file.silence.end_of_turn_ms.clamp(100, 3_000)),
            silent_goodbye: file.silence.goodbye.clone(),
            start: self.target(&file.start),
            steps,
        };
        self.refuse_spins(file, &flow);
        flow
    }

    fn step(&mut self, name: &str, step: &Spanned<StepFile>) -> Step {
        let (span, step) = (step.span(), step.get_ref());
        let kinds = [&step.say, &step.ask, &step.answer_from, &step.goodbye, &step.transfer];
        if kinds.iter().filter(|kind| kind.is_some()).count() != 1 {
            self.error(
                span.clone(),
                &format!(
                    "step \"{name}\" must have exactly one of say, ask, answer_from, transfer and \
                     goodbye"
                ),
            );
        }
        self.refuse_strays(name, step);
        let action = if let Some(text) = &step.say {
            Action::Say { text: self.words(text), next: self.next(name, &span, step) }
        } else if let Some(text) = &step.ask {
            self.ask(name, &span, step, text)
        } else if let Some(from) = &step.answer_from {
            self.answer(name, &span, step, from)
        } else if let Some(to) = &step.transfer {
            self.transfer(name, &span, step, to)
        } else {
            let text = step.goodbye.as_ref().map(|text| self.words(text)).unwrap_or_default();
            Action::Goodbye { text }
        };
        Step { name: name.to_owned(), action }
    }

    /// Keys that mean nothing for this kind of step are errors, as unknown keys are.
    fn refuse_strays(&mut self, name: &str, step: &StepFile) {
        let is_ask = step.ask.is_some();
        let is_answer = step.answer_from.is_some();
        let mut stray = |present: Option<Range<usize>>, allowed: bool, key: &str| {
            if let Some(span) = present.filter(|_| !allowed) {
                self.error(span, &format!("`{key}` means nothing in step \"{name}\""));
            }
        };
        let span = |text: &Option<Spanned<String>>| text.as_ref().map(Spanned::span);
        stray(span(&step.next), is_answer || step.say.is_some(), "next");
        stray(span(&step.question), is_answer, "question");
        stray(span(&step.unknown), is_answer, "unknown");
        stray(step.choice.first().map(Spanned::span), is_ask, "choice");
        stray(span(&step.misheard), is_ask, "misheard");
        stray(step.tries.as_ref().map(Spanned::span), is_ask, "tries");
        stray(span(&step.give_up), is_ask, "give_up");
        stray(span(&step.announce), step.transfer.is_some(), "announce");
        stray(span(&step.announce_to), step.transfer.is_some(), "announce_to");
        stray(span(&step.accept), step.announce_to.is_some(), "accept");
        stray(span(&step.failed), step.transfer.is_some(), "failed");
    }

    fn ask(
        &mut self,
        name: &str,
        span: &Range<usize>,
        step: &StepFile,
        text: &Spanned<String>,
    ) -> Action {
        if step.choice.is_empty() {
            self.error(span.clone(), &format!("step \"{name}\" asks but has no `choice`"));
        }
        let choices: Vec<Choice> =
            step.choice.iter().map(|choice| self.choice(choice.get_ref())).collect();
        let mut keys: Vec<char> = choices.iter().filter_map(|choice| choice.key).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            self.error(span.clone(), &format!("key {} stands for two choices", twice[0]));
        }
        let phrases: Vec<Phrase> = choices
            .iter()
            .enumerate()
            .flat_map(|(index, choice)| {
                let meaning = index.to_string();
                choice
                    .phrases
                    .iter()
                    .map(move |words| Phrase { words: words.clone(), meaning: meaning.clone() })
            })
            .collect();
        if phrases.len() > limit::AGENT_GRAMMAR_PHRASES.get() {
            let most = limit::AGENT_GRAMMAR_PHRASES.value;
            self.error(span.clone(), &format!("more than {most} phrases in one question"));
        }
        let Some(give_up) = &step.give_up else {
            let message = format!(
                "step \"{name}\" asks but does not say where to `give_up` when nobody answers"
            );
            self.error(span.clone(), &message);
            return Action::Goodbye { text: String::new() };
        };
        Action::Ask {
            text: self.words(text),
            choices,
            grammar: Arc::new(Grammar { phrases }),
            misheard: step.misheard.as_ref().map(|text| self.words(text)).unwrap_or_default(),
            tries: step.tries.as_ref().map_or(3, |tries| *tries.get_ref()).max(1),
            give_up: self.target(give_up),
        }
    }

    fn choice(&mut self, choice: &ChoiceFile) -> Choice {
        let key = choice.key.as_ref().and_then(|key| self.key(key));
        let phrases = choice.say.iter().map(|phrase| self.phrase(phrase)).collect();
        if choice.key.is_none() && choice.say.is_empty() {
            self.error(choice.go.span(), "a choice needs a `key`, something to `say`, or both");
        }
        Choice { key, phrases, go: self.target(&choice.go) }
    }

    fn key(&mut self, key: &Spanned<String>) -> Option<char> {
        let mut letters = key.get_ref().chars();
        let letter = letters.next().filter(|letter| "0123456789*#".contains(*letter));
        if letter.is_none() || letters.next().is_some() {
            self.error(key.span(), "a key is one of 0-9, * and #");
        }
        letter
    }

    /// Words as the transcriber wants them: lower case, letters and apostrophes.
    fn phrase(&mut self, phrase: &Spanned<String>) -> String {
        let words: Vec<String> = phrase
            .get_ref()
            .to_lowercase()
            .split(|letter: char| letter.is_whitespace() || letter == '-')
            .map(|word| word.trim_matches(|letter: char| ",.!?".contains(letter)).to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        let sayable = |word: &String| {
            word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '\'')
        };
        if words.is_empty() || !words.iter().all(sayable) {
            let message = "a phrase is made of words: letters and apostrophes (write digits out)";
            self.error(phrase.span(), message);
        }
        let joined = words.join(" ");
        if joined.len() > limit::AGENT_PHRASE_BYTES.get() {
            let most = limit::AGENT_PHRASE_BYTES.value;
            self.error(phrase.span(), &format!("the phrase is longer than {most} bytes"));
        }
        joined
    }

    fn answer(
        &mut self,
        name: &str,
        span: &Range<usize>,
        step: &StepFile,
        from: &Spanned<String>,
    ) -> Action {
        let knowledge = self.knowledge.get(from.get_ref());
        if knowledge.is_none() {
            let message = format!("there is no text [knowledge] {}", from.get_ref());
            let known: Vec<&str> = self.knowledge.keys().map(String::as_str).collect();
            self.errors.push(Diagnostic::new(
                self.file,
                self.text,
                &from.span(),
                message,
                suggest(from.get_ref(), &known),
            ));
        }
        Action::Answer {
            question: step.question.as_ref().map(|text| self.words(text)),
            knowledge: Arc::from(knowledge.map_or("", String::as_str)),
            unknown: step.unknown.as_ref().map(|text| self.words(text)).unwrap_or_default(),
            next: self.next(name, span, step),
        }
    }

    fn transfer(
        &mut self,
        name: &str,
        span: &Range<usize>,
        step: &StepFile,
        to: &Spanned<String>,
    ) -> Action {
        let text = step.announce.as_ref().map(|text| self.words(text)).unwrap_or_default();
        let is_bad = |it: char| it.is_control() || it.is_whitespace();
        if to.get_ref().is_empty() || to.get_ref().contains(is_bad) {
            self.error(to.span(), "not a number or SIP URI such as \"+442079460000\"");
        }
        let to_whom = Personal::new(to.get_ref().clone());
        let Some(failed) = &step.failed else {
            let message = format!(
                "step \"{name}\" transfers but does not say where to go when that has `failed`"
            );
            self.error(span.clone(), &message);
            return Action::Goodbye { text };
        };
        let announcement = step.announce_to.as_ref().map(|text| Announcement {
            text: self.words(text),
            accept: step.accept.as_ref().and_then(|key| self.key(key)),
        });
        Action::Transfer { text, to: to_whom, announcement, failed: self.target(failed) }
    }

    fn next(&mut self, name: &str, span: &Range<usize>, step: &StepFile) -> StepId {
        if let Some(next) = &step.next {
            return self.target(next);
        }
        self.error(span.clone(), &format!("step \"{name}\" does not say what comes `next`"));
        StepId(0)
    }

    fn target(&mut self, name: &Spanned<String>) -> StepId {
        if let Some(index) = self.names.iter().position(|known| known == name.get_ref()) {
            return StepId(u16::try_from(index).unwrap_or(u16::MAX));
        }
        let message = format!("there is no step \"{}\"", name.get_ref());
        let help = suggest(name.get_ref(), &self.names);
        self.errors.push(Diagnostic::new(self.file, self.text, &name.span(), message, help));
        StepId(0)
    }

    fn words(&mut self, text: &Spanned<String>) -> String {
        if text.get_ref().len() > limit::AGENT_TEXT_BYTES.get() {
            let most = limit::AGENT_TEXT_BYTES.value;
            self.error(text.span(), &format!("the text is longer than {most} bytes"));
        }
        text.get_ref().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A circle of steps that only speak would hold a caller for ever.
    fn refuse_spins(&mut self, file: &AgentFile, flow: &Flow) {
        for (index, (name, step)) in file.step.iter().enumerate() {
            let mut at = StepId(u16::try_from(index).unwrap_or(u16::MAX));
            for _ in 0..flow.steps.len() {
                match flow.step(at).map(|step| &step.action) {
                    Some(Action::Say { next, .. } | Action::Answer { next, .. }) => at = *next,
                    Some(Action::Transfer { failed, .. }) => at = *failed,
                    _ => break,
                }
                if usize::from(at.0) == index && self.errors.is_empty() {
                    let message =
                        format!("step \"{name}\" leads back to itself without asking anything");
                    self.error(step.span(), &message);
                    return;
                }
            }
        }
    }

    fn error(&mut self, span: Range<usize>, message: &str) {
        self.errors.push(Diagnostic::new(self.file, self.text, &span, message, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
start = "menu"
[knowledge]
hours = "We are open from nine to five."
[step.menu]
ask = "Hours, or goodbye?"
choice = [
    { key = "1", say = ["opening hours", "Hours!"], go = "hours" },
    { key = "2", say = ["goodbye"], go = "bye" },
]
give_up = "bye"
[step.hours]
answer_from = "hours"
next = "menu"
[step.bye]
goodbye = "Bye."
"#;

    fn errors(text: &str) -> Vec<String> {
        compile("a.toml", text)
            .expect_err("must not compile")
            .iter()
            .map(|error| format!("{}:{}: {}", error.line, error.column, error.message))
            .collect()
    }

    #[test]
    fn a_small_flow_compiles() {
        let flow = compile("a.toml", SMALL).unwrap();
        let Some(Step { action: Action::Ask { grammar, choices, .. }, .. }) = flow.step(flow.start)
        else {
            panic!("the start must ask");
        };
        assert_eq!(grammar.phrases.len(), 3);
        assert_eq!(grammar.phrases[1].words, "hours");
        assert_eq!(choices[1].key, Some('2'));
    }

    #[test]
    fn every_error_is_reported_with_its_place_and_a_guess() {
        let text = SMALL.replace("go = \"hours\"", "go = \"huors\"").replace("\"1\"", "\"12\"");
        let found = compile("a.toml", &text).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].line, found[0].message.contains("a key is")), (8, true));
        assert_eq!(found[1].help.as_deref(), Some("did you mean `hours`?"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_guess() {
        let text = SMALL.replace("give_up", "giveup");
        let found = compile("a.toml", &text).unwrap_err();
        assert_eq!(found[0].help.as_deref(), Some("did you mean `give_up`?"));
    }

    #[test]
    fn a_circle_that_only_speaks_is_refused() {
        let text = "start = \"a\"\n[step.a]\nsay = \"x\"\nnext = \"b\"\n[step.b]\nsay = \"y\"\n\
                    next = \"a\"\n";
        assert!(errors(text)[0].contains("leads back to itself"));
    }

    #[test]
    fn a_stray_key_and_a_missing_one_are_errors() {
        let text = "start = \"a\"\n[step.a]\ngoodbye = \"x\"\nnext = \"a\"\n";
        assert_eq!(errors(text), ["4:8: `next` means nothing in step \"a\""]);
        let text = "start = \"a\"\n[step.a]\nsay = \"x\"\n";
        assert!(errors(text)[0].contains("what comes `next`"));
    }

    const CARRIED: &str = "start = \"a\"\n[step.a]\ntransfer = \"+442079460000\"\n\
                           announce_to = \"A caller.\"\naccept = \"1\"\nfailed = \"b\"\n\
                           [step.b]\ngoodbye = \"Bye.\"\n";

    #[test]
    fn a_transfer_may_be_announced_to_the_new_party() {
        let flow = compile("a.toml", CARRIED).unwrap();
        let Action::Transfer { announcement: Some(told), .. } = &flow.steps[0].action else {
            panic!("{flow:?}");
        };
        assert_eq!((told.text.as_str(), told.accept), ("A caller.", Some('1')));
        let stays = compile("a.toml", &CARRIED.replace("accept = \"1\"\n", "")).unwrap();
        assert!(matches!(
            &stays.steps[0].action,
            Action::Transfer { announcement: Some(Announcement { accept: None, .. }), .. }
        ));
    }

    #[test]
    fn a_key_that_accepts_nothing_or_is_none_is_an_error() {
        let text = CARRIED.replace("announce_to = \"A caller.\"\n", "");
        assert_eq!(errors(&text), ["4:10: `accept` means nothing in step \"a\""]);
        assert!(errors(&CARRIED.replace("\"1\"", "\"yes\""))[0].contains("a key is one of"));
    }
}
