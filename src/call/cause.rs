//! Causes: what one side's refusal or goodbye means for the other. Statuses that speak of the
//! called party are passed on; those that speak of the callee's network become ours. Of a Reason
//! (RFC 3326) the number crosses and nothing else: what a peer writes beside it could name its
//! network, so texts are ours.

use std::time::Duration;

use base::Reason;
use sip::{Header, Headers, Name, Response, Status};

use crate::contract::Unserved;
use crate::dial::Failure;

/// What one side gave as its causes, as far as the other side may learn them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Causes {
    /// A SIP status.
    pub(crate) sip: Option<u16>,
    /// A cause of ITU-T Q.850, which means the same to every network.
    pub(crate) q850: Option<u16>,
}

impl Causes {
    /// Those of a message: the first of either protocol that is a number there.
    pub(crate) fn of(headers: &Headers) -> Self {
        let reasons = headers.reasons();
        let first = |protocol: &str, is_one: fn(u16) -> bool| {
            let of_it = reasons.iter().filter(|it| it.protocol.eq_ignore_ascii_case(protocol));
            of_it.filter_map(|it| it.cause).find(|cause| is_one(*cause))
        };
        Self {
            sip: first("SIP", |cause| Status::new(cause).is_some()),
            q850: first("Q.850", |cause| (1..=127).contains(&cause)),
        }
    }

    /// These, or others where there are none.
    pub(crate) fn or(self, others: Self) -> Self {
        if self == Self::default() { others } else { self }
    }

    /// Whether a CANCEL with them says that somebody else has answered.
    pub(crate) fn is_elsewhere(self) -> bool {
        self.sip == Some(ELSEWHERE) || self.q850 == Some(NON_SELECTED_USER)
    }
}

/// In a CANCEL: the call was answered elsewhere (RFC 3326 section 2).
const ELSEWHERE: u16 = 200;
const ELSEWHERE_TEXT: &str = "Call completed elsewhere";
const NORMAL_CLEARING: u16 = 16;
const NO_ANSWER: u16 = 19;
const NON_SELECTED_USER: u16 = 26;

/// The failure that a final refusal of the callee's is. (Whether another target may do better is
/// the route's to say.)
pub(crate) fn of_refusal(response: &Response) -> Failure {
    let status = response.status;
    let (reason, is_passed) = match status.code() {
        486 | 600 => (Reason::Busy, true),
        603 | 607 | 608 => (Reason::Declined, true),
        404 | 410 | 484 | 485 | 604 => (Reason::NumberUnknown, true),
        480 | 487 => (Reason::NoAnswer, false),
        488 | 606 => (Reason::NoCommonCodec, false),
        408 | 500 | 502..=504 => (Reason::TrunkUnreachable, false),
        // 403, 5xx that trying elsewhere does not cure, a 3xx that leads nowhere. A 401 or 407
        // is never passed on: it would ask the caller for our password.
        _ => (Reason::TrunkRefused, false),
    };
    let cause = Causes::of(&response.headers).q850.or_else(|| of_status(status.code()));
    let unserved = (status.code() == 503).then(|| {
        let seconds = response.headers.seconds(Name::RetryAfter).ok().flatten();
        Unserved::Unavailable(seconds.map(|it| Duration::from_secs(u64::from(it))))
    });
    Failure { reason, status: is_passed.then_some(status), cause, unserved }
}

/// The cause of ITU-T Q.850 that a refusal stands for whose sender gave none (RFC 3398 section
/// 8.2.6.1; what it leaves to the Warning is interworking, as in ITU-T Q.1912.5).
pub(crate) const fn of_status(status: u16) -> Option<u16> {
    Some(match status {
        404 | 485 | 604 => 1,
        486 | 600 => 17,
        480 => 18,
        // RFC 8197 and RFC 8688 reject a call as 603 does.
        401..=403 | 407 | 603 | 607 | 608 => 21,
        410 => 22,
        482 | 483 => 25,
        484 => 28,
        502 => 38,
        400 | 481 | 500 | 503 => 41,
        405 => 63,
        406 | 415 | 501 => 79,
        408 | 504 => 102,
        413 | 414 | 416 | 420 | 421 | 423 | 488 | 505 | 513 | 606 => 127,
        _ => return None,
    })
}

/// The cause of ITU-T Q.850 of an end of ours.
pub(crate) const fn of_reason(reason: Reason) -> Option<u16> {
    match reason {
        Reason::Cancelled => Some(NORMAL_CLEARING),
        Reason::CompletedElsewhere => Some(NON_SELECTED_USER),
        Reason::NoAnswer => Some(NO_ANSWER),
        _ => match reason.sip_status() {
            200..=299 => Some(NORMAL_CLEARING),
            status => of_status(status),
        },
    }
}

/// The Reason of a CANCEL of ours: what the other side gave, or else what ends the attempt.
pub(crate) fn of_cancel(reason: Reason, given: Causes) -> Header {
    let ours = match reason {
        Reason::CompletedElsewhere | Reason::Transferred => {
            Causes { sip: Some(ELSEWHERE), q850: None }
        }
        _ => Causes { sip: None, q850: of_reason(reason) },
    };
    let Causes { sip, q850 } = given.or(ours);
    let sip = sip.map(|cause| value("SIP", cause, sip_text(cause)));
    let q850 = q850.map(|cause| value("Q.850", cause, q850_text(cause)));
    let values: Vec<String> = sip.into_iter().chain(q850).collect();
    Header::new(Name::Reason, values.join(", "))
}

/// The Reason for whoever answers second.
pub(crate) fn elsewhere() -> Header {
    Header::new(Name::Reason, value("SIP", ELSEWHERE, ELSEWHERE_TEXT))
}

fn value(protocol: &str, cause: u16, text: &str) -> String {
    format!("{protocol};cause={cause};text=\"{text}\"")
}

fn sip_text(cause: u16) -> &'static str {
    match Status::new(cause) {
        _ if cause == ELSEWHERE => ELSEWHERE_TEXT,
        Some(status) => status.phrase(),
        None => "",
    }
}

/// ITU-T Q.850's word for a cause that is met often.
pub(crate) const fn q850_text(cause: u16) -> &'static str {
    match cause {
        1 => "Unallocated number",
        2 | 3 => "No route",
        NORMAL_CLEARING => "Normal call clearing",
        17 => "User busy",
        18 => "No user responding",
        NO_ANSWER => "No answer from user",
        20 => "Subscriber absent",
        21 => "Call rejected",
        22 => "Number changed",
        25 => "Exchange routing error",
        NON_SELECTED_USER => "Non-selected user clearing",
        27 => "Destination out of order",
        28 => "Invalid number format",
        31 => "Normal, unspecified",
        34 => "No circuit available",
        38 => "Network out of order",
        41 => "Temporary failure",
        42 => "Switching equipment congestion",
        63 => "Service or option not available",
        79 => "Service or option not implemented",
        102 => "Recovery on timer expiry",
        127 => "Interworking, unspecified",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16) -> Response {
        Response::new(Status::new(code).unwrap())
    }

    #[test]
    fn what_a_network_says_of_itself_is_not_passed_on() {
        for ours in [401, 403, 407, 408, 480, 488, 500, 501, 503] {
            assert_eq!(of_refusal(&refusal(ours)).status, None, "{ours}");
        }
        for theirs in [404, 484, 486, 600, 603] {
            assert_eq!(of_refusal(&refusal(theirs)).status, Status::new(theirs));
        }
    }

    #[test]
    fn a_q850_cause_crosses_and_its_text_does_not() {
        let mut busy = refusal(486);
        for value in ["SIP;cause=600", "Q.850;cause=34;text=\"host 10.0.0.1\""] {
            busy.headers.push_header(Header::new(Name::Reason, value));
        }
        let failure = of_refusal(&busy);
        assert_eq!((failure.status, failure.cause), (Some(Status::BUSY_HERE), Some(34)));
    }

    #[test]
    fn a_status_stands_for_a_cause_where_its_sender_gave_none() {
        for (status, cause) in [(404, 1), (486, 17), (480, 18), (603, 21), (503, 41), (504, 102)] {
            assert_eq!(of_refusal(&refusal(status)).cause, Some(cause), "{status}");
        }
        let mut odd = refusal(500);
        odd.headers.push(Name::Reason, "Q.850;cause=900");
        assert_eq!(of_refusal(&odd).cause, Some(41), "900 is none");
        assert_eq!(of_refusal(&refusal(487)).cause, None, "RFC 3398 section 8.2.6.1 maps it not");
    }

    #[test]
    fn every_end_has_a_cause_and_every_cause_that_we_give_a_text() {
        for reason in Reason::ALL {
            let cause = of_reason(*reason);
            let is_plain = cause.is_some_and(|cause| !q850_text(cause).is_empty());
            let is_unmapped = of_status(reason.sip_status()).is_none();
            assert!(is_plain || (cause.is_none() && is_unmapped), "{reason}: {cause:?}");
        }
    }

    #[test]
    fn of_a_cancel_only_numbers_that_mean_something_cross() {
        let mut headers = Headers::default();
        let lines = [
            "FreeSWITCH;cause=7;text=\"sw1.inside.example\", SIP;cause=999",
            "SIP;cause=600;text=\"10.0.0.1\", Q.850;cause=16;text=\"x\";location=LN",
            "SIP;cause=486",
        ];
        for line in lines {
            headers.push(Name::Reason, line);
        }
        let given = Causes::of(&headers);
        assert_eq!(given, Causes { sip: Some(600), q850: Some(16) });
        let said = of_cancel(Reason::Cancelled, given);
        let words = "SIP;cause=600;text=\"Busy Everywhere\", \
                     Q.850;cause=16;text=\"Normal call clearing\"";
        assert_eq!(said.text(), Some(words));
    }

    #[test]
    fn a_cancel_of_ours_says_why_the_attempt_ends() {
        let said = |reason| of_cancel(reason, Causes::default()).text().unwrap().to_owned();
        assert!(said(Reason::Cancelled).starts_with("Q.850;cause=16;"));
        assert!(said(Reason::NoAnswer).starts_with("Q.850;cause=19;"));
        assert!(said(Reason::OperatorHungUp).starts_with("Q.850;cause=16;"));
        assert!(said(Reason::RelayFull).starts_with("Q.850;cause=41;"));
        assert!(said(Reason::Transferred).starts_with("SIP;cause=200;"), "somebody else has it");
    }
}
