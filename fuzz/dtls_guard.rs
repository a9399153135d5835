//! The guard before the DTLS libraries: whatever comes, what it lets through is whole, in order,
//! numbered anew and within the limits; after completion nothing but protected alerts, and no more
//! repetitions than are allowed.

use std::time::Duration;

use base::{Instant, limit};
use relay::dtls::guard::{Guard, GuardForm, Heard};

const HANDSHAKE: u8 = 22;
const HEADER: usize = 13;

/// A byte for the form, then a list of `(kind, length, bytes)`, kind one byte and length two.
pub fn dtls_guard(data: &[u8]) {
    let Some((form, mut rest)) = data.split_first() else { return };
    let form = GuardForm { overhead: if form & 1 == 0 { 24 } else { 16 }, has_13: form & 2 != 0 };
    let mut world = World::new(form);
    while let [kind, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (bytes, after) = after.split_at(length.min(after.len()));
        rest = after;
        match kind & 7 {
            0..=3 => world.datagram(bytes),
            4 => world.guard.sent(world.now, bytes),
            5 => world.repeat(),
            6 => world.now += Duration::from_millis(length as u64),
            _ => world.complete(length & 1 == 1),
        }
    }
}

struct World {
    form: GuardForm,
    guard: Guard,
    now: Instant,
    /// What the next record of epoch 0 and the next message that pass are numbered.
    sequence: u64,
    message: u16,
    given: usize,
    passed: usize,
    repetitions: u64,
    is_over: bool,
}

impl World {
    fn new(form: GuardForm) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        let guard = Guard::new(form);
        Self {
            form,
            guard,
            now,
            sequence: 0,
            message: 0,
            given: 0,
            passed: 0,
            repetitions: 0,
            is_over: false,
        }
    }

    fn datagram(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        let mut passed = Vec::new();
        let heard = self.guard.admit(self.now, bytes, &mut |it| passed.push(it.to_vec()));
        match heard {
            Ok(Heard::News) => assert!(!passed.is_empty()),
            Ok(_) => assert!(passed.is_empty()),
            Err(_) => {
                assert!(!self.guard.is_complete(), "refused after completion");
                self.is_over = true;
            }
        }
        self.given += bytes.len();
        for datagram in passed {
            self.passed += datagram.len();
            self.check(&datagram);
        }
        if !self.guard.is_complete() {
            // Pieces may come before what they complete, and each message gets its own headers.
            let most = self.given + 25 * limit::DTLS_HANDSHAKE_RECORDS.get();
            assert!(self.passed <= most, "{} of {}", self.passed, self.given);
        }
    }

    fn check(&mut self, datagram: &[u8]) {
        assert!(datagram.len() <= limit::DTLS_MESSAGE_BYTES.get() + 25);
        let mut rest = datagram;
        while !rest.is_empty() {
            if self.form.has_13 && rest[0] >> 5 == 1 {
                return;
            }
            let length = usize::from(u16::from_be_bytes([rest[11], rest[12]]));
            let (record, after) = rest.split_at(HEADER + length);
            rest = after;
            match u16::from_be_bytes([record[3], record[4]]) {
                0 => self.check_plain(record),
                epoch => {
                    assert_eq!(epoch, 1);
                    assert!(length > self.form.overhead);
                    let is_alert = record[0] == 21;
                    assert!(is_alert || (record[0] == HANDSHAKE && !self.guard.is_complete()));
                }
            }
        }
    }

    fn check_plain(&mut self, record: &[u8]) {
        assert!(!self.guard.is_complete(), "plaintext after completion");
        let mut sequence = [0; 8];
        sequence[2..].copy_from_slice(&record[5..11]);
        assert_eq!(u64::from_be_bytes(sequence), self.sequence);
        self.sequence += 1;
        assert!(record[0] == 20 || record[0] == HANDSHAKE);
        if record[0] == HANDSHAKE {
            let header = &record[HEADER..][..12];
            assert_eq!(u16::from_be_bytes([header[4], header[5]]), self.message);
            self.message += 1;
            assert_eq!(header[6..9], [0; 3], "a message begins at its beginning");
            assert_eq!(header[1..4], header[9..12], "and is whole");
            let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
            assert_eq!(record.len(), HEADER + 12 + length as usize);
        }
    }

    fn complete(&mut self, is_13: bool) {
        self.form.has_13 &= is_13;
        self.guard.complete(self.form.has_13);
    }

    fn repeat(&mut self) {
        let flight = self.guard.repeat(self.now);
        assert!(flight.len() <= limit::DTLS_FLIGHT_DATAGRAMS.get());
        self.repetitions += u64::from(!flight.is_empty());
        assert!(self.repetitions <= limit::DTLS_REPEATS.value);
    }
}
