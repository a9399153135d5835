//! Isolated words of a human voice, as the prompts of a telephone exchange: each is the first and
//! only thing that its caller says, so nothing is known of voice or line.
//!
//! The recordings are those of Debian's `asterisk-core-sounds-en-wav` and `-g722` (CC-BY-SA-3.0,
//! Allison Smith); `deploy/setup.sh test` installs them, nothing of them is kept here.

use std::fs;
use std::path::{Path, PathBuf};

use audio::g711::Law;

use crate::scene::{Caller, Line, Through, g711, g722, start};

/// Files and what is said in them; each list is a grammar.
const GRAMMARS: [(&str, [(&str, &str); 15]); 4] = [
    (
        "digits",
        [
            ("digits/0", "zero"),
            ("digits/1", "one"),
            ("digits/2", "two"),
            ("digits/3", "three"),
            ("digits/4", "four"),
            ("digits/5", "five"),
            ("digits/6", "six"),
            ("digits/7", "seven"),
            ("digits/8", "eight"),
            ("digits/9", "nine"),
            ("digits/10", "ten"),
            ("digits/11", "eleven"),
            ("digits/12", "twelve"),
            ("digits/20", "twenty"),
            ("digits/hundred", "hundred"),
        ],
    ),
    (
        "menu",
        [
            ("goodbye", "goodbye"),
            ("hello", "hello"),
            ("location", "location"),
            ("extension", "extension"),
            ("vm-password", "password"),
            ("vm-Family", "family"),
            ("vm-Friends", "friends"),
            ("vm-Work", "work"),
            ("vm-Urgent", "urgent"),
            ("cancelled", "cancelled"),
            ("hours", "hours"),
            ("vm-messages", "messages"),
            ("sorry", "sorry"),
            ("removed", "removed"),
            ("disabled", "disabled"),
        ],
    ),
    (
        "dates",
        [
            ("digits/day-0", "sunday"),
            ("digits/day-1", "monday"),
            ("digits/day-2", "tuesday"),
            ("digits/day-3", "wednesday"),
            ("digits/day-4", "thursday"),
            ("digits/day-5", "friday"),
            ("digits/day-6", "saturday"),
            ("digits/today", "today"),
            ("digits/tomorrow", "tomorrow"),
            ("digits/yesterday", "yesterday"),
            ("digits/mon-0", "january"),
            ("digits/mon-3", "april"),
            ("digits/mon-6", "july"),
            ("digits/mon-8", "september"),
            ("digits/mon-11", "december"),
        ],
    ),
    (
        "letters",
        [
            ("phonetic/a_p", "alpha"),
            ("phonetic/b_p", "bravo"),
            ("phonetic/c_p", "charlie"),
            ("phonetic/d_p", "delta"),
            ("phonetic/e_p", "echo"),
            ("phonetic/f_p", "foxtrot"),
            ("phonetic/g_p", "golf"),
            ("phonetic/h_p", "hotel"),
            ("phonetic/k_p", "kilo"),
            ("phonetic/o_p", "oscar"),
            ("phonetic/r_p", "romeo"),
            ("phonetic/s_p", "sierra"),
            ("phonetic/t_p", "tango"),
            ("phonetic/v_p", "victor"),
            ("phonetic/z_p", "zulu"),
        ],
    ),
];

/// Where the recordings are, whatever their folder is called.
fn sounds() -> PathBuf {
    let top = Path::new("/usr/share/asterisk/sounds");
    let folders = fs::read_dir(top).into_iter().flatten().filter_map(|entry| entry.ok());
    folders
        .map(|entry| entry.path())
        .find(|folder| {
            folder.join("digits/1.wav").exists() && folder.join("digits/1.g722").exists()
        })
        .unwrap_or_else(|| {
            panic!(
                "no recordings under {}: run `deploy/setup.sh test`, which installs \
                 asterisk-core-sounds-en-wav and asterisk-core-sounds-en-g722",
                top.display()
            )
        })
}

fn line(name: &str, through: Through) -> Line {
    let read = |kind: &str| fs::read(sounds().join(format!("{name}.{kind}"))).unwrap();
    match through {
        Through::MuLaw => g711(Law::Mu, &wav(&read("wav"))),
        Through::ALaw => g711(Law::A, &wav(&read("wav"))),
        Through::G722 => g722(&read("g722")),
    }
}

/// The samples of a mono 8 kHz wav file.
fn wav(file: &[u8]) -> Vec<i16> {
    assert_eq!(file[24..28], 8_000u32.to_le_bytes());
    let data = file.windows(4).position(|it| it == b"data").unwrap() + 8;
    file[data..].as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// At least 13 of 15 words of each grammar, each said as the first of a call.
fn hears(through: Through) {
    let (speech, _events) = start(1);
    for (name, words) in GRAMMARS {
        let grammar = words.map(|(_, word)| word);
        let mut wrong = Vec::new();
        for (seed, (file, word)) in words.into_iter().enumerate() {
            let caller = Caller::new(seed as u64);
            let heard = caller.say(&mut *caller.open(&speech, &grammar), &line(file, through));
            if heard.as_deref() != Some(word) {
                wrong.push((word, heard));
            }
        }
        println!("{through:?} {name}: {} of 15, not {wrong:?}", 15 - wrong.len());
        assert!(wrong.len() <= 2, "{through:?} {name}: {wrong:?}");
    }
}

#[test]
fn words_are_heard_through_u_law() {
    hears(Through::MuLaw);
}

#[test]
fn words_are_heard_through_a_law() {
    hears(Through::ALaw);
}

#[test]
fn words_are_heard_through_g722() {
    hears(Through::G722);
}

#[test]
fn words_that_are_not_in_the_grammar_are_mostly_heard_as_nothing() {
    let (speech, _events) = start(1);
    let grammar = GRAMMARS[0].1.map(|(_, word)| word);
    let mut taken = Vec::new();
    let mut said = 0;
    for through in [Through::MuLaw, Through::G722] {
        for (file, word) in GRAMMARS[1..].iter().flat_map(|(_, words)| words.iter().step_by(3)) {
            let caller = Caller::new(said);
            said += 1;
            let heard = caller.say(&mut *caller.open(&speech, &grammar), &line(file, through));
            taken.extend(heard.map(|heard| (through, word, heard)));
        }
    }
    assert!(taken.len() * 3 <= said as usize, "{} of {said}: {taken:?}", taken.len());
}
