//! Response status codes with their phrases; convertible to and from `rsip::StatusCode`.

use std::fmt;

/// A status code, 100 to 699.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($name:ident $code:literal $phrase:literal,)*) => {
        impl Status {
            $(#[doc = concat!(stringify!($code), " ", $phrase, ".")]
            pub const $name: Self = Self($code);)*

            /// Every code with a phrase of its own.
            pub const KNOWN: &[Self] = &[$(Self::$name,)*];

            /// The phrase for a human: the registered one, or that of the class (RFC 3261
            /// section 8.1.3.2 treats an unknown code as x00 of its class).
            #[must_use]
            pub const fn phrase(self) -> &'static str {
                match self.0 {
                    $($code => $phrase,)*
                    100..=199 => "Session Progress",
                    200..=299 => "OK",
                    300..=399 => "Redirection",
                    400..=499 => "Request Failure",
                    500..=599 => "Server Failure",
                    _ => "Global Failure",
                }
            }
        }
    };
}

statuses! {
    TRYING 100 "Trying",
    RINGING 180 "Ringing",
    CALL_IS_BEING_FORWARDED 181 "Call Is Being Forwarded",
    QUEUED 182 "Queued",
    SESSION_PROGRESS 183 "Session Progress",
    EARLY_DIALOG_TERMINATED 199 "Early Dialog Terminated",
    OK 200 "OK",
    ACCEPTED 202 "Accepted",
    NO_NOTIFICATION 204 "No Notification",
    MULTIPLE_CHOICES 300 "Multiple Choices",
    MOVED_PERMANENTLY 301 "Moved Permanently",
    MOVED_TEMPORARILY 302 "Moved Temporarily",
    USE_PROXY 305 "Use Proxy",
    ALTERNATIVE_SERVICE 380 "Alternative Service",
    BAD_REQUEST 400 "Bad Request",
    UNAUTHORIZED 401 "Unauthorized",
    PAYMENT_REQUIRED 402 "Payment Required",
    FORBIDDEN 403 "Forbidden",
    NOT_FOUND 404 "Not Found",
    METHOD_NOT_ALLOWED 405 "Method Not Allowed",
    NOT_ACCEPTABLE 406 "Not Acceptable",
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required",
    REQUEST_TIMEOUT 408 "Request Timeout",
    GONE 410 "Gone",
    LENGTH_REQUIRED 411 "Length Required",
    CONDITIONAL_REQUEST_FAILED 412 "Conditional Request Failed",
    REQUEST_ENTITY_TOO_LARGE 413 "Request Entity Too Large",
    REQUEST_URI_TOO_LONG 414 "Request-URI Too Long",
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type",
    UNSUPPORTED_URI_SCHEME 416 "Unsupported URI Scheme",
    UNKNOWN_RESOURCE_PRIORITY 417 "Unknown Resource-Priority",
    BAD_EXTENSION 420 "Bad Extension",
    EXTENSION_REQUIRED 421 "Extension Required",
    SESSION_INTERVAL_TOO_SMALL 422 "Session Interval Too Small",
    INTERVAL_TOO_BRIEF 423 "Interval Too Brief",
    BAD_LOCATION_INFORMATION 424 "Bad Location Information",
    USE_IDENTITY_HEADER 428 "Use Identity Header",
    PROVIDE_REFERRER_IDENTITY 429 "Provide Referrer Identity",
    FLOW_FAILED 430 "Flow Failed",
    ANONYMITY_DISALLOWED 433 "Anonymity Disallowed",
    BAD_IDENTITY_INFO 436 "Bad Identity Info",
    UNSUPPORTED_CREDENTIAL 437 "Unsupported Credential",
    INVALID_IDENTITY_HEADER 438 "Invalid Identity Header",
    FIRST_HOP_LACKS_OUTBOUND 439 "First Hop Lacks Outbound Support",
    MAX_BREADTH_EXCEEDED 440 "Max-Breadth Exceeded",
    BAD_INFO_PACKAGE 469 "Bad Info Package",
    CONSENT_NEEDED 470 "Consent Needed",
    TEMPORARILY_UNAVAILABLE 480 "Temporarily Unavailable",
    CALL_DOES_NOT_EXIST 481 "Call/Transaction Does Not Exist",
    LOOP_DETECTED 482 "Loop Detected",
    TOO_MANY_HOPS 483 "Too Many Hops",
    ADDRESS_INCOMPLETE 484 "Address Incomplete",
    AMBIGUOUS 485 "Ambiguous",
    BUSY_HERE 486 "Busy Here",
    REQUEST_TERMINATED 487 "Request Terminated",
    NOT_ACCEPTABLE_HERE 488 "Not Acceptable Here",
    BAD_EVENT 489 "Bad Event",
    REQUEST_PENDING 491 "Request Pending",
    UNDECIPHERABLE 493 "Undecipherable",
    SECURITY_AGREEMENT_REQUIRED 494 "Security Agreement Required",
    SERVER_INTERNAL_ERROR 500 "Server Internal Error",
    NOT_IMPLEMENTED 501 "Not Implemented",
    BAD_GATEWAY 502 "Bad Gateway",
    SERVICE_UNAVAILABLE 503 "Service Unavailable",
    SERVER_TIMEOUT 504 "Server Time-out",
    VERSION_NOT_SUPPORTED 505 "Version Not Supported",
    MESSAGE_TOO_LARGE 513 "Message Too Large",
    PRECONDITION_FAILURE 580 "Precondition Failure",
    BUSY_EVERYWHERE 600 "Busy Everywhere",
    DECLINE 603 "Decline",
    DOES_NOT_EXIST_ANYWHERE 604 "Does Not Exist Anywhere",
    NOT_ACCEPTABLE_GLOBAL 606 "Not Acceptable",
    UNWANTED 607 "Unwanted",
    REJECTED 608 "Rejected",
}

impl Status {
    /// The status with this code; `None` outside 100 to 699.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 100 && code <= 699 { Some(Self(code)) } else { None }
    }

    /// The status that carries a catalogued outcome.
    #[must_use]
    pub fn of(reason: base::Reason) -> Self {
        Self::new(reason.sip_status()).unwrap_or(Self::SERVER_INTERNAL_ERROR)
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// 1xx.
    #[must_use]
    pub const fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// 2xx to 6xx.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.0 >= 200
    }

    /// 3xx to 6xx.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 >= 300
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.phrase())
    }
}

impl From<Status> for rsip::StatusCode {
    fn from(status: Status) -> Self {
        match Self::from(status.0) {
            Self::Other(code, _) => Self::Other(code, status.phrase().into()),
            known => known,
        }
    }
}

/// A code that no SIP response may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status code {0} is not between 100 and 699")]
pub struct StatusOutOfRange(pub u16);

impl TryFrom<rsip::StatusCode> for Status {
    type Error = StatusOutOfRange;
    fn try_from(code: rsip::StatusCode) -> Result<Self, StatusOutOfRange> {
        Self::new(code.code()).ok_or(StatusOutOfRange(code.code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_convert_to_rsip_and_back() {
        for status in Status::KNOWN {
            let theirs = rsip::StatusCode::from(*status);
            assert_eq!(theirs.code(), status.code());
            assert_eq!(Status::try_from(theirs), Ok(*status));
        }
        assert_eq!(Status::BUSY_HERE.to_string(), "486 Busy Here");
        assert_eq!(
            Status::try_from(rsip::StatusCode::Other(99, String::new())),
            Err(StatusOutOfRange(99))
        );
    }

    #[test]
    fn an_unknown_code_has_its_class_and_a_phrase() {
        let odd = Status::new(699).unwrap();
        assert!(odd.is_failure() && odd.is_final() && !odd.is_provisional());
        assert_eq!(odd.phrase(), "Global Failure");
        assert_eq!(Status::new(700), None);
        assert_eq!(Status::new(99), None);
    }

    #[test]
    fn every_catalogued_outcome_has_a_status() {
        for reason in base::Reason::ALL {
            assert_eq!(Status::of(*reason).code(), reason.sip_status());
        }
    }
}
