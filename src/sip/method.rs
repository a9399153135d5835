//! Request methods. Names are case-sensitive (RFC 3261 section 7.1), which is why `rsip`'s own
//! parser, which folds case and refuses the unknown, is not used; its type converts both ways.

use std::fmt;

use crate::lex::is_token;

/// The name of a method that is not in the table below: always a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtensionMethod(Box<str>);

impl ExtensionMethod {
    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $text:literal $rsip:ident,)*) => {
        /// A request method.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $($(#[$doc])* $name,)*
            /// Any other token: an SBC must be able to answer 405 or 501 to it.
            Other(ExtensionMethod),
        }

        impl Method {
            /// Every method known here.
            pub const KNOWN: &[Self] = &[$(Self::$name,)*];

            /// The method with this name; `None` where it is not a token.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ if is_token(name.as_bytes()) => {
                        Some(Self::Other(ExtensionMethod(name.into())))
                    }
                    _ => None,
                }
            }

            /// The name on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(name) => name.as_str(),
                }
            }

            /// The same method as `rsip` names it; `None` for those it does not know.
            #[must_use]
            pub fn to_rsip(&self) -> Option<rsip::Method> {
                match self {
                    $(Self::$name => Some(rsip::Method::$rsip),)*
                    Self::Other(_) => None,
                }
            }
        }

        impl From<rsip::Method> for Method {
            fn from(method: rsip::Method) -> Self {
                match method { $(rsip::Method::$rsip => Self::$name,)* }
            }
        }
    };
}

methods! {
    /// Acknowledges a final response to an INVITE.
    Ack "ACK" Ack,
    /// Ends a dialog.
    Bye "BYE" Bye,
    /// Gives up a pending INVITE.
    Cancel "CANCEL" Cancel,
    /// Carries application data within a dialog (RFC 6086).
    Info "INFO" Info,
    /// Begins or changes a session.
    Invite "INVITE" Invite,
    /// A text message (RFC 3428).
    Message "MESSAGE" Message,
    /// Reports an event (RFC 6665).
    Notify "NOTIFY" Notify,
    /// Asks for capabilities.
    Options "OPTIONS" Options,
    /// Acknowledges a provisional response (RFC 3262).
    Prack "PRACK" PRack,
    /// Publishes event state (RFC 3903).
    Publish "PUBLISH" Publish,
    /// Asks the peer to contact a third party (RFC 3515).
    Refer "REFER" Refer,
    /// Binds an address.
    Register "REGISTER" Register,
    /// Asks for events (RFC 6665).
    Subscribe "SUBSCRIBE" Subscribe,
    /// Changes a session before or after its answer (RFC 3311).
    Update "UPDATE" Update,
}

impl Method {
    /// Whether a 2xx to it (and some of its provisional responses) makes a dialog.
    #[must_use]
    pub const fn makes_dialog(&self) -> bool {
        matches!(self, Self::Invite | Self::Subscribe | Self::Refer)
    }

    /// Whether it may change the peer's remote target (RFC 3261 section 12.2, RFC 3311).
    #[must_use]
    pub const fn refreshes_target(&self) -> bool {
        matches!(self, Self::Invite | Self::Update | Self::Subscribe | Self::Notify | Self::Refer)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_rsip_is_known_under_the_same_name() {
        for theirs in rsip::Method::all() {
            let ours = Method::from(theirs);
            assert_eq!(ours.as_str(), theirs.to_string());
            assert_eq!(ours.to_rsip(), Some(theirs));
            assert_eq!(Method::parse(ours.as_str()), Some(ours));
        }
        assert_eq!(Method::KNOWN.len(), rsip::Method::all().len());
    }

    #[test]
    fn an_unknown_method_is_kept_and_case_matters() {
        let odd = Method::parse("!interesting-Method0123456789_*+`.%indeed'~").unwrap();
        assert!(matches!(&odd, Method::Other(name) if name.as_str().starts_with('!')));
        assert!(matches!(Method::parse("invite"), Some(Method::Other(_))));
        assert_eq!(Method::parse("IN VITE"), None);
        assert_eq!(Method::parse(""), None);
        assert_eq!(odd.to_rsip(), None);
    }
}
