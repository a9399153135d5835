//! Typed readers and writers of the header fields that a B2BUA lives by. Each reads on demand
//! and says which field is missing, repeated or malformed.

use std::fmt;

use base::limit::SIP_LIST_VALUES;

use crate::header::{Header, Headers, Name};
use crate::lex::{is_token, number, quote, split_list, trim, written};
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::params::Params;
use crate::via::Via;

/// Room for the list of our methods.
const TOKENS_BYTES: usize = 96;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// It must be there and is not.
    Missing,
    /// It may stand once only.
    Repeated,
    /// Its value breaks its grammar.
    Malformed,
    /// Its list is longer than limit `sip.list_values`.
    TooMany,
}

/// Which field is wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {name}", match .fault {
    HeaderFault::Missing => "missing",
    HeaderFault::Repeated => "repeated",
    HeaderFault::Malformed => "malformed",
    HeaderFault::TooMany => "too many values in",
})]
pub struct HeaderError {
    /// The field.
    pub name: Name,
    /// What is wrong with it.
    pub fault: HeaderFault,
}

impl HeaderError {
    pub(crate) const fn new(name: Name, fault: HeaderFault) -> Self {
        Self { name, fault }
    }
}

/// A CSeq value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The number, below 2^31 (RFC 3261 section 8.1.1.5).
    pub number: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// Parses `number method`; `None` where it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, method) = trim(text).split_once([' ', '\t'])?;
        let number: u32 = number(digits).filter(|number| *number < 1 << 31)?;
        Some(Self { number, method: Method::parse(trim(method))? })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// What Contact holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contacts {
    /// `*`: every binding, in a REGISTER that removes them (RFC 3261 section 10.2.2).
    Every,
    /// The addresses, in order; empty where there is no Contact.
    Addresses(Vec<NameAddr>),
}

/// A media type with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// The parameters, `boundary` for instance.
    pub params: Params,
}

impl MediaType {
    /// Parses a Content-Type value; `None` where it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(';').unwrap_or(text.len());
        let (kind, subtype) = text[..end].split_once('/')?;
        let (kind, subtype) = (trim(kind), trim(subtype));
        if !is_token(kind.as_bytes()) || !is_token(subtype.as_bytes()) {
            return None;
        }
        let essence = format!("{kind}/{subtype}").to_ascii_lowercase();
        Some(Self { essence, params: Params::parse(&text[end..])? })
    }
}

/// A Reason value (RFC 3326).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonValue {
    /// `SIP` or `Q.850`, as written.
    pub protocol: String,
    /// The cause code of that protocol.
    pub cause: Option<u16>,
    /// The text for a human.
    pub text: Option<String>,
}

/// Readers.
impl Headers {
    /// The values of all fields of this name, comma lists taken apart (RFC 3261 section 7.3.1).
    ///
    /// # Errors
    /// Malformed where a field is not UTF-8, too many above limit `sip.list_values`.
    pub fn list(&self, name: Name) -> Result<Vec<&str>, HeaderError> {
        let mut values = Vec::new();
        for header in self.all(name) {
            let text = header.text().ok_or(HeaderError::new(name, HeaderFault::Malformed))?;
            for value in split_list(text) {
                if values.len() == SIP_LIST_VALUES.get() {
                    return Err(HeaderError::new(name, HeaderFault::TooMany));
                }
                values.push(value);
            }
        }
        Ok(values)
    }

    /// Whether a list of tokens (Supported, Require, Allow) holds `token`, in any case.
    #[must_use]
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.all(name)
            .filter_map(Header::text)
            .flat_map(split_list)
            .any(|value| value.eq_ignore_ascii_case(token))
    }

    fn one(&self, name: Name) -> Result<&Header, HeaderError> {
        let mut all = self.all(name);
        let first = all.next().ok_or(HeaderError::new(name, HeaderFault::Missing))?;
        match all.next() {
            None => Ok(first),
            Some(_) => Err(HeaderError::new(name, HeaderFault::Repeated)),
        }
    }

    fn one_text(&self, name: Name) -> Result<&str, HeaderError> {
        self.one(name)?.text().ok_or(HeaderError::new(name, HeaderFault::Malformed))
    }

    fn read<T>(
        &self,
        name: Name,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, HeaderError> {
        if !self.has(name) {
            return Ok(None);
        }
        let malformed = HeaderError::new(name, HeaderFault::Malformed);
        parse(self.one_text(name)?).map(Some).ok_or(malformed)
    }

    /// Every Via value, the newest first, several in one field included.
    ///
    /// # Errors
    /// Missing, malformed or too many.
    pub fn vias(&self) -> Result<Vec<Via>, HeaderError> {
        let values = self.list(Name::Via)?;
        if values.is_empty() {
            return Err(HeaderError::new(Name::Via, HeaderFault::Missing));
        }
        let malformed = HeaderError::new(Name::Via, HeaderFault::Malformed);
        values.into_iter().map(|value| Via::parse(value).ok_or(malformed)).collect()
    }

    /// The newest Via value.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn top_via(&self) -> Result<Via, HeaderError> {
        let header =
            self.first(Name::Via).ok_or(HeaderError::new(Name::Via, HeaderFault::Missing))?;
        header
            .text()
            .and_then(|text| split_list(text).next())
            .and_then(Via::parse)
            .ok_or(HeaderError::new(Name::Via, HeaderFault::Malformed))
    }

    fn address(&self, name: Name) -> Result<NameAddr, HeaderError> {
        // A display name that is not UTF-8 is no reason to lose a call.
        NameAddr::parse(&self.one(name)?.lossy())
            .map_err(|_| HeaderError::new(name, HeaderFault::Malformed))
    }

    /// From.
    ///
    /// # Errors
    /// Missing, repeated or malformed.
    pub fn from(&self) -> Result<NameAddr, HeaderError> {
        self.address(Name::From)
    }

    /// To.
    ///
    /// # Errors
    /// Missing, repeated or malformed.
    pub fn to(&self) -> Result<NameAddr, HeaderError> {
        self.address(Name::To)
    }

    /// The tag of From, where there is one.
    #[must_use]
    pub fn from_tag(&self) -> Option<String> {
        self.from().ok().and_then(|from| from.tag().map(str::to_owned))
    }

    /// The tag of To; a request without it is outside any dialog.
    #[must_use]
    pub fn to_tag(&self) -> Option<String> {
        self.to().ok().and_then(|to| to.tag().map(str::to_owned))
    }

    /// Call-ID.
    ///
    /// # Errors
    /// Missing, repeated, not UTF-8, empty or with white space in it.
    pub fn call_id(&self) -> Result<&str, HeaderError> {
        let text = self.one_text(Name::CallId)?;
        if text.is_empty() || text.contains([' ', '\t']) {
            return Err(HeaderError::new(Name::CallId, HeaderFault::Malformed));
        }
        Ok(text)
    }

    /// CSeq.
    ///
    /// # Errors
    /// Missing, repeated or malformed.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        let malformed = HeaderError::new(Name::CSeq, HeaderFault::Malformed);
        CSeq::parse(self.one_text(Name::CSeq)?).ok_or(malformed)
    }

    /// Every address of a list field: Route, Record-Route, Path, P-Asserted-Identity, Diversion.
    ///
    /// # Errors
    /// Malformed or too many.
    pub fn addresses(&self, name: Name) -> Result<Vec<NameAddr>, HeaderError> {
        let mut addresses = Vec::new();
        for header in self.all(name) {
            for value in split_list(&header.lossy()) {
                if addresses.len() == SIP_LIST_VALUES.get() {
                    return Err(HeaderError::new(name, HeaderFault::TooMany));
                }
                let address = NameAddr::parse(value);
                addresses
                    .push(address.map_err(|_| HeaderError::new(name, HeaderFault::Malformed))?);
            }
        }
        Ok(addresses)
    }

    /// The Route values, in order.
    ///
    /// # Errors
    /// Malformed or too many.
    pub fn routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.addresses(Name::Route)
    }

    /// The Record-Route values, in order.
    ///
    /// # Errors
    /// Malformed or too many.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.addresses(Name::RecordRoute)
    }

    /// Contact in all its forms.
    ///
    /// # Errors
    /// Malformed or too many; `*` beside an address is malformed.
    pub fn contacts(&self) -> Result<Contacts, HeaderError> {
        if self.list(Name::Contact).is_ok_and(|values| values == ["*"]) {
            return Ok(Contacts::Every);
        }
        self.addresses(Name::Contact).map(Contacts::Addresses)
    }

    /// The first Contact address: the remote target of a dialog.
    ///
    /// # Errors
    /// Missing (`*` included) or malformed.
    pub fn contact(&self) -> Result<NameAddr, HeaderError> {
        let missing = HeaderError::new(Name::Contact, HeaderFault::Missing);
        match self.contacts()? {
            Contacts::Every => Err(missing),
            Contacts::Addresses(addresses) => addresses.into_iter().next().ok_or(missing),
        }
    }

    /// Max-Forwards; `None` where it is left out, as RFC 2543 allowed.
    ///
    /// # Errors
    /// Repeated, or no number up to 255 (RFC 3261 section 20.22).
    pub fn max_forwards(&self) -> Result<Option<u8>, HeaderError> {
        self.read(Name::MaxForwards, number)
    }

    /// Content-Length; several equal ones count as one (RFC 3261 section 20.14 has one value,
    /// and two different ones are how messages are smuggled).
    ///
    /// # Errors
    /// Malformed (a sign, a list, overflow), repeated where two differ.
    pub fn content_length(&self) -> Result<Option<usize>, HeaderError> {
        let mut found = None;
        for header in self.all(Name::ContentLength) {
            let length = header
                .text()
                .and_then(number::<usize>)
                .ok_or(HeaderError::new(Name::ContentLength, HeaderFault::Malformed))?;
            if found.is_some_and(|earlier| earlier != length) {
                return Err(HeaderError::new(Name::ContentLength, HeaderFault::Repeated));
            }
            found = Some(length);
        }
        Ok(found)
    }

    /// Content-Type.
    ///
    /// # Errors
    /// Repeated or malformed.
    pub fn content_type(&self) -> Result<Option<MediaType>, HeaderError> {
        self.read(Name::ContentType, MediaType::parse)
    }

    /// A field that holds seconds, with or without parameters and a comment: Expires,
    /// Session-Expires, Min-SE, Retry-After.
    ///
    /// # Errors
    /// Repeated, or does not begin with a number below 2^32.
    pub fn seconds(&self, name: Name) -> Result<Option<u32>, HeaderError> {
        self.read(name, |text| {
            let end = text.find([';', ' ', '\t', '(']).unwrap_or(text.len());
            number(&text[..end])
        })
    }

    /// The Reason values (RFC 3326); malformed ones are left out.
    #[must_use]
    pub fn reasons(&self) -> Vec<ReasonValue> {
        let read = |value: &str| {
            let end = value.find(';').unwrap_or(value.len());
            let params = Params::parse(&value[end..])?;
            Some(ReasonValue {
                protocol: trim(&value[..end]).to_owned(),
                cause: params.value("cause").and_then(number),
                text: params.unquoted("text").map(std::borrow::Cow::into_owned),
            })
        };
        self.list(Name::Reason).unwrap_or_default().into_iter().filter_map(read).collect()
    }
}

/// Writers.
impl Headers {
    /// Adds a list of tokens: Allow, Supported, Unsupported, Accept.
    pub fn push_tokens<T: AsRef<str>>(&mut self, name: Name, tokens: impl IntoIterator<Item = T>) {
        let mut list = String::with_capacity(TOKENS_BYTES);
        for token in tokens {
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(token.as_ref());
        }
        self.push(name, list);
    }

    /// Adds a Warning with the miscellaneous code 399 (RFC 3261 section 20.43); `agent` is the
    /// host or pseudonym that warns.
    pub fn push_warning(&mut self, agent: &str, text: &str) {
        let agent = if is_token(agent.as_bytes()) { agent } else { "callgate" };
        self.push(Name::Warning, format!("399 {agent} {}", quote(text)));
    }

    /// Adds a Reason (RFC 3326); `protocol` is `SIP` or `Q.850`.
    pub fn push_reason(&mut self, protocol: &str, cause: u16, text: &str) {
        let protocol = if is_token(protocol.as_bytes()) { protocol } else { "SIP" };
        self.push(Name::Reason, format!("{protocol};cause={cause};text={}", quote(text)));
    }

    /// Sets Retry-After, in whole seconds.
    pub fn set_retry_after(&mut self, seconds: u32) {
        self.set(Name::RetryAfter, seconds.to_string());
    }

    /// Puts a Via of ours on top.
    pub fn push_via(&mut self, via: &Via) {
        self.prepend(Name::Via, written(via));
    }

    /// Changes the newest Via value and leaves the other values of its field as they were;
    /// nothing happens where there is none that can be read.
    pub fn edit_top_via(&mut self, edit: impl FnOnce(&mut Via)) {
        let Some(text) = self.text(Name::Via) else { return };
        let mut values = split_list(text);
        let Some(mut via) = values.next().and_then(Via::parse) else { return };
        edit(&mut via);
        let rest = values.fold(written(&via), |text, value| text + ", " + value);
        self.replace_first(Name::Via, &rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(Name, &str)]) -> Headers {
        fields.iter().map(|(name, value)| Header::new(*name, value)).collect()
    }

    #[test]
    fn two_vias_in_one_field_are_two() {
        let mut it = headers(&[
            (Name::Via, "SIP/2.0/TLS a;branch=z9hG4bK1;rport , SIP/2.0/UDP b;branch=z9hG4bK2"),
            (Name::Via, "SIP/2.0/TCP c;branch=z9hG4bK3"),
        ]);
        it.edit_top_via(|via| via.stamp("192.0.2.1:9".parse().unwrap()));
        let vias = it.vias().unwrap();
        assert_eq!(vias.iter().filter_map(Via::branch).count(), 3);
        assert_eq!(vias[0].rport(), Some(9));
        assert_eq!(vias[1].branch(), Some("z9hG4bK2"));
        assert_eq!(it.all(Name::Via).count(), 2);
    }

    #[test]
    fn lists_are_bounded() {
        let value = "<sip:h;lr>,".repeat(SIP_LIST_VALUES.get() + 1);
        let it = headers(&[(Name::RecordRoute, &value)]);
        let too_many = HeaderError::new(Name::RecordRoute, HeaderFault::TooMany);
        assert_eq!(it.record_routes().err(), Some(too_many));
        assert_eq!(too_many.to_string(), "too many values in Record-Route");
    }

    #[test]
    fn contact_is_read_in_all_its_forms() {
        let many = headers(&[(Name::Contact, "\"x, y\" <sip:a@h>;q=1, sip:b@h;q=0.5")]);
        assert!(matches!(many.contacts(), Ok(Contacts::Addresses(it)) if it.len() == 2));
        assert_eq!(many.contact().unwrap().uri.as_str(), "sip:a@h");
        assert_eq!(headers(&[(Name::Contact, " * ")]).contacts(), Ok(Contacts::Every));
        assert!(headers(&[(Name::Contact, "*, <sip:a@h>")]).contacts().is_err());
        assert_eq!(Headers::new().contacts(), Ok(Contacts::Addresses(Vec::new())));
    }

    #[test]
    fn cseq_is_a_number_below_two_to_the_31_and_a_method() {
        let it = CSeq::parse("0009\t  INVITE").unwrap();
        assert_eq!((it.number, it.method), (9, Method::Invite));
        for wrong in
            ["", "1", "INVITE", "-1 INVITE", "2147483648 INVITE", "36893488147419103232 R", "1 a b"]
        {
            assert_eq!(CSeq::parse(wrong), None, "{wrong}");
        }
        use rsip::prelude::*;
        let theirs = rsip::headers::CSeq::new("4711 INVITE").typed().unwrap();
        assert_eq!(theirs.seq, CSeq::parse("4711 INVITE").unwrap().number);
    }

    #[test]
    fn content_lengths_must_agree() {
        let lengths = |values: &[&str]| {
            values
                .iter()
                .map(|value| Header::new(Name::ContentLength, value))
                .collect::<Headers>()
                .content_length()
        };
        assert_eq!(lengths(&[]), Ok(None));
        assert_eq!(lengths(&["12", "012"]), Ok(Some(12)));
        for wrong in
            [&["1", "2"][..], &["-1"], &["+1"], &["1,1"], &["x"], &["99999999999999999999"]]
        {
            assert!(lengths(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_for_humans_cannot_break_out() {
        let mut it = Headers::new();
        it.push_warning("edge 1", "policy.unknown_peer \"x\"\r\nEvil: 1");
        it.push_reason("SIP", 200, "done");
        it.push_tokens(Name::Allow, [Method::Invite.as_str(), "ACK"]);
        it.set_retry_after(5);
        let warning = "399 callgate \"policy.unknown_peer \\\"x\\\"  Evil: 1\"";
        assert_eq!(it.text(Name::Warning), Some(warning));
        assert_eq!(it.reasons()[0].cause, Some(200));
        assert!(it.has_token(Name::Allow, "ack"));
        assert_eq!(it.seconds(Name::RetryAfter), Ok(Some(5)));
    }

    #[test]
    fn media_types_and_seconds_are_read_with_their_parameters() {
        let it = headers(&[
            (Name::ContentType, "Multipart / Mixed ; boundary=\"a;b\""),
            (Name::SessionExpires, "1800;refresher=uac"),
            (Name::Expires, "soon"),
        ]);
        let media_type = it.content_type().unwrap().unwrap();
        assert_eq!(media_type.essence, "multipart/mixed");
        assert_eq!(media_type.params.unquoted("boundary").as_deref(), Some("a;b"));
        assert_eq!(it.seconds(Name::SessionExpires), Ok(Some(1800)));
        assert!(it.seconds(Name::Expires).is_err());
        assert_eq!(it.seconds(Name::MinSe), Ok(None));
    }
}
