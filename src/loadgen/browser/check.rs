//! ICE checks of the controlling side (RFC 8445 section 7.2), and whether they go on being
//! answered (RFC 7675).

use std::time::Duration;

use base::{Instant, Random};
use rtp::ice::stun::{Class, Message, Role, Writer};

use super::{Credentials, Failure};

/// Of a host candidate that is peer-reflexive to the far end (RFC 8445 section 5.1.2).
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;
/// Room for a check with the longest names.
const CHECK_BYTES: usize = 700;
/// Between two checks once the path stands (RFC 7675 section 5.1 has four to six seconds).
const EVERY_MS: u32 = 5_000;

/// A check that nominates the pair it travels on; empty where the names are longer than may be.
#[must_use]
pub fn check(ours: &Credentials, theirs: &Credentials, transaction: [u8; 12]) -> Vec<u8> {
    let mut bytes = vec![0; CHECK_BYTES];
    let mut writer = Writer::new(&mut bytes, Class::Request, transaction);
    writer.username(&theirs.ufrag, &ours.ufrag);
    writer.priority(PRIORITY);
    writer.role(Role::Controlling(1));
    writer.use_candidate();
    let length = writer.finish(Some(theirs.pwd.expose().as_bytes()));
    bytes.truncate(length.unwrap_or(0));
    bytes
}

/// What an answer to a check says: `None` where it is none of the far end's.
pub(super) fn answer(
    theirs: &Credentials,
    datagram: &[u8],
    transaction: [u8; 12],
) -> Option<Result<(), Failure>> {
    let message = Message::parse(datagram).ok()?;
    if message.transaction() != transaction {
        return None;
    }
    let is_signed = message.is_signed_with(theirs.pwd.expose().as_bytes());
    match message.class() {
        Class::Success if is_signed => Some(Ok(())),
        Class::Error => message.error_code().map(|code| Err(Failure::Refused(code))),
        _ => None,
    }
}

/// Keeps a path open: a check now and then, and the count of those that were answered.
#[derive(Clone, Debug)]
pub struct Checks {
    ours: Credentials,
    theirs: Credentials,
    next: Instant,
    last: Option<[u8; 12]>,
    /// Checks sent and checks answered.
    counts: (u64, u64),
}

impl Checks {
    /// The first one is due after a few seconds, for the path has just been checked.
    #[must_use]
    pub fn new(now: Instant, ours: Credentials, theirs: Credentials) -> Self {
        let next = now + Duration::from_millis(u64::from(EVERY_MS) / 2);
        Self { ours, theirs, next, last: None, counts: (0, 0) }
    }

    /// The check that is due.
    pub fn poll(&mut self, now: Instant, random: &mut dyn Random) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        let spread = EVERY_MS * 4 / 5 + random.below(EVERY_MS * 2 / 5);
        self.next = now + Duration::from_millis(u64::from(spread));
        let mut transaction = [0; 12];
        random.fill(&mut transaction);
        self.last = Some(transaction);
        self.counts.0 += 1;
        Some(check(&self.ours, &self.theirs, transaction))
    }

    /// Takes a STUN message of the far end; whether it is a right answer.
    pub fn receive(&mut self, datagram: &[u8]) -> bool {
        let Some(transaction) = self.last else { return false };
        let is_right = answer(&self.theirs, datagram, transaction) == Some(Ok(()));
        if is_right {
            self.last = None;
            self.counts.1 += 1;
        }
        is_right
    }

    /// Checks sent, and checks answered.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use base::SeededRandom;

    use super::*;

    fn credentials(seed: u64) -> Credentials {
        Credentials::random(&mut SeededRandom::new(seed))
    }

    fn reply(class: Class, transaction: [u8; 12], key: &Credentials) -> Vec<u8> {
        let mut bytes = vec![0; 200];
        let mut writer = Writer::new(&mut bytes, class, transaction);
        writer.mapped_address(([192, 0, 2, 1], 4_000).into());
        if class == Class::Error {
            writer.error_code(487);
        }
        let length = writer.finish(Some(key.pwd.expose().as_bytes())).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_check_nominates_and_only_a_signed_answer_to_it_counts() {
        let (ours, theirs) = (credentials(1), credentials(2));
        let sent = check(&ours, &theirs, [7; 12]);
        let message = Message::parse(&sent).unwrap();
        assert!(message.uses_candidate() && message.is_signed_with(theirs.pwd.expose().as_bytes()));
        assert_eq!(message.username(), Some(&*format!("{}:{}", theirs.ufrag, ours.ufrag)));
        let good = reply(Class::Success, [7; 12], &theirs);
        assert_eq!(answer(&theirs, &good, [7; 12]), Some(Ok(())));
        assert_eq!(answer(&theirs, &good, [8; 12]), None);
        assert_eq!(answer(&theirs, &reply(Class::Success, [7; 12], &ours), [7; 12]), None);
        let refused = reply(Class::Error, [7; 12], &theirs);
        assert_eq!(answer(&theirs, &refused, [7; 12]), Some(Err(Failure::Refused(487))));
    }

    #[test]
    fn a_path_is_checked_each_few_seconds() {
        let (ours, theirs) = (credentials(1), credentials(2));
        let mut random = SeededRandom::new(3);
        let mut checks = Checks::new(Instant::ZERO, ours, theirs.clone());
        let mut sent = 0;
        for second in 0..60 {
            let now = Instant::ZERO + Duration::from_secs(second);
            let Some(check) = checks.poll(now, &mut random) else { continue };
            sent += 1;
            let transaction = Message::parse(&check).unwrap().transaction();
            let good = reply(Class::Success, transaction, &theirs);
            assert!(checks.receive(&good) && !checks.receive(&good));
        }
        assert!((9..=15).contains(&sent), "{sent} in a minute");
        assert_eq!(checks.counts(), (sent, sent));
    }
}
