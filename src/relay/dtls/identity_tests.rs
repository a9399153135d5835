//! Identities.

use base::SeededRandom;

use super::*;

const WALL: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

#[test]
fn a_certificate_is_known_by_each_of_its_fingerprints_and_no_other_is() {
    let mut random = SeededRandom::new(1);
    let ours = Identity::generate(&mut random, WALL).unwrap();
    let other = Identity::generate(&mut random, WALL).unwrap();
    assert!(is_of(ours.fingerprint(), ours.certificate()));
    assert!(!is_of(ours.fingerprint(), other.certificate()));
    assert!(!is_of(ours.fingerprint(), &[]));
    for hash in [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512] {
        let mut bytes = hash_of(hash, ours.certificate()).as_ref().to_vec();
        assert!(is_of(&Fingerprint::new(hash, bytes.clone()).unwrap(), ours.certificate()));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!is_of(&Fingerprint::new(hash, bytes).unwrap(), ours.certificate()));
    }
}

#[test]
fn nothing_secret_is_printed() {
    let ours = Identity::generate(&mut SeededRandom::new(1), WALL).unwrap();
    let printed = format!("{ours:?}");
    assert_eq!(printed, format!("[identity {}]", ours.fingerprint()));
}

#[test]
fn a_new_identity_takes_the_place_of_the_old_one_after_a_day() {
    let mut random = SeededRandom::new(1);
    let mut now = Instant::ZERO;
    let mut identities = Identities::new(&mut random, now, WALL).unwrap();
    let first = identities.present();
    now += limit::DTLS_IDENTITY_MS.millis() - Duration::from_secs(1);
    assert!(!identities.rotate(&mut random, now, WALL).unwrap());
    assert_eq!(identities.present().fingerprint(), first.fingerprint());
    now = identities.poll_timeout();
    assert!(identities.rotate(&mut random, now, WALL).unwrap());
    let second = identities.present();
    assert_ne!(second.fingerprint(), first.fingerprint());
    // Whoever holds the first one still has all of it.
    assert!(is_of(first.fingerprint(), first.certificate()));
    assert_eq!(identities.poll_timeout(), now + limit::DTLS_IDENTITY_MS.millis());
}
