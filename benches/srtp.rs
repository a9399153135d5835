//! SRTP of a packet of 20 ms of G.711: ours, the peer's, and the bare cryptography.

use divan::Bencher;
use relay::srtp::{Receiver, Sender};
use rtp::sdes::Suite;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::crypto::{Floor, PACKET, keys, packets};

const SUITES: [Suite; 3] = [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];

#[divan::bench(args = SUITES)]
fn protect(bencher: Bencher<'_, '_>, suite: Suite) {
    let Ok(mut sender) = Sender::new(suite, &keys(suite)) else { return };
    bencher
        .with_inputs(packets())
        .bench_local_refs(|packet| sender.protect_rtp(&mut packet[..], PACKET).is_ok());
}

#[divan::bench(args = SUITES)]
fn unprotect(bencher: Bencher<'_, '_>, suite: Suite) {
    let keys = keys(suite);
    let (Ok(mut sender), Ok(mut receiver)) =
        (Sender::new(suite, &keys), Receiver::new(suite, &keys))
    else {
        return;
    };
    let mut next = packets();
    let protected = move || {
        let mut packet = next();
        let length = sender.protect_rtp(&mut packet, PACKET).unwrap_or(0);
        (packet, length)
    };
    bencher.with_inputs(protected).bench_local_refs(|(packet, length)| {
        receiver.unprotect_rtp(&mut packet[..*length]).is_ok()
    });
}

fn webrtc(suite: Suite, replay: bool) -> Option<Context> {
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
            ProtectionProfile::Aes128CmHmacSha1_80
        }
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    let keys = keys(suite);
    let replay = replay.then(|| srtp_replay_protection(64));
    Context::new(keys.key(), keys.salt(), profile, replay, None).ok()
}

#[divan::bench(args = SUITES)]
fn protect_webrtc(bencher: Bencher<'_, '_>, suite: Suite) {
    let Some(mut sender) = webrtc(suite, false) else { return };
    bencher
        .with_inputs(packets())
        .bench_local_refs(|packet| sender.encrypt_rtp(&packet[..PACKET]).is_ok());
}

#[divan::bench(args = SUITES)]
fn unprotect_webrtc(bencher: Bencher<'_, '_>, suite: Suite) {
    let (Some(mut sender), Some(mut receiver)) = (webrtc(suite, false), webrtc(suite, true)) else {
        return;
    };
    let mut next = packets();
    let protected = move || sender.encrypt_rtp(&next()[..PACKET]).unwrap_or_default();
    bencher.with_inputs(protected).bench_local_refs(|packet| receiver.decrypt_rtp(packet).is_ok());
}

/// The cryptography of one packet and nothing else: key stream, tag.
#[divan::bench(args = SUITES)]
fn floor(bencher: Bencher<'_, '_>, suite: Suite) {
    let Some(floor) = Floor::new(suite) else { return };
    bencher.with_inputs(packets()).bench_local_refs(|packet| floor.work(packet));
}
