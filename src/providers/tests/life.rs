//! What a call sees of the helper while it lives, dies, hangs or is not there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use agent::provider::{
    ProviderError, ProviderEvent, Role, Speaker, SpeechId, Transcriber, UtteranceId,
};
use base::{Event, Random, SeededRandom, limit};
use providers::{EmbeddedSpeech, EmbeddedSpeechConfig, StartError};

use crate::scene::{Caller, Line, Through, helper, start};

/// Speaks `text` and gives the samples of every piece.
fn spoken(speech: &EmbeddedSpeech, caller: &Caller, text: &str, voice: &str) -> Vec<Vec<i16>> {
    speech.speak(caller.call, SpeechId(1), text, voice, caller.sink.clone()).unwrap();
    let mut pieces = Vec::new();
    loop {
        match caller.answer() {
            ProviderEvent::Speech { speech: SpeechId(1), samples, last } => {
                pieces.push(samples.to_vec());
                if last {
                    return pieces;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Child processes of this test that run `program`.
fn children(program: &str) -> Vec<u32> {
    let own = format!("/proc/self/task/{}/children", std::process::id());
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let lists = tasks.map(|task| task.path().join("children"));
    let lists = lists.chain([PathBuf::from(own)]).filter_map(|list| fs::read_to_string(list).ok());
    let mut found: Vec<u32> = lists
        .flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .filter(|id| {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            // The kernel keeps 15 bytes of a name.
            program.starts_with(name.trim_end()) && !name.trim_end().is_empty()
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn signal(id: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
}

#[test]
fn what_is_spoken_is_heard_through_every_codec() {
    let (speech, _events) = start(1);
    let phrases = ["opening hours", "where are you", "no thank you", "goodbye"];
    for through in Through::ALL {
        let caller = Caller::new(1);
        let mut listening = caller.open(&speech, &phrases);
        for phrase in phrases {
            let samples = spoken(&speech, &caller, phrase, "rms").concat();
            let heard = caller.say(&mut *listening, &through.carry(&samples));
            assert_eq!(heard.as_deref(), Some(phrase), "{through:?}");
        }
    }
}

#[test]
fn a_word_that_no_dictionary_knows_is_heard() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let mut listening = caller.open(&speech, &["callgate", "the zorblax", "reception"]);
    for phrase in ["callgate", "the zorblax"] {
        let samples = spoken(&speech, &caller, phrase, "slt").concat();
        let line = Line { samples, is_narrowband: false };
        assert_eq!(caller.say(&mut *listening, &line).as_deref(), Some(phrase));
    }
}

#[test]
fn noise_silence_and_speech_without_a_grammar_are_heard_as_nothing() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let mut listening = caller.open(&speech, &["yes", "no", "goodbye", "seven"]);
    let mut random = SeededRandom::new(7);
    let noise: Vec<i16> = (0..16_000).map(|_| (random.u32() as i16) / 8).collect();
    let tone = (0..16_000).map(|i: i32| (i % 32 - 16) as i16 * 500).collect();
    for is_narrowband in [false, true] {
        for samples in [&noise, &vec![0; 16_000], &tone, &vec![]] {
            let line = Line { samples: samples.clone(), is_narrowband };
            assert_eq!(caller.say(&mut *listening, &line), None);
        }
    }
    let samples = spoken(&speech, &caller, "goodbye", "slt").concat();
    let mut deaf = caller.open(&speech, &[]);
    assert_eq!(caller.say(&mut *deaf, &Line { samples, is_narrowband: false }), None);
}

#[test]
fn a_long_text_comes_in_pieces_and_the_second_time_at_once() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let text = "Welcome to the reception. You can say opening hours, address, or goodbye.";
    let pieces = spoken(&speech, &caller, text, "");
    assert!(pieces.len() > 20);
    let again = spoken(&speech, &caller, text, "slt");
    assert!(again == [pieces.concat()]);
}

#[test]
fn what_it_cannot_speak_is_refused_at_once() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let long = "a".repeat(limit::AGENT_TEXT_BYTES.get() + 1);
    for (text, voice) in [("hello", "siri"), (&*long, ""), (" ... ", ""), ("", "")] {
        let refused = speech.speak(caller.call, SpeechId(1), text, voice, caller.sink.clone());
        assert_eq!(refused, Err(ProviderError::Unsupported));
    }
}

#[test]
fn twenty_callers_who_speak_at_once_are_each_answered() {
    let (speech, _events) = start(1);
    let words = ["monday", "tuesday", "wednesday", "goodbye"];
    let lines: Vec<Line> = {
        let caller = Caller::new(0);
        let say = |word| spoken(&speech, &caller, word, "rms").concat();
        words.iter().map(|word| Line { samples: say(word), is_narrowband: false }).collect()
    };
    let callers: Vec<Caller> = (0..20).map(Caller::new).collect();
    let mut ears: Vec<_> = callers.iter().map(|caller| caller.open(&speech, &words)).collect();
    ears.iter_mut().for_each(|ear| ear.begin(UtteranceId(9)));
    let longest = lines.iter().map(|line| line.samples.len()).max().unwrap();
    for start in (0..longest).step_by(320) {
        for (i, ear) in ears.iter_mut().enumerate() {
            let samples = &lines[i % 4].samples;
            let frame = &samples[start.min(samples.len())..(start + 320).min(samples.len())];
            ear.audio(frame, false);
        }
    }
    ears.iter_mut().for_each(|ear| ear.end());
    for (i, caller) in callers.iter().enumerate() {
        match caller.outcome() {
            ProviderEvent::Heard { utterance: UtteranceId(9), text, .. } => {
                assert_eq!(text.expose(), words[i % 4]);
            }
            other => panic!("{other:?}"),
        }
        assert!(caller.has_no_more());
    }
}

#[test]
fn a_helper_that_dies_fails_its_work_and_another_takes_over() {
    let (speech, events) = start(1);
    let caller = Caller::new(1);
    let mut listening = caller.open(&speech, &["goodbye", "hello"]);
    let samples = spoken(&speech, &caller, "goodbye", "rms").concat();
    let line = Line { samples, is_narrowband: false };
    let before = children("callgate-speech");
    assert_eq!(before.len(), 1);
    signal(before[0], "-STOP");
    listening.begin(UtteranceId(1));
    listening.audio(&line.samples, false);
    listening.end();
    signal(before[0], "-KILL");
    assert_eq!(caller.outcome(), ProviderEvent::Failed { role: Role::Transcriber });
    let failed = [events.recv().unwrap(), events.recv().unwrap()];
    let failure = |role: Role| Event::ProviderFailed { provider: role.word() };
    assert_eq!(failed, [failure(Role::Transcriber), failure(Role::Speaker)]);
    // The ear is still open; what is begun before the next helper is ready fails.
    loop {
        listening.begin(UtteranceId(1));
        listening.audio(&line.samples, false);
        listening.end();
        match caller.outcome() {
            ProviderEvent::Heard { text, .. } => break assert_eq!(text.expose(), "goodbye"),
            ProviderEvent::Failed { role: Role::Transcriber } => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_ne!(children("callgate-speech"), before);
}

#[test]
fn a_helper_that_hangs_is_killed_and_its_work_fails() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let hung = children("callgate-speech");
    signal(hung[0], "-STOP");
    speech.speak(caller.call, SpeechId(1), "hello", "", caller.sink.clone()).unwrap();
    assert_eq!(caller.outcome(), ProviderEvent::Failed { role: Role::Speaker });
    assert!(!children("callgate-speech").contains(&hung[0]));
}

#[test]
fn no_helper_outlives_its_owner_and_open_ears_fail() {
    let (speech, _events) = start(2);
    let caller = Caller::new(1);
    let mut listening = caller.open(&speech, &["yes"]);
    listening.begin(UtteranceId(1));
    assert_eq!(children("callgate-speech").len(), 2);
    drop(speech);
    assert!(children("callgate-speech").is_empty());
    listening.end();
    assert_eq!(caller.outcome(), ProviderEvent::Failed { role: Role::Transcriber });
}

#[test]
fn a_helper_takes_so_many_calls_and_no_more() {
    let (speech, _events) = start(1);
    let caller = Caller::new(1);
    let open = || speech.open(caller.call, caller.sink.clone());
    let mut ears: Vec<_> = (0..limit::PROVIDER_EARS.get()).map(|_| open().unwrap()).collect();
    assert!(matches!(open(), Err(ProviderError::Busy)));
    ears.pop();
    assert!(open().is_ok());
}

#[test]
fn a_helper_that_is_missing_or_ends_at_once_is_reported_at_the_start() {
    let start = |path: &str| {
        let config = EmbeddedSpeechConfig { helper: Some(path.into()), processes: 2 };
        EmbeddedSpeech::start(config, Box::new(|_| {})).err().unwrap()
    };
    assert!(matches!(start("/nowhere/callgate-speech"), StartError::NoProgram { .. }));
    assert!(matches!(start("/bin/false"), StartError::NotReady { code: Some(1), .. }));
    let chatty = start("/usr/bin/yes");
    assert!(matches!(chatty, StartError::NotReady { .. }), "no frames of ours: {chatty}");
}

#[test]
fn the_helper_cannot_write_files_dump_core_or_gain_rights() {
    let (_speech, _events) = start(1);
    let id = children("callgate-speech")[0];
    assert_eq!(fs::metadata(helper()).unwrap().permissions().mode() & 0o111, 0o111);
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let row = |name: &str| {
        let row = limits.lines().find(|line| line.starts_with(name)).unwrap();
        row[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(row("Max file size"), "0");
    assert_eq!(row("Max core file size"), "0");
    assert_eq!(row("Max address space"), limit::PROVIDER_HELPER_BYTES.value.to_string());
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"));
    let command = fs::read(format!("/proc/{id}/cmdline")).unwrap();
    assert_eq!(command.iter().filter(|byte| **byte == 0).count(), 1, "no arguments");
}
