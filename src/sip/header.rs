//! Header fields: known names with their compact forms, and the ordered, lossless list of a
//! message. What the typed readers make of the values is in [`crate::fields`].

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::lex::{is_token, trim_bytes};

macro_rules! names {
    ($($name:ident $long:literal $($compact:literal)?,)*) => {
        /// A header field name known here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Name {
            $(#[doc = concat!("`", $long, "`.")] $name,)*
        }

        impl Name {
            /// Every known name.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The canonical long form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $long,)* }
            }

            /// The compact form (RFC 3261 section 7.3.3), where one is registered.
            #[must_use]
            pub const fn compact(self) -> Option<u8> {
                match self { $($(Self::$name => Some($compact),)?)* _ => None }
            }

            /// The known name that `text` is, in any case and in long or compact form.
            #[must_use]
            pub fn parse(text: &[u8]) -> Option<Self> {
                if let [letter] = text {
                    return match letter.to_ascii_lowercase() {
                        $($($compact => Some(Self::$name),)?)*
                        _ => None,
                    };
                }
                $(if text.eq_ignore_ascii_case($long.as_bytes()) { return Some(Self::$name); })*
                None
            }
        }
    };
}

names! {
    Accept "Accept",
    AcceptContact "Accept-Contact" b'a',
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AlertInfo "Alert-Info",
    Allow "Allow",
    AllowEvents "Allow-Events" b'u',
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CSeq "CSeq",
    CallId "Call-ID" b'i',
    CallInfo "Call-Info",
    Contact "Contact" b'm',
    ContentDisposition "Content-Disposition",
    ContentEncoding "Content-Encoding" b'e',
    ContentLanguage "Content-Language",
    ContentLength "Content-Length" b'l',
    ContentType "Content-Type" b'c',
    Date "Date",
    Diversion "Diversion",
    ErrorInfo "Error-Info",
    Event "Event" b'o',
    Expires "Expires",
    From "From" b'f',
    HistoryInfo "History-Info",
    Identity "Identity" b'y',
    IdentityInfo "Identity-Info" b'n',
    InReplyTo "In-Reply-To",
    InfoPackage "Info-Package",
    MaxForwards "Max-Forwards",
    MimeVersion "MIME-Version",
    MinExpires "Min-Expires",
    MinSe "Min-SE",
    Organization "Organization",
    PAccessNetworkInfo "P-Access-Network-Info",
    PAssertedIdentity "P-Asserted-Identity",
    PChargingVector "P-Charging-Vector",
    PPreferredIdentity "P-Preferred-Identity",
    Path "Path",
    Priority "Priority",
    Privacy "Privacy",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    RAck "RAck",
    RSeq "RSeq",
    Reason "Reason",
    RecordRoute "Record-Route",
    RecvInfo "Recv-Info",
    ReferTo "Refer-To" b'r',
    ReferredBy "Referred-By" b'b',
    RejectContact "Reject-Contact" b'j',
    RemotePartyId "Remote-Party-ID",
    Replaces "Replaces",
    ReplyTo "Reply-To",
    RequestDisposition "Request-Disposition" b'd',
    Require "Require",
    RetryAfter "Retry-After",
    Route "Route",
    Server "Server",
    ServiceRoute "Service-Route",
    SessionExpires "Session-Expires" b'x',
    SipEtag "SIP-ETag",
    SipIfMatch "SIP-If-Match",
    Subject "Subject" b's',
    SubscriptionState "Subscription-State",
    Supported "Supported" b'k',
    Timestamp "Timestamp",
    To "To" b't',
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    UserToUser "User-to-User",
    Via "Via" b'v',
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One header field: its name as written and its value, unfolded and without white space at its
/// ends. It holds no line break, whether parsed or built, so that none can be injected.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: Option<Name>,
    written: Bytes,
    value: Bytes,
}

impl Header {
    /// A field to be sent; line breaks and NUL in `value` become spaces.
    #[must_use]
    pub fn new(name: Name, value: impl AsRef<[u8]>) -> Self {
        let written = Bytes::from_static(name.as_str().as_bytes());
        Self { name: Some(name), written, value: clean(value.as_ref()) }
    }

    /// A field whose name is not in [`Name`]; `None` where `name` is no token.
    #[must_use]
    pub fn extension(name: &str, value: impl AsRef<[u8]>) -> Option<Self> {
        if !is_token(name.as_bytes()) {
            return None;
        }
        let written = Bytes::copy_from_slice(name.as_bytes());
        Some(Self { name: Name::parse(&written), written, value: clean(value.as_ref()) })
    }

    /// A parsed field; `written` is a token and `value` holds no line break.
    pub(crate) fn parsed(written: Bytes, value: Bytes) -> Self {
        Self { name: Name::parse(&written), written, value }
    }

    /// The known name, in whatever form it was written.
    #[must_use]
    pub const fn name(&self) -> Option<Name> {
        self.name
    }

    /// The name: the canonical long form where it is known, else as written.
    #[must_use]
    pub fn name_str(&self) -> &str {
        match self.name {
            Some(name) => name.as_str(),
            None => std::str::from_utf8(&self.written).unwrap_or_default(),
        }
    }

    /// The name as it was written, in compact form for instance.
    #[must_use]
    pub fn written_name(&self) -> &[u8] {
        &self.written
    }

    /// The value as it came; it need not be UTF-8.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.value
    }

    /// The value, where it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }

    /// The value with what is not UTF-8 replaced by U+FFFD.
    #[must_use]
    pub fn lossy(&self) -> Cow<'_, str> {
        match self.text() {
            Some(text) => Cow::Borrowed(text),
            None => String::from_utf8_lossy(&self.value),
        }
    }
}

impl fmt::Debug for Header {
    /// Prints the name only: values identify people and carry credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [{} bytes]", self.name_str(), self.value.len())
    }
}

fn clean(value: &[u8]) -> Bytes {
    let value = trim_bytes(value);
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'\0');
    if !value.iter().any(breaks) {
        return Bytes::copy_from_slice(value);
    }
    let spaced: Vec<u8> = value.iter().map(|b| if breaks(b) { b' ' } else { *b }).collect();
    Bytes::copy_from_slice(trim_bytes(&spaced))
}

/// The header fields of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Header> {
        self.0.iter()
    }

    /// How many fields there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields with this name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &Header> {
        self.0.iter().filter(move |header| header.name == Some(name))
    }

    /// The fields with this name, known or not, in any case.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Header> {
        let known = Name::parse(name.as_bytes());
        self.0.iter().filter(move |header| {
            (known.is_some() && header.name == known)
                || header.written.eq_ignore_ascii_case(name.as_bytes())
        })
    }

    /// The first field with this name.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&Header> {
        self.all(name).next()
    }

    /// The value of the first field with this name, where it is UTF-8.
    #[must_use]
    pub fn text(&self, name: Name) -> Option<&str> {
        self.first(name).and_then(Header::text)
    }

    /// Whether there is a field with this name.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.first(name).is_some()
    }

    /// Adds a field at the end; see [`Header::new`].
    pub fn push(&mut self, name: Name, value: impl AsRef<[u8]>) {
        self.0.push(Header::new(name, value));
    }

    /// Adds a field at the end as it is, for instance one copied from another message.
    pub fn push_header(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Adds a field before all others: a Via or a Record-Route of ours goes on top.
    pub fn prepend(&mut self, name: Name, value: impl AsRef<[u8]>) {
        self.0.insert(0, Header::new(name, value));
    }

    /// Replaces all fields of this name by one, in the place of the first.
    pub fn set(&mut self, name: Name, value: impl AsRef<[u8]>) {
        let header = Header::new(name, value);
        match self.0.iter().position(|it| it.name == Some(name)) {
            Some(at) => {
                self.0[at] = header;
                let mut index = 0;
                self.0.retain(|it| {
                    index += 1;
                    index <= at + 1 || it.name != Some(name)
                });
            }
            None => self.0.push(header),
        }
    }

    /// Removes all fields of this name.
    pub fn remove(&mut self, name: Name) {
        self.0.retain(|header| header.name != Some(name));
    }

    /// Copies all fields of this name from `other`, in order, as they are written there.
    pub fn copy(&mut self, name: Name, other: &Self) {
        self.0.extend(other.all(name).cloned());
    }

    /// Replaces the value of the first field of this name, keeping how its name is written.
    pub(crate) fn replace_first(&mut self, name: Name, value: &str) {
        if let Some(header) = self.0.iter_mut().find(|it| it.name == Some(name)) {
            header.value = clean(value.as_bytes());
        }
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_in_compact_form() {
        for name in Name::ALL {
            assert_eq!(Name::parse(name.as_str().to_uppercase().as_bytes()), Some(*name));
            if let Some(letter) = name.compact() {
                assert_eq!(Name::parse(&[letter]), Some(*name));
                assert_eq!(Name::parse(&[letter.to_ascii_uppercase()]), Some(*name));
            }
        }
        assert_eq!(Name::parse(b"X-Unknown"), None);
        assert_eq!(Name::parse(b"z"), None);
    }

    #[test]
    fn a_line_break_cannot_be_injected() {
        let mut headers = Headers::new();
        headers.push(Name::Subject, "hi\r\nRoute: <sip:evil>\0\r\n");
        assert_eq!(headers.text(Name::Subject), Some("hi  Route: <sip:evil>"));
        assert!(Header::extension("X\r\nEvil", "1").is_none());
        assert!(Header::extension("", "1").is_none());
    }

    #[test]
    fn setting_a_field_leaves_one_in_the_first_place() {
        let mut headers = Headers::new();
        headers.push(Name::Via, "a");
        headers.push(Name::Subject, "b");
        headers.push(Name::Via, "c");
        headers.push(Name::Subject, "d");
        headers.set(Name::Via, "new");
        let seen: Vec<_> = headers.iter().map(|header| header.lossy().into_owned()).collect();
        assert_eq!(seen, ["new", "b", "d"]);
    }

    #[test]
    fn extension_fields_are_found_by_name() {
        let mut headers = Headers::new();
        headers.push_header(Header::extension("X-Carrier", "acme").unwrap());
        headers.push_header(Header::extension("v", "SIP/2.0/TLS a").unwrap());
        assert_eq!(headers.named("x-carrier").next().and_then(Header::text), Some("acme"));
        assert_eq!(headers.named("via").count(), 1);
        assert_eq!(headers.all(Name::Via).count(), 1);
    }
}
