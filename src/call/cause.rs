//! Causes: what one side's refusal or goodbye means for the other. Statuses that speak of the
//! called party are passed on; those that speak of the callee's network become ours.

use std::time::Duration;

use base::Reason;
use sip::{Headers, Name, Response};

use crate::contract::Unserved;
use crate::dial::Failure;

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
    let cause = q850(&response.headers);
    let unserved = (status.code() == 503).then(|| {
        let seconds = response.headers.seconds(Name::RetryAfter).ok().flatten();
        Unserved::Unavailable(seconds.map(|it| Duration::from_secs(u64::from(it))))
    });
    Failure { reason, status: is_passed.then_some(status), cause, unserved }
}

/// The ITU-T Q.850 cause of a message, which means the same to every network (RFC 3326).
pub(crate) fn q850(headers: &Headers) -> Option<u16> {
    let reasons = headers.reasons().into_iter();
    let mut causes = reasons.filter(|reason| reason.protocol.eq_ignore_ascii_case("Q.850"));
    causes.find_map(|reason| reason.cause).filter(|cause| (1..=127).contains(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sip::{Header, Status};

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
        for value in ["SIP;cause=600", "Q.850;cause=17;text=\"host 10.0.0.1\""] {
            busy.headers.push_header(Header::new(Name::Reason, value));
        }
        let failure = of_refusal(&busy);
        assert_eq!((failure.status, failure.cause), (Some(Status::BUSY_HERE), Some(17)));
        let mut odd = refusal(500);
        odd.headers.push(Name::Reason, "Q.850;cause=900");
        assert_eq!(of_refusal(&odd).cause, None);
    }
}
