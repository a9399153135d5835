use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 0x1111_2222,
    fraction_lost: 25,
    lost: -3,
    highest_sequence: 0x0001_0005,
    jitter: 80,
    last_sender_report: 0xaabb_ccdd,
    delay_since_last: 65_536,
};

const SENDER: SenderInfo =
    SenderInfo { ntp: NtpTime(0xaabb_ccdd_eeff_0011), rtp_timestamp: 160, packets: 1, octets: 160 };

fn report(sender: Option<SenderInfo>, blocks: &[ReportBlock], goodbye: bool) -> Vec<u8> {
    let mut out = vec![0; 1500];
    let report = Report { ssrc: 7, sender, blocks, cname: "abc", goodbye };
    let len = report.write(&mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn a_sender_report_is_read_back() {
    let bytes = report(Some(SENDER), &[BLOCK, BLOCK], false);
    let packets: Vec<_> = Compound::parse(&bytes).unwrap().packets().collect();
    let [Rtcp::Report { ssrc: 7, sender, blocks }, Rtcp::SourceDescription(items)] =
        packets.as_slice()
    else {
        panic!("{packets:?}");
    };
    assert_eq!(*sender, Some(SENDER));
    assert!(blocks.clone().eq([BLOCK, BLOCK]));
    assert!(items.clone().eq([(7, CNAME, &b"abc"[..])]));
}

#[test]
fn a_receiver_that_leaves_says_goodbye_in_a_compound() {
    let bytes = report(None, &[], true);
    let packets: Vec<_> = Compound::parse(&bytes).unwrap().packets().collect();
    let [Rtcp::Report { sender: None, .. }, Rtcp::SourceDescription(_), Rtcp::Goodbye(bye)] =
        packets.as_slice()
    else {
        panic!("{packets:?}");
    };
    assert!(bye.ssrcs().eq([7]));
    assert_eq!(bye.reason, None);
}

#[test]
fn every_length_of_name_keeps_the_words_aligned() {
    for len in 1..=255 {
        let cname: alloc::string::String = core::iter::repeat_n('x', len).collect();
        let mut out = [0; 400];
        let report = Report { ssrc: 1, sender: None, blocks: &[], cname: &cname, goodbye: true };
        let written = report.write(&mut out).unwrap();
        let compound = Compound::parse(&out[..written]).unwrap();
        assert_eq!(compound.packets().count(), 3, "{len}");
    }
}

#[test]
fn goodbyes_of_others_carry_reasons_and_several_sources() {
    let bytes = [0x82, 203, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 5, b'd', b'o', b'n', b'e', b'!', 0, 0];
    let Some(Rtcp::Goodbye(bye)) = Compound::parse(&bytes).unwrap().packets().next() else {
        panic!();
    };
    assert!(bye.ssrcs().eq([1, 2]));
    assert_eq!(bye.reason, Some(&b"done!"[..]));
}

#[test]
fn reduced_size_feedback_is_passed_over() {
    let nack = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 5, 0, 0];
    let packets: Vec<_> = Compound::parse(&nack).unwrap().packets().collect();
    assert!(matches!(packets.as_slice(), [Rtcp::Other { packet_type: 205 }]));
}

#[test]
fn contradictions_are_refused() {
    let good = report(Some(SENDER), &[BLOCK], false);
    assert_eq!(Compound::parse(&[]).unwrap_err(), RtcpError::Truncated);
    assert_eq!(Compound::parse(&good[..good.len() - 4]).unwrap_err(), RtcpError::Truncated);
    let mut more_blocks = good.clone();
    more_blocks[0] = 0x80 | 31;
    assert_eq!(Compound::parse(&more_blocks).unwrap_err(), RtcpError::Truncated);
    let mut version = good.clone();
    version[0] = 0x41;
    assert_eq!(Compound::parse(&version).unwrap_err(), RtcpError::NotRtcp);
    let mut padded_first = good.clone();
    padded_first[0] |= 0x20;
    assert_eq!(Compound::parse(&padded_first).unwrap_err(), RtcpError::Padding);
    let mut long = good;
    long.resize(RTP_PACKET_BYTES.get() + 1, 0);
    assert_eq!(Compound::parse(&long).unwrap_err(), RtcpError::TooLong);
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let blocks = [BLOCK; 32];
    let mut report = Report { ssrc: 1, sender: None, blocks: &blocks, cname: "a", goodbye: false };
    assert_eq!(report.write(&mut [0; 1500]), Err(RtcpError::OutOfRange));
    report.blocks = &blocks[..31];
    assert_eq!(report.write(&mut [0; 700]), Err(RtcpError::NoRoom));
    report.cname = "";
    assert_eq!(report.write(&mut [0; 1500]), Err(RtcpError::OutOfRange));
}

#[test]
fn ntp_times_survive_the_round_trip_beyond_2036() {
    for millis in [1, 999, 1_795_392_000_123, 2_085_978_496_000, 2_500_000_000_001] {
        let wall = WallTime::from_unix_millis(millis);
        assert_eq!(NtpTime::from(wall).to_wall(), wall);
    }
}

#[test]
fn the_round_trip_is_what_the_peer_did_not_wait() {
    // RFC 3550 section 6.4.1, figure 2: A 0xb710:8000, LSR 0xb705:2000, DLSR 0x0005:4000.
    let block = ReportBlock {
        last_sender_report: 0xb705_2000,
        delay_since_last: 0x0005_4000,
        ..ReportBlock::default()
    };
    let now = NtpTime(0xb44d_b710_8000_0000);
    assert_eq!(block.round_trip(now), Some(Duration::from_millis(6125)));
    let liar = ReportBlock { delay_since_last: 0x00ff_0000, ..block };
    assert_eq!(liar.round_trip(now), None);
    assert_eq!(ReportBlock::default().round_trip(now), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        kind in 192u8..=210,
        count in 0u8..64,
        mut bytes in prop::collection::vec(any::<u8>(), 4..120),
    ) {
        bytes[0] = 0x80 | count;
        bytes[1] = kind;
        bytes[2] = 0;
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        if let Ok(compound) = Compound::parse(&bytes) {
            for packet in compound.packets() {
                match packet {
                    Rtcp::Report { blocks, .. } => drop(blocks.count()),
                    Rtcp::SourceDescription(items) => drop(items.count()),
                    Rtcp::Goodbye(bye) => drop(bye.ssrcs().count()),
                    Rtcp::Other { .. } => {}
                }
            }
        }
    }
}
