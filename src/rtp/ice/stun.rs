//! STUN messages as ICE uses them (RFC 8489, RFC 8445): read in place, written into a buffer.
//! Nothing here allocates.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const INTEGRITY_TAG: usize = 20;
/// RFC 8489 section 14.7.
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// The largest answer that [`super::lite`] writes, in bytes.
pub const ANSWER_BYTES: usize = 128;

mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802a;
}

/// What kind of message it is (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Indication,
    /// The answer.
    Success,
    /// The answer that it cannot be done.
    Error,
}

/// Which side of ICE a peer says it is (RFC 8445 section 7.1.2), with its tie-breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It nominates.
    Controlling(u64),
    /// It waits for the other's choice.
    Controlled(u64),
}

/// Bytes that are no STUN message of the method Binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a STUN binding message")]
pub struct NotBinding;

/// A binding message whose lengths are right; nothing else of it has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    raw: &'a [u8],
    class: Class,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`NotBinding`] for another protocol or method, and where a length is wrong.
    pub fn parse(raw: &'a [u8]) -> Result<Self, NotBinding> {
        let (head, body) = raw.split_at_checked(HEADER).ok_or(NotBinding)?;
        let kind = u16_at(head, 0).ok_or(NotBinding)?;
        // RFC 8489 section 5: class bits 4 and 8, the method Binding is 1.
        let class = match kind {
            0x0001 => Class::Request,
            0x0011 => Class::Indication,
            0x0101 => Class::Success,
            0x0111 => Class::Error,
            _ => return Err(NotBinding),
        };
        let length = usize::from(u16_at(head, 2).ok_or(NotBinding)?);
        if head.get(4..8) != Some(&MAGIC_COOKIE) || length != body.len() || length % 4 != 0 {
            return Err(NotBinding);
        }
        let message = Self { raw, class };
        let mut attributes = message.attributes();
        attributes.by_ref().for_each(drop);
        if attributes.rest.is_empty() { Ok(message) } else { Err(NotBinding) }
    }

    /// What kind of message it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The transaction id, which the answer repeats.
    #[must_use]
    pub fn transaction(&self) -> [u8; 12] {
        let mut id = [0; 12];
        id.iter_mut().zip(self.raw.iter().skip(8)).for_each(|(to, from)| *to = *from);
        id
    }

    /// `USERNAME`: of a check, who is asked, a colon, and who asks (RFC 8445 section 7.2.2).
    #[must_use]
    pub fn username(&self) -> Option<&'a str> {
        core::str::from_utf8(self.protected(attribute::USERNAME)?).ok()
    }

    /// `PRIORITY` of the peer-reflexive candidate that a check would make.
    #[must_use]
    pub fn priority(&self) -> Option<u32> {
        let value = self.protected(attribute::PRIORITY)?;
        value.try_into().ok().map(u32::from_be_bytes)
    }

    /// Whether the pair is nominated by this check.
    #[must_use]
    pub fn uses_candidate(&self) -> bool {
        self.protected(attribute::USE_CANDIDATE).is_some()
    }

    /// The role that the peer says it has.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        let breaker = |kind| Some(u64::from_be_bytes(self.protected(kind)?.try_into().ok()?));
        breaker(attribute::ICE_CONTROLLING)
            .map(Role::Controlling)
            .or_else(|| breaker(attribute::ICE_CONTROLLED).map(Role::Controlled))
    }

    /// The code of an error answer, 300 to 699.
    #[must_use]
    pub fn error_code(&self) -> Option<u16> {
        let value = self.protected(attribute::ERROR_CODE)?;
        let (class, number) = (*value.get(2)? & 7, *value.get(3)?);
        (number < 100).then(|| u16::from(class) * 100 + u16::from(number))
    }

    /// `XOR-MAPPED-ADDRESS` of an answer.
    #[must_use]
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        let value = self.protected(attribute::XOR_MAPPED_ADDRESS)?;
        let port = u16_at(value, 2)? ^ 0x2112;
        let mask = self.raw.get(4..HEADER)?;
        let (family, address) = (*value.get(1)?, value.get(4..)?);
        let ip = match family {
            1 => IpAddr::V4(Ipv4Addr::from(unmask::<4>(address, mask)?)),
            2 => IpAddr::V6(Ipv6Addr::from(unmask::<16>(address, mask)?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The first attribute that must be understood and is not, of those that the integrity covers
    /// (RFC 8489 section 6.3).
    #[must_use]
    pub fn unknown(&self) -> Option<u16> {
        self.covered().map(|(kind, _)| kind).find(|kind| {
            *kind < 0x8000
                && !matches!(
                    *kind,
                    attribute::USERNAME
                        | attribute::MESSAGE_INTEGRITY
                        | attribute::MESSAGE_INTEGRITY_SHA256
                        | attribute::ERROR_CODE
                        | attribute::UNKNOWN_ATTRIBUTES
                        | attribute::XOR_MAPPED_ADDRESS
                        | attribute::PRIORITY
                        | attribute::USE_CANDIDATE
                )
        })
    }

    /// Whether the message carries `MESSAGE-INTEGRITY` under this key (RFC 8489 section 14.5; the
    /// key of ICE is the password itself), and a right `FINGERPRINT`, if any.
    #[must_use]
    pub fn is_signed_with(&self, key: &[u8]) -> bool {
        let mut is_signed = false;
        for (at, kind, value) in self.attributes() {
            match kind {
                attribute::MESSAGE_INTEGRITY if !is_signed => {
                    if !self.has_tag(at, key, value) {
                        return false;
                    }
                    is_signed = true;
                }
                attribute::FINGERPRINT => {
                    let text = self.raw.get(..at).unwrap_or_default();
                    return is_signed && value == fingerprint(text).to_be_bytes();
                }
                _ => {}
            }
        }
        is_signed
    }

    fn has_tag(&self, at: usize, key: &[u8], tag: &[u8]) -> bool {
        // The length in the header counts up to the end of this attribute.
        let Some((head, text)) = self.raw.get(..at).and_then(|text| text.split_at_checked(4))
        else {
            return false;
        };
        let Some(length) = u16::try_from(at - HEADER + 4 + INTEGRITY_TAG).ok() else {
            return false;
        };
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else { return false };
        mac.update(head.get(..2).unwrap_or_default());
        mac.update(&length.to_be_bytes());
        mac.update(text);
        mac.verify_slice(tag).is_ok()
    }

    /// The value of an attribute that the integrity covers.
    fn protected(&self, wanted: u16) -> Option<&'a [u8]> {
        self.covered().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Attributes up to the integrity: what follows it counts for nothing (RFC 8489 section 14.5).
    fn covered(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        self.attributes()
            .map(|(_, kind, value)| (kind, value))
            .take_while(|(kind, _)| *kind != attribute::MESSAGE_INTEGRITY)
    }

    fn attributes(&self) -> Attributes<'a> {
        Attributes { at: HEADER, rest: self.raw.get(HEADER..).unwrap_or_default() }
    }
}

/// Attributes in order: where each begins in the message, its type and its value.
struct Attributes<'a> {
    at: usize,
    /// What is left; empty at a right end.
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (usize, u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length) = (u16_at(self.rest, 0)?, usize::from(u16_at(self.rest, 2)?));
        let value = self.rest.get(4..4 + length)?;
        let whole = 4 + length.next_multiple_of(4);
        let rest = self.rest.get(whole..)?;
        let at = self.at;
        (self.at, self.rest) = (at + whole, rest);
        Some((at, kind, value))
    }
}

/// Writes a message from its head to its fingerprint.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    fits: bool,
}

impl<'a> Writer<'a> {
    /// Begins a binding message.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], class: Class, transaction: [u8; 12]) -> Self {
        let kind: u16 = match class {
            Class::Request => 0x0001,
            Class::Indication => 0x0011,
            Class::Success => 0x0101,
            Class::Error => 0x0111,
        };
        let mut writer = Self { buffer, length: 0, fits: true };
        writer.put(&kind.to_be_bytes());
        writer.put(&[0, 0]);
        writer.put(&MAGIC_COOKIE);
        writer.put(&transaction);
        writer
    }

    /// `USERNAME`.
    pub fn username(&mut self, asked: &str, asking: &str) {
        let length = asked.len() + 1 + asking.len();
        self.head(attribute::USERNAME, length);
        self.put(asked.as_bytes());
        self.put(b":");
        self.put(asking.as_bytes());
        self.pad(length);
    }

    /// `PRIORITY`.
    pub fn priority(&mut self, priority: u32) {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes());
    }

    /// `USE-CANDIDATE`.
    pub fn use_candidate(&mut self) {
        self.attribute(attribute::USE_CANDIDATE, &[]);
    }

    /// Our role.
    pub fn role(&mut self, role: Role) {
        let (kind, breaker) = match role {
            Role::Controlling(breaker) => (attribute::ICE_CONTROLLING, breaker),
            Role::Controlled(breaker) => (attribute::ICE_CONTROLLED, breaker),
        };
        self.attribute(kind, &breaker.to_be_bytes());
    }

    /// `ERROR-CODE` without a phrase.
    pub fn error_code(&mut self, code: u16) {
        let (class, number) = ((code / 100) as u8 & 7, (code % 100) as u8);
        self.attribute(attribute::ERROR_CODE, &[0, 0, class, number]);
    }

    /// `UNKNOWN-ATTRIBUTES`.
    pub fn unknown_attribute(&mut self, kind: u16) {
        self.attribute(attribute::UNKNOWN_ATTRIBUTES, &kind.to_be_bytes());
    }

    /// `XOR-MAPPED-ADDRESS`.
    pub fn mapped_address(&mut self, address: SocketAddr) {
        let mut mask = [0; 16];
        let id = self.buffer.get(4..HEADER).unwrap_or_default();
        mask.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
        let port = (address.port() ^ 0x2112).to_be_bytes();
        let mut value = [0; 20];
        let (family, octets) = match address.ip() {
            IpAddr::V4(ip) => (1, 4 + write_masked(&mut value, &ip.octets(), &mask)),
            IpAddr::V6(ip) => (2, 4 + write_masked(&mut value, &ip.octets(), &mask)),
        };
        [value[1], value[2], value[3]] = [family, port[0], port[1]];
        self.attribute(attribute::XOR_MAPPED_ADDRESS, value.get(..octets).unwrap_or_default());
    }

    /// Signs what was written, if with a key, adds the fingerprint and returns the whole length.
    /// `None` where the buffer is too small.
    #[must_use]
    pub fn finish(mut self, key: Option<&[u8]>) -> Option<usize> {
        if let Some(key) = key {
            self.set_length(4 + INTEGRITY_TAG);
            let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
            mac.update(self.buffer.get(..self.length)?);
            let tag = mac.finalize().into_bytes();
            self.attribute(attribute::MESSAGE_INTEGRITY, &tag);
        }
        self.set_length(8);
        let sum = fingerprint(self.buffer.get(..self.length)?);
        self.attribute(attribute::FINGERPRINT, &sum.to_be_bytes());
        self.fits.then_some(self.length)
    }

    /// Writes the length that the message will have with `more` bytes.
    fn set_length(&mut self, more: usize) {
        let length = (self.length + more).saturating_sub(HEADER);
        let bytes = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        match self.buffer.get_mut(2..4) {
            Some(field) => field.copy_from_slice(&bytes),
            None => self.fits = false,
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.head(kind, value.len());
        self.put(value);
        self.pad(value.len());
    }

    fn head(&mut self, kind: u16, length: usize) {
        self.put(&kind.to_be_bytes());
        match u16::try_from(length) {
            Ok(length) => self.put(&length.to_be_bytes()),
            Err(_) => self.fits = false,
        }
    }

    fn pad(&mut self, length: usize) {
        let padding = length.next_multiple_of(4) - length;
        self.put([0; 3].get(..padding).unwrap_or_default());
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.length..self.length + bytes.len()) {
            Some(place) if self.fits => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            _ => self.fits = false,
        }
    }
}

fn fingerprint(text: &[u8]) -> u32 {
    CRC.checksum(text) ^ FINGERPRINT_XOR
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn unmask<const N: usize>(bytes: &[u8], mask: &[u8]) -> Option<[u8; N]> {
    let mut out: [u8; N] = bytes.try_into().ok()?;
    out.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    Some(out)
}

/// Writes `octets` behind the first four bytes of `value`; returns how many.
fn write_masked(value: &mut [u8; 20], octets: &[u8], mask: &[u8; 16]) -> usize {
    let masked = octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask);
    value.iter_mut().skip(4).zip(masked).for_each(|(to, byte)| *to = byte);
    octets.len()
}

#[cfg(test)]
#[path = "stun_tests.rs"]
mod tests;
