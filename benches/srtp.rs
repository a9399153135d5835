//! SRTP of a packet of 20 ms of G.711: ours, the peer's, and the bare cryptography.

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use aws_lc_rs::aead;
use base::SeededRandom;
use divan::{Bencher, black_box};
use hmac::{Hmac, Mac};
use relay::srtp::{OVERHEAD, Receiver, Sender};
use rtp::sdes::{KeySalt, Suite};
use sha1::Sha1;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

const SUITES: [Suite; 3] = [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];
const PACKET: usize = 172;
const HEADER: usize = 12;

type Buffer = [u8; PACKET + OVERHEAD];

fn keys(suite: Suite) -> KeySalt {
    KeySalt::generate(suite, &mut SeededRandom::new(1))
}

/// Packets with numbers that follow each other.
fn packets() -> impl FnMut() -> Buffer {
    let mut sequence = 0_u16;
    move || {
        sequence = sequence.wrapping_add(1);
        let mut packet = [0x55; PACKET + OVERHEAD];
        (packet[0], packet[1]) = (0x80, 0);
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&7_u32.to_be_bytes());
        packet
    }
}

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
    let keys = keys(suite);
    let inputs = bencher.with_inputs(packets());
    let algorithm = match suite {
        Suite::AeadAes128Gcm => &aead::AES_128_GCM,
        Suite::AeadAes256Gcm => &aead::AES_256_GCM,
        Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
            let (Ok(aes), Ok(mac)) = (
                Aes128Enc::new_from_slice(keys.key()),
                <Hmac<Sha1> as Mac>::new_from_slice(&[7; 20]),
            ) else {
                return;
            };
            return inputs.bench_local_refs(|packet| counter_mode(&aes, &mac, packet));
        }
    };
    let Ok(key) = aead::UnboundKey::new(algorithm, keys.key()) else { return };
    let key = aead::LessSafeKey::new(key);
    inputs.bench_local_refs(|packet| {
        let (clear, rest) = packet.split_at_mut(HEADER);
        let nonce = aead::Nonce::assume_unique_for_key(black_box([1; 12]));
        let aad = aead::Aad::from(&*clear);
        key.seal_in_place_separate_tag(nonce, aad, &mut rest[..PACKET - HEADER]).is_ok()
    });
}

fn counter_mode(aes: &Aes128Enc, mac: &Hmac<Sha1>, packet: &mut Buffer) -> [u8; 20] {
    let mut blocks = [Block::default(); 10];
    for (counter, block) in (0_u8..).zip(&mut blocks) {
        block[15] = counter;
    }
    aes.encrypt_blocks(&mut blocks);
    let text = packet[HEADER..PACKET].chunks_exact_mut(16);
    for (text, block) in text.zip(&blocks) {
        text.iter_mut().zip(block).for_each(|(text, key)| *text ^= key);
    }
    let mut mac = mac.clone();
    mac.update(&packet[..PACKET]);
    mac.update(&[0; 4]);
    mac.finalize().into_bytes().into()
}
