//! What stands between the network and a DTLS library: it walks every datagram's records, puts
//! handshake messages together, and lets through only what an honest peer could have sent at this
//! point. It works the same for every back end; what it does not let through is dropped silently,
//! as RFC 6347 section 4.1.2.7 has it.
//!
//! - Until completion, records and bytes are counted; above the limit the handshake is over.
//!   Messages reach the back end whole, in order and once; records of epoch 0 get new sequence
//!   numbers, which nothing there authenticates.
//! - A peer that repeats itself has not heard our last flight: it gets our copy of it again, after
//!   completion as well, some times and not too often, so that we amplify nothing.
//! - After completion nothing of epoch 0 is let through, and of protected records alerts only:
//!   nobody here waits for application data, and a handshake is not begun anew. In DTLS 1.3 nobody
//!   can tell from outside what a record is, so a few pass: the back end has to acknowledge a last
//!   flight that is repeated, and nothing of ours is wanted again.
//! - Records of DTLS 1.3 pass once the peer's first message is whole: before it nobody has keys,
//!   and a back end that waits for it would take them for a peer it does not understand.
//!
//! It authenticates nothing: that is the library's part.

use std::time::Duration;

use base::{Instant, limit};

use super::assemble::{Assembler, Message, Taken};
use super::record::{
    ALERT, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, Next, Pieces, RECORD_HEADER, Record,
    Records, message_header, offered_profiles, write_record,
};

/// What differs between back ends.
#[derive(Clone, Copy, Debug)]
pub struct GuardForm {
    /// Bytes that protection adds to a record, nonce and tag; a shorter one is no record of ours.
    pub overhead: usize,
    /// Whether records of DTLS 1.3 may pass, until completion tells which version is spoken.
    pub has_13: bool,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing for the back end.
    Nothing,
    /// The back end shall see it.
    News,
    /// The peer repeats itself: [`Guard::repeat`].
    Repetition,
}

/// Why a handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More records or bytes than a handshake needs.
    Flood,
    /// The peer gives up, with this alert.
    Alert(u8),
    /// The ClientHello offers no SRTP protection profile at all.
    NoProfile,
}

/// Datagrams that lie closer together are of one flight.
const FLIGHT_GAP: Duration = Duration::from_millis(100);

/// The guard of one association.
#[derive(Debug)]
pub struct Guard {
    form: GuardForm,
    assembler: Assembler,
    /// Next sequence number of epoch 0, as the back end sees them.
    sequence: u64,
    records: usize,
    bytes: usize,
    is_complete: bool,
    passed: Option<Instant>,
    profiles: Option<Vec<u16>>,
    flight: Flight,
}

/// Our last flight.
#[derive(Debug, Default)]
struct Flight {
    datagrams: Vec<Vec<u8>>,
    sent: Option<Instant>,
    /// The peer has said something new since.
    is_answered: bool,
    repeated: u64,
    repeated_at: Option<Instant>,
}

/// What one datagram becomes.
#[derive(Default)]
struct Passing {
    datagrams: Vec<Vec<u8>>,
    records: usize,
    is_repetition: bool,
}

impl Guard {
    /// A guard at the beginning of a handshake.
    #[must_use]
    pub fn new(form: GuardForm) -> Self {
        Self {
            form,
            assembler: Assembler::default(),
            sequence: 0,
            records: 0,
            bytes: 0,
            is_complete: false,
            passed: None,
            profiles: None,
            flight: Flight::default(),
        }
    }

    /// Looks at a datagram of the peer; what the back end shall see of it is given to `pass`, in
    /// datagrams of whole messages.
    ///
    /// # Errors
    /// [`Refusal`], until completion: the handshake is over.
    pub fn admit(
        &mut self,
        now: Instant,
        datagram: &[u8],
        pass: &mut dyn FnMut(&[u8]),
    ) -> Result<Heard, Refusal> {
        if datagram.len() > limit::DTLS_RECEIVED_BYTES.get() {
            return Ok(Heard::Nothing);
        }
        let mut passing = Passing::default();
        if self.is_complete {
            self.walk_complete(now, datagram, &mut passing);
        } else {
            self.bytes = self.bytes.saturating_add(datagram.len());
            self.walk_handshake(datagram, &mut passing)?;
        }
        passing.datagrams.iter().for_each(|datagram| pass(datagram));
        if passing.datagrams.is_empty() {
            let heard = if passing.is_repetition { Heard::Repetition } else { Heard::Nothing };
            return Ok(heard);
        }
        self.flight.is_answered = true;
        Ok(Heard::News)
    }

    fn walk_handshake(&mut self, datagram: &[u8], passing: &mut Passing) -> Result<(), Refusal> {
        for next in Records(datagram) {
            self.records = self.records.saturating_add(1);
            if self.records > limit::DTLS_HANDSHAKE_RECORDS.get()
                || self.bytes > limit::DTLS_HANDSHAKE_BYTES.get()
            {
                return Err(Refusal::Flood);
            }
            match next {
                Next::Unified(bytes) if self.form.has_13 && self.assembler.has_begun() => {
                    passing.push(bytes);
                }
                Next::Unified(_) => {}
                Next::Record(record) if !is_known_version(record.version) => {}
                // RFC 9147 section 7: nothing that we send in epoch 0 comes in several records, so
                // nobody has to acknowledge any of it there.
                Next::Record(record) => match (record.epoch, record.kind) {
                    (0, HANDSHAKE) => self.handshake(&record, passing)?,
                    (0, CHANGE_CIPHER_SPEC) if record.fragment == [1] => {
                        self.renumber(&record, passing);
                    }
                    (0, ALERT) => self.alert(&record)?,
                    // The peer's Finished, or an alert of a peer that has completed.
                    (1, HANDSHAKE | ALERT) if self.is_protected(&record) => {
                        passing.push(record.bytes);
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn handshake(&mut self, record: &Record<'_>, passing: &mut Passing) -> Result<(), Refusal> {
        for (index, piece) in Pieces(record.fragment).enumerate() {
            // A record of many pieces costs as much as so many records.
            self.records = self.records.saturating_add(usize::from(index > 0));
            if self.records > limit::DTLS_HANDSHAKE_RECORDS.get() {
                return Err(Refusal::Flood);
            }
            passing.is_repetition |= self.assembler.take(&piece) == Taken::Old;
            while let Some(message) = self.assembler.pop() {
                self.message(&message, passing)?;
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &Message, passing: &mut Passing) -> Result<(), Refusal> {
        if message.kind == CLIENT_HELLO {
            let profiles = offered_profiles(&message.body).ok_or(Refusal::NoProfile)?;
            self.profiles = Some(profiles);
        }
        let header = message_header(message.kind, message.number, message.body.len());
        let mut record = Vec::with_capacity(RECORD_HEADER + header.len() + message.body.len());
        let sequence = self.next_sequence();
        write_record(&mut record, HANDSHAKE, sequence, &[&header, &message.body]);
        passing.push(&record);
        Ok(())
    }

    fn renumber(&mut self, record: &Record<'_>, passing: &mut Passing) {
        let mut renumbered = Vec::with_capacity(record.bytes.len());
        let sequence = self.next_sequence();
        write_record(&mut renumbered, record.kind, sequence, &[record.fragment]);
        passing.push(&renumbered);
    }

    const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence - 1
    }

    /// A plaintext alert: whoever has begun and gives up says so without keys. Anybody can forge
    /// it until completion, as RFC 6347 section 4.1.2.7 knows, but not before the peer has begun.
    fn alert(&self, record: &Record<'_>) -> Result<(), Refusal> {
        const FATAL: u8 = 2;
        const CLOSE_NOTIFY: u8 = 0;
        match record.fragment {
            [level, description]
                if self.assembler.has_begun()
                    && (*level == FATAL || *description == CLOSE_NOTIFY) =>
            {
                Err(Refusal::Alert(*description))
            }
            _ => Ok(()),
        }
    }

    const fn is_protected(&self, record: &Record<'_>) -> bool {
        record.fragment.len() > self.form.overhead
    }

    fn walk_complete(&mut self, now: Instant, datagram: &[u8], passing: &mut Passing) {
        // More records are no peer's last words; what is left of them is not looked at.
        for next in Records(datagram).take(limit::DTLS_DATAGRAM_RECORDS.get()) {
            match next {
                Next::Unified(bytes) if self.form.has_13 && self.may_pass(now) => {
                    passing.push(bytes);
                }
                Next::Unified(_) => {}
                Next::Record(record) if !is_known_version(record.version) => {}
                Next::Record(record) => match (record.epoch, record.kind) {
                    (0, HANDSHAKE) if !self.form.has_13 => {
                        passing.is_repetition |= Pieces(record.fragment).next().is_some();
                    }
                    (1, HANDSHAKE) if !self.form.has_13 => {
                        passing.is_repetition |= self.is_protected(&record)
                    }
                    (1, ALERT) if self.is_protected(&record) && self.may_pass(now) => {
                        passing.push(record.bytes);
                    }
                    _ => {}
                },
            }
        }
    }

    /// Whether a protected record may have the back end's time.
    fn may_pass(&mut self, now: Instant) -> bool {
        let may = self.passed.is_none_or(|last| now.since(last) >= limit::DTLS_PASS_MS.millis());
        if may {
            self.passed = Some(now);
        }
        may
    }

    /// The handshake is complete, in DTLS 1.3 or not. What a peer may still ask for of 1.2 begins
    /// with our ChangeCipherSpec; an earlier flight that was repeated at the same moment is not
    /// wanted any more.
    pub fn complete(&mut self, is_13: bool) {
        self.is_complete = true;
        self.form.has_13 = is_13;
        if is_13 {
            return self.flight.datagrams.clear();
        }
        let has_change = |it: &Vec<u8>| {
            Records(it).any(|it| matches!(it, Next::Record(it) if it.kind == CHANGE_CIPHER_SPEC))
        };
        let from = self.flight.datagrams.iter().position(has_change).unwrap_or(0);
        self.flight.datagrams.drain(..from);
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The protection profiles that the peer's latest ClientHello offers.
    #[must_use]
    pub fn offered_profiles(&self) -> Option<&[u16]> {
        self.profiles.as_deref()
    }

    /// Keeps a copy of a datagram that we send.
    pub fn sent(&mut self, now: Instant, datagram: &[u8]) {
        let flight = &mut self.flight;
        let is_next = flight.sent.is_none_or(|last| now.since(last) >= FLIGHT_GAP);
        if flight.is_answered || is_next {
            flight.datagrams.clear();
        }
        flight.is_answered = false;
        flight.sent = Some(now);
        if flight.datagrams.len() < limit::DTLS_FLIGHT_DATAGRAMS.get() {
            flight.datagrams.push(datagram.to_vec());
        }
    }

    /// What answers a repetition: our last flight, or nothing where it was repeated often enough
    /// or just now.
    pub fn repeat(&mut self, now: Instant) -> &[Vec<u8>] {
        let flight = &mut self.flight;
        let pause = limit::DTLS_REPEAT_MS.millis();
        let is_too_soon = flight.repeated_at.is_some_and(|last| now.since(last) < pause)
            || flight.sent.is_some_and(|last| now.since(last) < FLIGHT_GAP);
        if is_too_soon || flight.repeated >= limit::DTLS_REPEATS.value {
            return &[];
        }
        flight.repeated += 1;
        flight.repeated_at = Some(now);
        &flight.datagrams
    }

    /// Bytes of messages that are not whole.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.assembler.waiting_bytes()
    }
}

impl Passing {
    /// Adds a record to what the back end shall see.
    fn push(&mut self, record: &[u8]) {
        let (most, records) = (limit::DTLS_MESSAGE_BYTES.get(), limit::DTLS_DATAGRAM_RECORDS.get());
        match self.datagrams.last_mut() {
            Some(last) if self.records < records && last.len() + record.len() <= most => {
                last.extend_from_slice(record);
                self.records += 1;
            }
            _ => {
                self.datagrams.push(record.to_vec());
                self.records = 1;
            }
        }
    }
}

/// DTLS 1.0, which a ClientHello may be marked as (RFC 6347 section 4.2.1), or 1.2.
const fn is_known_version(version: u16) -> bool {
    matches!(version, 0xfeff | 0xfefd)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod guard_tests;
