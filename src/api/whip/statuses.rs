//! What the calls' refusals are in HTTP. The catalogue's own HTTP status is used where it is one
//! of HTTP's; some carry a SIP status for want of another, and these are told apart here.

use base::Reason;
use http::StatusCode;

use super::agent::Refusal;
use crate::problem::Problem;

/// The problem of a refusal.
pub(super) fn problem(refusal: &Refusal) -> Problem {
    let sip = refusal.status.code();
    let catalogued = refusal.reason.and_then(of_reason);
    let status = catalogued.unwrap_or_else(|| of_status(sip));
    let problem = match refusal.reason {
        Some(reason) => Problem::of(status, reason),
        None => {
            let detail = format!("the call was refused: {sip} {}", refusal.status.phrase());
            Problem::new(status, code(status), detail)
        }
    };
    let is_busy = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    match refusal.retry_after {
        Some(seconds) => problem.retry_after(seconds),
        None if is_busy => problem.retry_after(TRY_AGAIN),
        None => problem,
    }
}

/// Seconds after which to try again where the calls have not said.
const TRY_AGAIN: u32 = 5;

/// The code of a refusal without a catalogued reason.
const fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "call.no_such_callee",
        409 => "call.busy",
        503 => "call.unavailable",
        504 => "call.no_answer",
        _ => "call.refused",
    }
}

fn of_reason(reason: Reason) -> Option<StatusCode> {
    match reason.http_status() {
        // Nothing of HTTP's: 486 to 499, and what a SIP status was written for.
        486 => Some(StatusCode::CONFLICT),
        488 => Some(StatusCode::UNPROCESSABLE_ENTITY),
        416 | 420 | 481..=499 | 505.. => None,
        status => StatusCode::from_u16(status).ok().filter(|it| it.as_u16() >= 400),
    }
}

fn of_status(sip: u16) -> StatusCode {
    match sip {
        400 => StatusCode::BAD_REQUEST,
        403 | 603 | 607 | 608 => StatusCode::FORBIDDEN,
        404 | 410 | 481 | 484 | 485 | 604 => StatusCode::NOT_FOUND,
        408 | 480 | 487 | 504 => StatusCode::GATEWAY_TIMEOUT,
        413 | 513 => StatusCode::PAYLOAD_TOO_LARGE,
        415 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        486 | 491 | 600 => StatusCode::CONFLICT,
        488 | 606 => StatusCode::UNPROCESSABLE_ENTITY,
        500 => StatusCode::INTERNAL_SERVER_ERROR,
        503 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sip::Status;

    fn refusal(sip: u16, reason: Option<Reason>) -> Problem {
        let status = Status::new(sip).unwrap();
        problem(&Refusal { status, reason, retry_after: None })
    }

    #[test]
    fn every_refusal_of_the_catalogue_has_a_status_of_http_and_its_code() {
        for reason in Reason::ALL.iter().copied() {
            let status = Status::of(reason);
            if !status.is_failure() {
                continue;
            }
            let problem = refusal(status.code(), Some(reason));
            assert_eq!(problem.code(), reason.code());
            let known = problem.status().canonical_reason();
            assert!(known.is_some() && problem.status().as_u16() >= 400, "{}", reason.code());
        }
    }

    #[test]
    fn refusals_without_a_reason_are_told_apart() {
        for (sip, http, code) in [
            (404, 404, "call.no_such_callee"),
            (486, 409, "call.busy"),
            (488, 422, "call.refused"),
            (480, 504, "call.no_answer"),
            (503, 503, "call.unavailable"),
            (403, 403, "call.refused"),
            (699, 502, "call.refused"),
        ] {
            let problem = refusal(sip, None);
            assert_eq!((problem.status().as_u16(), problem.code()), (http, code), "{sip}");
        }
    }
}
