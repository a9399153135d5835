//! Stories of one conversation, told to the dialogue by hand.

use super::*;
use crate::file;
use base::{CallId, SeededRandom};

const FLOW: &str = r#"
start = "hello"
[silence]
reprompt_after_ms = 5000
times = 2
goodbye = "Are you there? Goodbye."
[knowledge]
hours = "We are open from nine to five."
[step.hello]
say = "Hello, this is callgate."
next = "menu"
[step.menu]
ask = "Hours, or goodbye?"
choice = [
    { key = "1", say = ["opening hours"], go = "hours" },
    { key = "2", say = ["goodbye"], go = "bye" },
]
misheard = "Sorry?"
tries = 2
give_up = "bye"
[step.hours]
answer_from = "hours"
unknown = "I do not know."
next = "menu"
[step.bye]
goodbye = "Bye."
"#;

struct Room {
    dialogue: Dialogue,
    now: Instant,
    position: u64,
}

impl Room {
    fn new() -> Self {
        Self::with(FLOW)
    }

    fn with(flow: &str) -> Self {
        let flow = Arc::new(file::compile("flow.toml", flow).unwrap());
        let call = CallId::random(&mut SeededRandom::new(1));
        let mut room =
            Self { dialogue: Dialogue::new(call, flow), now: Instant::ZERO, position: 0 };
        room.tell(Input::Started);
        room
    }

    fn tell(&mut self, input: Input) {
        self.dialogue.handle_input(self.now, input);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.position += time.as_millis() as u64 * 16;
        self.dialogue.handle_timeout(self.now);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.dialogue.poll_output()).collect()
    }

    /// Lets the speaker speak: returns the words and starts their playout of one second.
    fn spoken(&mut self) -> (SpeechId, String) {
        let outputs = self.outputs();
        let found = outputs.iter().find_map(|output| match output {
            Output::Speak { speech, text } => Some((*speech, text.clone())),
            _ => None,
        });
        let (speech, text) = found.unwrap_or_else(|| panic!("nothing is said: {outputs:?}"));
        let samples: Arc<[i16]> = vec![100; 16_000].into();
        self.tell(Input::Provider(ProviderEvent::Speech { speech, samples, last: true }));
        assert!(matches!(self.outputs()[0], Output::Play { last: true, .. }));
        self.tell(Input::PlayoutStarted { speech, position: self.position });
        (speech, text)
    }

    /// Lets the speech that is wanted begin 5 ms from now and end at once; all outputs.
    fn outputs_and_goodbye(&mut self) -> Vec<Output> {
        let mut outputs = self.outputs();
        let Some(Output::Speak { speech, .. }) = outputs.last().cloned() else { panic!() };
        let samples: Arc<[i16]> = vec![1; 160].into();
        self.tell(Input::Provider(ProviderEvent::Speech { speech, samples, last: true }));
        self.wait(Duration::from_millis(5));
        self.tell(Input::PlayoutStarted { speech, position: self.position });
        self.tell(Input::PlayoutFinished { speech, position: self.position + 160 });
        outputs.extend(self.outputs());
        outputs
    }

    /// Presses a key that went down 60 ms ago.
    fn press(&mut self, digit: char) {
        let from = self.now - Duration::from_millis(60);
        self.tell(Input::Digit { digit, from, until: self.now });
    }

    fn say_out(&mut self) -> String {
        let (speech, text) = self.spoken();
        self.wait(Duration::from_secs(1));
        self.tell(Input::PlayoutFinished { speech, position: self.position });
        text
    }

    fn caller_speaks(&mut self) -> UtteranceId {
        self.tell(Input::SpeechStarted { position: self.position });
        let id = self.outputs().iter().find_map(|output| match output {
            Output::BeginUtterance { utterance, .. } => Some(*utterance),
            _ => None,
        });
        self.wait(Duration::from_millis(800));
        self.tell(Input::SpeechEnded { position: self.position });
        self.wait(Duration::from_millis(400));
        assert_eq!(self.outputs(), [Output::EndUtterance]);
        id.expect("the utterance begins")
    }

    fn heard(&mut self, utterance: UtteranceId, words: &str) {
        let text = Personal::new(words.to_owned());
        self.tell(Input::Provider(ProviderEvent::Heard { utterance, text, confidence: 0.9 }));
    }

    fn turns(outputs: &[Output]) -> Vec<(Speaking, String, bool)> {
        let turns = outputs.iter().filter_map(|output| match output {
            Output::Turn(turn) => {
                Some((turn.speaking, turn.text.expose().clone(), turn.interrupted))
            }
            _ => None,
        });
        turns.collect()
    }
}

#[test]
fn greets_asks_hears_answers_and_hangs_up() {
    let mut room = Room::new();
    assert_eq!(room.say_out(), "Hello, this is callgate.");
    assert_eq!(room.say_out(), "Hours, or goodbye?");
    room.outputs();
    let utterance = room.caller_speaks();
    room.heard(utterance, "opening hours");
    let outputs = room.outputs();
    assert_eq!(Room::turns(&outputs), [(Speaking::Caller, "opening hours".into(), false)]);
    let thought = outputs.iter().find_map(|output| match output {
        Output::Think { thought, question, .. } => {
            assert_eq!(question.expose(), "opening hours");
            Some(*thought)
        }
        _ => None,
    });
    let answer = Some("Nine to five.".to_owned());
    room.tell(Input::Provider(ProviderEvent::Thought { thought: thought.unwrap(), answer }));
    assert_eq!(room.say_out(), "Nine to five.");
    let (_, question) = room.spoken();
    assert_eq!(question, "Hours, or goodbye?");
    room.press('2');
    let outputs = room.outputs();
    assert!(outputs.contains(&Output::StopPlayout));
    let Some(Output::Speak { speech, text }) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(text, "Bye.");
    room.tell(Input::Provider(ProviderEvent::Speech {
        speech: *speech,
        samples: vec![1; 160].into(),
        last: true,
    }));
    room.tell(Input::PlayoutFinished { speech: *speech, position: room.position });
    assert_eq!(room.outputs().last(), Some(&Output::HangUp(Reason::AgentHungUp)));
}

#[test]
fn latency_counts_from_the_end_of_speech_to_the_first_sample() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.outputs();
    let utterance = room.caller_speaks(); // ends 400 ms before the turn is taken
    room.heard(utterance, "goodbye");
    room.wait(Duration::from_millis(50));
    room.say_out();
    let outputs = room.outputs();
    let latency = outputs.iter().find_map(|output| match output {
        Output::Turn(turn) => turn.latency,
        _ => None,
    });
    assert_eq!(latency, Some(Duration::from_millis(450)));
}

#[test]
fn what_the_voice_detector_waited_counts_towards_the_end_of_the_turn() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.tell(Input::SpeechStarted { position: room.position });
    room.wait(Duration::from_secs(1));
    let end = room.position;
    room.wait(Duration::from_millis(300));
    room.tell(Input::SpeechEnded { position: end });
    room.outputs();
    room.wait(Duration::from_millis(100));
    assert_eq!(room.outputs(), [Output::EndUtterance]);
}

#[test]
fn a_barge_in_cuts_the_transcript_and_is_heard_from_its_first_sound() {
    let mut room = Room::new();
    let (speech, _) = room.spoken();
    room.wait(Duration::from_millis(500));
    let onset = room.position;
    room.tell(Input::SpeechStarted { position: onset });
    room.wait(Duration::from_millis(20));
    room.tell(Input::PlayoutStopped {
        speech,
        played: 8_320,
        position: room.position,
        barge_in: true,
    });
    let outputs = room.outputs();
    assert_eq!(Room::turns(&outputs), [(Speaking::Agent, "Hello, this".into(), true)]);
    assert!(matches!(outputs[outputs.len() - 2], Output::Listen(_)));
    assert!(
        matches!(outputs.last(), Some(Output::BeginUtterance { position: at, .. }) if *at == onset)
    );
}

#[test]
fn the_cut_counts_the_way_to_the_callers_ear() {
    let mut room = Room::new();
    let (speech, _) = room.spoken();
    room.tell(Input::PathDelay(Duration::from_millis(300)));
    room.tell(Input::PlayoutStopped { speech, played: 8_320, position: 8_320, barge_in: true });
    assert_eq!(Room::turns(&room.outputs()), [(Speaking::Agent, "".into(), true)]);
}

#[test]
fn silence_is_asked_again_and_then_ends_the_call() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.outputs();
    room.wait(Duration::from_secs(5));
    assert_eq!(room.say_out(), "Hours, or goodbye?");
    room.outputs();
    room.wait(Duration::from_secs(5));
    assert_eq!(room.say_out(), "Are you there? Goodbye.");
    assert_eq!(room.outputs().last(), Some(&Output::HangUp(Reason::CallerSilent)));
}

#[test]
fn on_hold_silence_means_nothing() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.outputs();
    room.tell(Input::Held(true));
    room.wait(Duration::from_secs(600));
    assert_eq!(room.outputs(), []);
    room.tell(Input::Held(false));
    room.wait(Duration::from_secs(5));
    assert_eq!(room.say_out(), "Hours, or goodbye?");
}

#[test]
fn what_is_not_understood_is_asked_again_and_then_given_up() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.outputs();
    let utterance = room.caller_speaks();
    room.tell(Input::Provider(ProviderEvent::NothingHeard { utterance }));
    assert_eq!(room.say_out(), "Sorry?");
    room.outputs();
    let utterance = room.caller_speaks();
    room.heard(utterance, "something else");
    assert_eq!(room.say_out(), "Bye.");
}

#[test]
fn a_pause_within_a_turn_does_not_end_it() {
    let mut room = Room::new();
    room.say_out();
    room.say_out();
    room.tell(Input::SpeechStarted { position: room.position });
    room.tell(Input::SpeechEnded { position: room.position });
    room.wait(Duration::from_millis(300));
    room.tell(Input::SpeechStarted { position: room.position });
    room.outputs();
    room.wait(Duration::from_millis(900));
    assert_eq!(room.outputs(), []);
}

#[test]
fn a_speaker_that_never_answers_ends_the_call_with_a_reason() {
    let mut room = Room::new();
    room.outputs();
    room.wait(limit::PROVIDER_REPLY_MS.millis());
    let outputs = room.outputs();
    assert_eq!(outputs.last(), Some(&Output::HangUp(Reason::AgentFailed)));
    assert!(matches!(outputs[0], Output::Event(Event::ProviderFailed { provider: "speaker" })));
}

#[test]
fn a_hang_up_in_mid_sentence_keeps_what_was_heard() {
    let mut room = Room::new();
    room.spoken();
    room.now += Duration::from_millis(520);
    room.tell(Input::Ended);
    assert_eq!(Room::turns(&room.outputs()), [(Speaking::Agent, "Hello, this".into(), true)]);
    assert_eq!(room.dialogue.poll_timeout(), None);
}

#[test]
fn speech_that_was_cut_before_it_was_synthesised_is_not_played() {
    let mut room = Room::new();
    let Output::Speak { speech, .. } = room.outputs()[0] else { panic!() };
    room.press('2');
    room.outputs();
    let samples: Arc<[i16]> = vec![1; 160].into();
    room.tell(Input::Provider(ProviderEvent::Speech { speech, samples, last: true }));
    assert_eq!(room.outputs(), []);
}

/// Who spoke, when it began and when it ended in milliseconds.
fn times(outputs: &[Output]) -> Vec<(Speaking, u128, u128)> {
    let turns = outputs.iter().filter_map(|output| match output {
        Output::Turn(it) => Some((it.speaking, it.start.as_millis(), it.end.as_millis())),
        _ => None,
    });
    turns.collect()
}

#[test]
fn a_key_that_cuts_a_speech_comes_after_it_and_lies_where_it_was_pressed() {
    let mut room = Room::new();
    // The media began long before the voice agent did.
    room.position = 160_000;
    let (speech, _) = room.spoken();
    room.wait(Duration::from_millis(500));
    room.press('7');
    room.press('1');
    assert_eq!(times(&room.outputs()), [], "the speech that they cut is not written yet");
    room.wait(Duration::from_millis(20));
    let position = room.position;
    room.tell(Input::PlayoutStopped { speech, played: 8_320, position, barge_in: false });
    let (agent, caller) = (Speaking::Agent, Speaking::Caller);
    let expected = [(agent, 10_000, 10_520), (caller, 10_440, 10_500), (caller, 10_440, 10_500)];
    assert_eq!(times(&room.outputs()), expected);
}

#[test]
fn keys_are_kept_when_the_call_ends_before_the_cut_is_reported() {
    let mut room = Room::new();
    room.spoken();
    room.wait(Duration::from_millis(500));
    room.press('7');
    room.tell(Input::Ended);
    let turns = Room::turns(&room.outputs());
    assert_eq!(turns[1], (Speaking::Caller, "[keys 7]".into(), false));
    assert_eq!(turns.len(), 2);
}

#[test]
fn a_key_pressed_before_the_dialogue_began_lies_at_its_beginning() {
    let mut room = Room::new();
    room.now += Duration::from_secs(1);
    let from = Instant::ZERO;
    room.tell(Input::Digit { digit: '2', from, until: from });
    assert_eq!(times(&room.outputs()), [(Speaking::Caller, 0, 0)]);
}

#[test]
fn a_flood_of_keys_is_written_even_if_the_cut_is_never_reported() {
    let mut room = Room::with(&FLOW.replace("go = \"hours\"", "go = \"menu\""));
    room.spoken();
    let mut written = 0;
    for _ in 0..1_000 {
        room.press('1');
        written += Room::turns(&room.outputs()).len();
    }
    assert_eq!(written, 1_000 - limit::CALL_DTMF_DIGITS.get());
    room.tell(Input::Ended);
    assert_eq!(written + Room::turns(&room.outputs()).len(), 1_001);
}

#[test]
fn a_key_comes_before_the_speech_that_it_brings() {
    let mut room = Room::new();
    let (speech, _) = room.spoken();
    room.wait(Duration::from_secs(1));
    // The last sample lies 15 ms into the frame that is being made now.
    room.tell(Input::PlayoutFinished { speech, position: room.position + 240 });
    let (speech, _) = room.spoken();
    room.wait(Duration::from_secs(1));
    room.tell(Input::PlayoutFinished { speech, position: room.position + 240 });
    room.outputs();
    let from = room.now;
    room.tell(Input::Digit { digit: '2', from, until: from });
    let mut turns = times(&room.outputs_and_goodbye());
    let key = turns.remove(0);
    assert!(key.1 <= turns[0].1, "{key:?} {turns:?}");
}

const TRANSFERS: &str = r#"
start = "connect"
[step.connect]
transfer = "+442079460000"
announce = "One moment."
failed = "sorry"
[step.sorry]
goodbye = "Nobody is there."
"#;

#[test]
fn a_transfer_is_asked_for_when_its_words_are_said_and_the_flow_goes_on_where_it_fails() {
    let mut room = Room::with(TRANSFERS);
    assert_eq!(room.say_out(), "One moment.");
    let to = Personal::new(String::from("+442079460000"));
    let asked = Output::Transfer { to, is_announced: false };
    assert_eq!(room.outputs().iter().filter(|it| **it == asked).count(), 1);
    room.tell(Input::TransferFailed(Reason::Busy));
    assert_eq!(room.say_out(), "Nobody is there.");
    // What comes twice changes nothing.
    room.tell(Input::TransferFailed(Reason::Busy));
}

#[test]
fn a_transfer_that_never_ends_is_given_up() {
    let mut room = Room::with(TRANSFERS);
    room.say_out();
    while room.dialogue.poll_output().is_some() {}
    room.wait(Duration::from_secs(600));
    assert_eq!(room.say_out(), "Nobody is there.");
}

#[test]
fn a_transfer_says_to_whom_and_where_to_go_on() {
    for (from, to) in [
        ("\"+442079460000\"", "\"two words\""),
        ("failed = \"sorry\"", ""),
        ("failed = \"sorry\"", "failed = \"connect\""),
        ("announce", "next"),
    ] {
        assert!(file::compile("flow.toml", &TRANSFERS.replace(from, to)).is_err(), "{to}");
    }
}

const ANNOUNCED: &str = r#"
start = "connect"
[silence]
reprompt_after_ms = 5000
times = 2
[step.connect]
transfer = "+442079460000"
announce = "One moment."
announce_to = "A caller for you. Press 1."
accept = "1"
failed = "sorry"
[step.sorry]
goodbye = "Nobody is there."
"#;

impl Room {
    /// The new party of a transfer has answered.
    fn reached(flow: &str) -> Self {
        let mut room = Self::with(flow);
        assert_eq!(room.say_out(), "One moment.");
        let is_asked = |it: &Output| matches!(it, Output::Transfer { is_announced: true, .. });
        assert!(room.outputs().iter().any(is_asked));
        room.tell(Input::TargetReached);
        room
    }

    /// Lets the speaker speak to the new party, which hears it out; what follows at once.
    fn announced(&mut self) -> Vec<Output> {
        let outputs = self.outputs();
        let Some(Output::Speak { speech, text }) = outputs.last().cloned() else {
            panic!("{outputs:?}");
        };
        assert_eq!(text, "A caller for you. Press 1.");
        let samples: Arc<[i16]> = vec![100; 16_000].into();
        self.tell(Input::Provider(ProviderEvent::Speech { speech, samples, last: true }));
        assert!(matches!(self.outputs()[..], [Output::Announce { last: true, .. }]));
        self.wait(Duration::from_secs(1));
        self.tell(Input::Announced { speech });
        let turns = self.outputs();
        let said = "[to the new party] A caller for you. Press 1.";
        assert_eq!(Self::turns(&turns), [(Speaking::Agent, said.to_owned(), false)]);
        turns
    }

    fn answer(&mut self) -> Option<bool> {
        self.outputs().iter().find_map(|output| match output {
            Output::TransferAnswer(is_accepted) => Some(*is_accepted),
            _ => None,
        })
    }
}

#[test]
fn a_new_party_takes_the_caller_by_its_key() {
    let mut room = Room::reached(ANNOUNCED);
    room.announced();
    assert_eq!(room.answer(), None);
    room.tell(Input::TargetDigit('1'));
    assert_eq!(room.answer(), Some(true));
    room.tell(Input::TargetDigit('2'));
    room.tell(Input::Ended);
    assert_eq!(room.outputs(), []);
}

#[test]
fn a_key_during_the_announcement_counts() {
    let mut room = Room::reached(ANNOUNCED);
    room.tell(Input::TargetDigit('1'));
    let outputs = room.outputs();
    assert!(outputs.contains(&Output::TransferAnswer(true)), "{outputs:?}");
}

#[test]
fn another_key_is_a_refusal_and_the_agent_is_back() {
    let mut room = Room::reached(ANNOUNCED);
    room.announced();
    room.tell(Input::TargetDigit('3'));
    assert_eq!(room.answer(), Some(false));
    room.tell(Input::TransferFailed(Reason::Declined));
    assert_eq!(room.say_out(), "Nobody is there.");
}

#[test]
fn a_new_party_that_stays_has_taken_the_caller_where_no_key_is_asked_for() {
    let mut room = Room::reached(&ANNOUNCED.replace("accept = \"1\"\n", ""));
    room.tell(Input::TargetDigit('5'));
    let outputs = room.announced();
    assert!(outputs.contains(&Output::TransferAnswer(true)), "{outputs:?}");
}

#[test]
fn a_silent_new_party_is_told_again_and_then_let_go() {
    let mut room = Room::reached(ANNOUNCED);
    room.announced();
    room.wait(Duration::from_secs(5));
    room.announced();
    room.wait(Duration::from_secs(5));
    assert_eq!(room.answer(), Some(false));
    // Where even its failure is not told, the caller is not left waiting.
    room.wait(Duration::from_secs(60));
    assert_eq!(room.say_out(), "Nobody is there.");
}

#[test]
fn a_speaker_that_fails_costs_the_transfer_and_not_the_caller() {
    for how in ["refused", "failed", "late", "playout"] {
        let mut room = Room::reached(ANNOUNCED);
        let outputs = room.outputs();
        let Some(Output::Speak { speech, .. }) = outputs.last().cloned() else { panic!() };
        match how {
            "refused" => room.tell(Input::Refused(Role::Speaker)),
            "failed" => {
                room.tell(Input::Provider(ProviderEvent::Failed { role: Role::Speaker }));
            }
            "late" => room.wait(Duration::from_secs(60)),
            _ => {
                let samples: Arc<[i16]> = vec![100; 160].into();
                room.tell(Input::Provider(ProviderEvent::Speech { speech, samples, last: true }));
                room.wait(Duration::from_secs(60));
            }
        }
        assert_eq!(room.answer(), Some(false), "{how}");
        room.tell(Input::TransferFailed(Reason::Declined));
        assert_eq!(room.say_out(), "Nobody is there.");
    }
}

#[test]
fn what_the_caller_does_meanwhile_changes_nothing() {
    let mut room = Room::reached(ANNOUNCED);
    room.outputs();
    room.press('1');
    room.tell(Input::SpeechStarted { position: room.position });
    room.tell(Input::Held(true));
    room.tell(Input::SpeechEnded { position: room.position });
    room.tell(Input::Held(false));
    assert_eq!(room.outputs(), []);
    room.tell(Input::TransferFailed(Reason::Declined));
    assert_eq!(room.say_out(), "Nobody is there.");
}

#[test]
fn a_new_party_that_answers_after_the_transfer_was_given_up_is_let_go() {
    let mut room = Room::reached(ANNOUNCED);
    room.outputs();
    room.tell(Input::TransferFailed(Reason::NoAnswer));
    assert_eq!(room.say_out(), "Nobody is there.");
    room.outputs();
    room.tell(Input::TargetReached);
    assert_eq!(room.outputs(), []);

    let mut room = Room::with(ANNOUNCED);
    room.say_out();
    room.wait(Duration::from_secs(600));
    room.outputs();
    room.tell(Input::TargetReached);
    assert_eq!(room.answer(), Some(false));
}
