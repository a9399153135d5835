//! Our SRTP against `webrtc-srtp`, which shares no code with it, both ways and in every suite.

use base::{Random, SeededRandom};
use rtp::sdes::{KeySalt, Suite};
use webrtc_srtp::context::Context as Peer;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;

const SSRC: u32 = 0x1122_3344;

fn peer(keys: &KeySalt) -> Peer {
    let profile = match keys.suite() {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    Peer::new(
        keys.key(),
        keys.salt(),
        profile,
        Some(srtp_replay_protection(64)),
        Some(srtcp_replay_protection(64)),
    )
    .unwrap()
}

fn each_suite(mut test: impl FnMut(Suite, KeySalt)) {
    for suite in Suite::PREFERENCE {
        test(suite, KeySalt::generate(suite, &mut SeededRandom::new(suite as u64)));
    }
}

fn rtp(sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend((0..payload).map(|at| (at as u8).wrapping_mul(sequence as u8)));
    packet
}

/// A sender report without blocks, and a description.
fn rtcp(fill: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend(SSRC.to_be_bytes());
    packet.extend([fill; 20]);
    packet
}

fn protect(sender: &mut Sender, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + OVERHEAD, 0);
    let length = sender.protect_rtp(&mut packet, plain.len()).unwrap();
    packet.truncate(length);
    packet
}

fn unprotect(receiver: &mut Receiver, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = packet.to_vec();
    let length = receiver.unprotect_rtp(&mut packet)?.length;
    packet.truncate(length);
    Ok(packet)
}

#[test]
fn an_independent_peer_reads_what_we_protect() {
    each_suite(|suite, keys| {
        let (mut ours, mut theirs) = (Sender::new(suite, &keys).unwrap(), peer(&keys));
        for sequence in 0..300 {
            let plain = rtp(sequence, 160);
            let packet = protect(&mut ours, &plain);
            assert_eq!(theirs.decrypt_rtp(&packet).unwrap().to_vec(), plain, "{suite}");
        }
        for fill in 0..5 {
            let mut packet = rtcp(fill);
            packet.resize(28 + OVERHEAD, 0);
            let length = ours.protect_rtcp(&mut packet, 28).unwrap();
            assert_eq!(theirs.decrypt_rtcp(&packet[..length]).unwrap().to_vec(), rtcp(fill));
        }
    });
}

#[test]
fn we_read_what_an_independent_peer_protects() {
    each_suite(|suite, keys| {
        let (mut ours, mut theirs) = (Receiver::new(suite, &keys).unwrap(), peer(&keys));
        for sequence in 0..300 {
            let plain = rtp(sequence, 20);
            let packet = theirs.encrypt_rtp(&plain).unwrap();
            assert_eq!(unprotect(&mut ours, &packet).unwrap(), plain, "{suite}");
        }
        for fill in 0..5 {
            let mut packet = theirs.encrypt_rtcp(&rtcp(fill)).unwrap().to_vec();
            let (length, newest) = ours.unprotect_rtcp(&mut packet).unwrap();
            assert!(newest);
            assert_eq!(packet[..length], rtcp(fill));
        }
    });
}

#[test]
fn three_roll_overs_with_reordering_lose_nothing() {
    each_suite(|suite, keys| {
        let mut random = SeededRandom::new(9);
        let (mut theirs, mut ours) = (peer(&keys), Receiver::new(suite, &keys).unwrap());
        let mut back = Sender::new(suite, &keys).unwrap();
        let mut listener = peer(&keys);
        let mut held: Vec<(u64, Vec<u8>)> = Vec::new();
        let last = 3 * 65_536 + 2_000;
        // Close steps around each roll-over, wider ones between, yet eight within the window.
        let mut index = 30_000;
        while index < last {
            let plain = rtp(index as u16, 4);
            held.push((index, theirs.encrypt_rtp(&plain).unwrap().to_vec()));
            let back = protect(&mut back, &plain);
            assert!(listener.decrypt_rtp(&back).is_ok(), "{suite} {index}");
            if held.len() == 8 || index == last - 1 {
                while !held.is_empty() {
                    let (at, mut packet) =
                        held.swap_remove(random.below(held.len() as u32) as usize);
                    let seen = ours.unprotect_rtp(&mut packet).unwrap();
                    assert_eq!(seen.index, at, "{suite}");
                }
            }
            let near = (index + 1_000) % 65_536 < 2_000;
            index += if near || index + 1_000 >= last { 1 } else { 15 };
        }
    });
}

#[test]
fn forged_and_replayed_packets_are_refused_and_change_nothing() {
    each_suite(|suite, keys| {
        let mut sender = Sender::new(suite, &keys).unwrap();
        let mut receiver = Receiver::new(suite, &keys).unwrap();
        let good = protect(&mut sender, &rtp(100, 50));
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 1;
            assert!(receiver.unprotect_rtp(&mut forged).is_err(), "{suite} byte {at}");
        }
        assert_eq!(receiver.state(), ContextState::default());
        assert!(unprotect(&mut receiver, &good).is_ok());
        assert_eq!(unprotect(&mut receiver, &good), Err(SrtpError::Replayed));
        let mut far = rtp(20_000, 60);
        assert_eq!(receiver.unprotect_rtp(&mut far), Err(SrtpError::NotAuthentic));
        let next = protect(&mut sender, &rtp(101, 50));
        assert!(unprotect(&mut receiver, &next).is_ok());
    });
}

#[test]
fn a_context_that_moves_goes_on_where_it_was() {
    each_suite(|suite, keys| {
        let mut sender = Sender::new(suite, &keys).unwrap();
        let mut receiver = Receiver::new(suite, &keys).unwrap();
        let mut packets: Vec<Vec<u8>> = Vec::new();
        for index in 65_500..65_600u32 {
            let packet = protect(&mut sender, &rtp(index as u16, 8));
            assert!(unprotect(&mut receiver, &packet).is_ok());
            packets.push(packet);
        }
        let mut moved = Receiver::resume(suite, &keys, receiver.state()).unwrap();
        let mut sender = Sender::resume(suite, &keys, sender.state()).unwrap();
        for old in &packets {
            assert_eq!(unprotect(&mut moved, old), Err(SrtpError::Replayed));
        }
        let mut again = rtp(65_599u32 as u16, 8);
        again.resize(20 + OVERHEAD, 0);
        assert_eq!(sender.protect_rtp(&mut again, 20), Err(SrtpError::Replayed));
        let next = protect(&mut sender, &rtp(65_600u32 as u16, 8));
        assert!(unprotect(&mut moved, &next).is_ok());
    });
}

#[test]
fn no_bytes_make_it_panic() {
    each_suite(|suite, keys| {
        let mut receiver = Receiver::new(suite, &keys).unwrap();
        let mut random = SeededRandom::new(3);
        for _ in 0..20_000 {
            let mut packet = vec![0; random.below(60) as usize];
            random.fill(&mut packet);
            if let Some(first) = packet.first_mut() {
                *first = *first & 0x3f | 0x80;
            }
            assert!(receiver.unprotect_rtp(&mut packet).is_err());
            assert!(receiver.unprotect_rtcp(&mut packet).is_err());
        }
        assert_eq!(receiver.state(), ContextState::default());
    });
}

#[test]
fn a_key_of_another_suite_is_refused() {
    let keys = KeySalt::generate(Suite::AeadAes128Gcm, &mut SeededRandom::new(1));
    assert_eq!(Sender::new(Suite::AesCm128HmacSha1_80, &keys).err(), Some(SrtpError::BadKey));
}
