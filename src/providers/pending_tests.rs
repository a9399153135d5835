use super::*;
use base::SeededRandom;
use speech::protocol::FrameReader;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

#[derive(Default)]
struct Kept(Mutex<Vec<ProviderEvent>>);

impl ProviderSink for Kept {
    fn deliver(&self, _: CallId, event: ProviderEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A book, the queue's other end and a call.
struct Scene {
    pending: Pending,
    queue: Receiver<Vec<u8>>,
    sink: Arc<Kept>,
    call: CallId,
    now: Instant,
}

const HEARD: UtteranceId = UtteranceId(5);

impl Scene {
    fn with_room_for(frames: usize) -> Self {
        let (sender, queue) = sync_channel(frames);
        let (mut pending, now) = (Pending::new(sender), Instant::now());
        pending.answer(Answer::Ready, now);
        let call = CallId::random(&mut SeededRandom::new(1));
        Self { pending, queue, sink: Arc::default(), call, now }
    }

    fn open(&mut self) -> EarId {
        self.pending.open(self.call, self.sink.clone()).unwrap()
    }

    fn speak(&mut self, text: &str) -> bool {
        let whose = (self.call, SpeechId(1), self.sink.clone() as Arc<dyn ProviderSink>);
        self.pending.speak(whose, (Voice::Slt, text), self.now)
    }

    fn answer(&mut self, answer: Answer) -> Option<Made> {
        let (delivery, made) = self.pending.answer(answer, self.now);
        if let Some(delivery) = delivery {
            delivery.deliver();
        }
        made
    }

    fn end(&mut self, ear: EarId) {
        if let Some(failed) = self.pending.end(ear, self.now) {
            failed.deliver();
        }
    }

    fn fail(&mut self) {
        self.pending.fail().into_iter().for_each(Delivery::deliver);
        self.queue.try_iter().for_each(drop);
    }

    fn delivered(&self) -> Vec<ProviderEvent> {
        std::mem::take(&mut self.sink.0.lock().unwrap())
    }

    fn sent(&self) -> Vec<Command> {
        let (mut reader, mut commands) = (FrameReader::default(), Vec::new());
        self.queue.try_iter().for_each(|frame| reader.push(&frame));
        while let Some(command) = reader.message().unwrap() {
            commands.push(command);
        }
        commands
    }
}

const LOST: ProviderEvent = ProviderEvent::Failed { role: Role::Transcriber };

fn nothing(ear: EarId) -> Answer {
    Answer::NothingHeard { ear, utterance: HEARD.0 }
}

fn menu(words: &str) -> Arc<Grammar> {
    let phrase = agent::provider::Phrase { words: words.into(), meaning: "1".into() };
    Arc::new(Grammar { phrases: vec![phrase] })
}

#[test]
fn an_utterance_is_answered_once() {
    let mut scene = Scene::with_room_for(64);
    let ear = scene.open();
    scene.pending.begin(ear, HEARD);
    scene.answer(nothing(ear));
    assert!(scene.delivered().is_empty(), "an answer before the end is none");
    scene.end(ear);
    scene.answer(nothing(ear));
    scene.answer(nothing(ear));
    scene.end(ear);
    assert_eq!(scene.delivered(), [ProviderEvent::NothingHeard { utterance: HEARD }]);
}

#[test]
fn what_was_in_the_hands_of_a_dead_process_fails_at_its_end_or_at_once() {
    let mut scene = Scene::with_room_for(64);
    let (ended, live) = (scene.open(), scene.open());
    scene.pending.begin(ended, HEARD);
    scene.end(ended);
    scene.pending.begin(live, HEARD);
    assert!(scene.speak("hello"));
    scene.fail();
    let failed = ProviderEvent::Failed { role: Role::Speaker };
    assert_eq!(scene.delivered(), [LOST, failed]);
    scene.pending.audio(live, false, &[0; 320]);
    scene.end(live);
    assert_eq!(scene.delivered(), [LOST]);
    scene.answer(nothing(ended));
    assert!(scene.delivered().is_empty());
}

#[test]
fn what_begins_while_there_is_no_process_fails_at_its_end() {
    let mut scene = Scene::with_room_for(64);
    let ear = scene.open();
    scene.fail();
    assert!(scene.pending.open(scene.call, scene.sink.clone()).is_none());
    assert!(scene.pending.begin(ear, HEARD), "the queue is not to blame");
    scene.end(ear);
    assert_eq!(scene.delivered(), [LOST]);
    assert!(scene.sent().is_empty());
}

#[test]
fn a_new_process_learns_of_open_ears_and_their_latest_grammar() {
    let mut scene = Scene::with_room_for(64);
    let (kept, closed) = (scene.open(), scene.open());
    scene.pending.grammar(kept, menu("yes"));
    scene.fail();
    scene.pending.grammar(kept, menu("no"));
    scene.pending.close(closed);
    scene.answer(Answer::Ready);
    let phrases = vec!["no".to_owned()];
    let expected = [Command::Open { ear: kept }, Command::Grammar { ear: kept, phrases }];
    assert!(scene.sent() == expected);
}

#[test]
fn a_full_queue_loses_the_utterance_and_not_the_count_of_answers() {
    let mut scene = Scene::with_room_for(3);
    let ear = scene.open();
    assert!(scene.pending.begin(ear, HEARD));
    assert!(scene.pending.audio(ear, false, &[0; 320]));
    assert!(!scene.pending.audio(ear, false, &[0; 320]), "full");
    scene.sent();
    assert!(scene.pending.audio(ear, false, &[0; 320]), "nothing to send any more");
    assert!(scene.sent().is_empty(), "a torn utterance is not recognised");
    scene.end(ear);
    assert_eq!(scene.delivered(), [LOST]);
}

#[test]
fn a_grammar_that_found_no_room_is_sent_before_the_next_utterance() {
    let mut scene = Scene::with_room_for(1);
    let ear = scene.open();
    assert!(!scene.pending.grammar(ear, menu("yes")));
    assert!(!scene.pending.begin(ear, HEARD), "the old grammar would hear it");
    scene.end(ear);
    assert_eq!(scene.delivered(), [LOST]);
    scene.sent();
    scene.pending.begin(ear, HEARD);
    assert!(matches!(&scene.sent()[..], [Command::Grammar { .. }]));
}

#[test]
fn pieces_reach_the_call_in_order_and_are_kept_whole() {
    let mut scene = Scene::with_room_for(64);
    assert!(scene.speak("hello"));
    let sent = scene.sent();
    let [Command::Speak { speaking, voice: Voice::Slt, text }] = &sent[..] else { panic!() };
    assert_eq!(text, "hello");
    let piece = |is_last, samples: &[i16]| Answer::Piece {
        speaking: *speaking,
        is_last,
        samples: samples.to_vec(),
    };
    assert!(scene.answer(piece(false, &[1, 2])).is_none());
    let made = scene.answer(piece(true, &[3])).unwrap();
    assert_eq!((&*made.text, &*made.samples), ("hello", &[1, 2, 3][..]));
    let event = |samples: &[i16], last| ProviderEvent::Speech {
        speech: SpeechId(1),
        samples: samples.into(),
        last,
    };
    assert_eq!(scene.delivered(), [event(&[1, 2], false), event(&[3], true)]);
    assert!(scene.answer(piece(true, &[4])).is_none());
    assert!(scene.delivered().is_empty(), "it had its last piece");
}

#[test]
fn a_call_that_ended_gets_no_answer() {
    let mut scene = Scene::with_room_for(64);
    let ear = scene.open();
    scene.pending.begin(ear, HEARD);
    scene.end(ear);
    scene.pending.close(ear);
    scene.answer(nothing(ear));
    scene.fail();
    assert!(scene.delivered().is_empty());
}

/// A moment after `scene.now`, at which everything that was asked then should be answered.
fn later(scene: &Scene) -> Instant {
    scene.now + Duration::from_millis(1)
}

#[test]
fn a_process_that_answers_nothing_in_time_hangs() {
    let mut scene = Scene::with_room_for(64);
    let (later, ear) = (later(&scene), scene.open());
    let is_hung = |scene: &mut Scene| scene.pending.expire(later).is_err();
    assert!(!is_hung(&mut scene));
    scene.pending.begin(ear, HEARD);
    assert!(!is_hung(&mut scene), "a caller may speak for long");
    scene.end(ear);
    assert!(scene.pending.expire(scene.now).is_ok());
    assert!(is_hung(&mut scene));
    scene.answer(nothing(ear));
    assert!(!is_hung(&mut scene));
    scene.speak("hello");
    assert!(is_hung(&mut scene));
}

#[test]
fn a_busy_process_fails_the_late_request_only() {
    let mut scene = Scene::with_room_for(64);
    let (later, ear) = (later(&scene), scene.open());
    scene.pending.begin(ear, HEARD);
    scene.end(ear);
    scene.speak("hello");
    let other = Answer::NothingHeard { ear: EarId(99), utterance: 1 };
    scene.pending.answer(other, later);
    let failed = scene.pending.expire(later).unwrap();
    failed.into_iter().for_each(Delivery::deliver);
    let speaker = ProviderEvent::Failed { role: Role::Speaker };
    assert_eq!(scene.delivered(), [LOST, speaker]);
    scene.answer(nothing(ear));
    assert!(scene.delivered().is_empty(), "it was given up");
    assert!(scene.pending.expire(later).unwrap().is_empty());
}

#[test]
fn a_partial_is_for_the_utterance_at_hand_only() {
    let mut scene = Scene::with_room_for(64);
    let ear = scene.open();
    let partial = |utterance| Answer::Partial { ear, utterance, text: "yes".into() };
    scene.answer(partial(HEARD.0));
    scene.pending.begin(ear, HEARD);
    scene.answer(partial(HEARD.0 - 1));
    assert!(scene.delivered().is_empty());
    scene.answer(partial(HEARD.0));
    let text = Personal::new("yes".to_owned());
    assert_eq!(scene.delivered(), [ProviderEvent::Partial { utterance: HEARD, text }]);
}
