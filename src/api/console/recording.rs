//! Recordings for the console: the audio in parts, and how loud it was as a picture.
//!
//! A recording is unsealed in memory for each request; nothing of it reaches a disk. How many at a
//! time is limit `api.players`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base::limit;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use vault::{Peaks, ReadError, Reader, RecordingId};

use super::{Console, page, unread};
use crate::problem::Problem;

/// The steps of a waveform; more than a screen shows.
const STEPS: usize = 1_000;
/// The most that one answer to a range has: a player asks for what follows.
const PART: usize = 1 << 20;

fn id_of(text: &str) -> Result<RecordingId, Problem> {
    let detail = "there is no such recording";
    text.parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, "api.not_found", detail))
}

async fn permit(console: &Console) -> Result<OwnedSemaphorePermit, Problem> {
    let wait = limit::API_BODY_MS.millis();
    let taken = tokio::time::timeout(wait, Arc::clone(&console.players).acquire_owned()).await;
    let busy = || {
        let detail = "too many recordings are being played";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "api.players", detail).retry_after(5)
    };
    taken.map_err(|_| busy())?.map_err(|_| busy())
}

/// Runs what unseals and decodes away from the threads of calls.
async fn aside<T: Send + 'static>(
    console: &Console,
    read: impl AsyncFnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Problem> {
    let permit = permit(console).await?;
    let (reader, handle) = (Arc::clone(&console.reader), Handle::current());
    let done = tokio::task::spawn_blocking(move || {
        let read = handle.block_on(read(&reader));
        drop(permit);
        read
    });
    let broken = |_| {
        let detail = "the recording cannot be decoded";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "api.recording", detail)
    };
    done.await.map_err(broken)?.map_err(|error| unread(&error))
}

/// The audio, Ogg Opus: the caller left, the agent right.
pub(crate) async fn audio(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    console.asker(&headers)?;
    let id = id_of(&id)?;
    let audio = aside(&console, async move |reader| reader.recording(id).await).await?;
    let length = audio.ogg.len();
    let mut response = match headers.get(RANGE).map(|value| range(value, length)) {
        None => (StatusCode::OK, Body::from(audio.ogg)).into_response(),
        Some(None) => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            set(&mut response, CONTENT_RANGE, &format!("bytes */{length}"));
            response
        }
        Some(Some((first, last))) => {
            // A copy, so that the rest need not stay in memory while this part is sent.
            let part = Bytes::copy_from_slice(audio.ogg.get(first..=last).unwrap_or_default());
            set_length((StatusCode::PARTIAL_CONTENT, Body::from(part)).into_response(), |it| {
                set(it, CONTENT_RANGE, &format!("bytes {first}-{last}/{length}"));
                set(it, CONTENT_LENGTH, &(last + 1 - first).to_string());
            })
        }
    };
    page::guard(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("audio/ogg"));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

fn set_length(mut response: Response, change: impl FnOnce(&mut Response)) -> Response {
    change(&mut response);
    response
}

fn set(response: &mut Response, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The first and last byte that one range asks for (RFC 9110 section 14.1.2), of `length` bytes;
/// several at once are not served.
fn range(value: &HeaderValue, length: usize) -> Option<(usize, usize)> {
    let text = value.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.trim().split_once('-')?;
    let end = length.checked_sub(1)?;
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let count = suffix.parse::<usize>().ok().filter(|count| *count > 0)?;
            (length.saturating_sub(count), end)
        }
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    (first <= last).then(|| (first, last.min(first.saturating_add(PART - 1))))
}

/// The waveform as a picture.
pub(crate) async fn waveform(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    console.asker(&headers)?;
    let id = id_of(&id)?;
    let (peaks, _) = aside(&console, async move |reader| reader.peaks(id, STEPS).await).await?;
    let mut response = drawn(&peaks).into_response();
    page::guard(response.headers_mut());
    let kind = HeaderValue::from_static("image/svg+xml");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// Two lanes; colours that stand on light and on dark ground.
fn drawn(peaks: &Peaks) -> String {
    let steps = peaks.caller.len().max(1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {steps} 120\" \
         preserveAspectRatio=\"none\" width=\"1000\" height=\"120\">"
    );
    for (side, middle, colour) in [(&peaks.caller, 30, "#2f7fd6"), (&peaks.agent, 90, "#c9701c")] {
        // Writing to a string does not fail.
        let _ = write!(text, "<path stroke=\"{colour}\" fill=\"none\" d=\"");
        for (at, peak) in side.iter().enumerate() {
            // A root, since ears are logarithmic; silence is a line.
            let height = (f64::from(*peak) / 255.0).sqrt().mul_add(28.0, 0.5);
            let middle = f64::from(middle);
            let (top, bottom) = (middle - height, middle + height);
            let _ = write!(text, "M{at}.5 {top:.1}V{bottom:.1}");
        }
        text.push_str("\"/>");
    }
    text.push_str("</svg>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_players_ask_for_and_never_beyond_the_end() {
        let of = |text: &'static str| range(&HeaderValue::from_static(text), 1_000);
        assert_eq!(of("bytes=0-"), Some((0, 999)));
        assert_eq!(of("bytes=0-1"), Some((0, 1)));
        assert_eq!(of("bytes=990-2000"), Some((990, 999)));
        assert_eq!(of("bytes=-100"), Some((900, 999)));
        assert_eq!(of("bytes=-5000"), Some((0, 999)));
        for wrong in
            ["bytes=1000-", "bytes=5-4", "bytes=-0", "bytes=a-b", "items=0-1", "bytes=0-1,4-5"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(range(&HeaderValue::from_static("bytes=0-"), 0), None);
        let large = range(&HeaderValue::from_static("bytes=10-"), 10 * PART);
        assert_eq!(large, Some((10, 10 + PART - 1)));
    }

    #[test]
    fn a_waveform_has_a_lane_for_each_side() {
        let peaks = Peaks { duration_ms: 20, caller: vec![255, 0], agent: vec![0, 64] };
        let svg = drawn(&peaks);
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("M0.5 1.5V58.5") && svg.contains("M1.5 29.5V30.5"), "{svg}");
        assert!(drawn(&Peaks::default()).contains("viewBox=\"0 0 1 120\""));
    }
}
