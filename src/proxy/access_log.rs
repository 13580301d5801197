//! Who fetched what, when, with which result: one line of JSON a request on standard error.
//!
//! Lines are collected and written by a thread of their own: a write a request would cost more than the request. When
//! nobody takes the lines, the newest are dropped and counted; requests never wait for a log.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use itoa::Buffer;
use prometheus::IntCounter;

use super::labels::{Endpoint, Outcome};

/// Written at the latest after this time.
const DELAY: Duration = Duration::from_millis(200);
/// Written at once from so many bytes on: on a busy core a long write is a pause for every request.
const ENOUGH: usize = 64 << 10;
const MAX_BYTES: usize = 4 << 20;

/// One request.
pub(super) struct Line<'a> {
    /// Address and port.
    pub(super) client: &'a str,
    pub(super) endpoint: Endpoint,
    /// As it stands in the request.
    pub(super) path: &'a str,
    pub(super) status: u16,
    pub(super) outcome: Outcome,
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
}

/// The log. Dropping it writes what is left.
pub(super) struct AccessLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    dropped: IntCounter,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    closed: bool,
    /// The time of day in words, and its second.
    second: (u64, String),
}

impl AccessLog {
    pub(super) fn start(dropped: IntCounter) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write(&mut std::io::stderr()))?;
        Ok(Self { shared, thread: Some(thread), dropped })
    }

    pub(super) fn log(&self, line: &Line<'_>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lines.len() >= MAX_BYTES {
            self.dropped.inc();
            return;
        }
        let before = state.lines.len();
        state.append(line, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        if before == 0 || (before < ENOUGH && state.lines.len() >= ENOUGH) {
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the access log's thread failed");
        }
    }
}

impl Shared {
    fn write(&self, to: &mut dyn Write) {
        let mut spare = Vec::new();
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.lines.is_empty() && !state.closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // The first line is there; the others of the next moment go with it.
            let more = |state: &mut State| state.lines.len() < ENOUGH && !state.closed;
            state = self.wake.wait_timeout_while(state, DELAY, more).unwrap_or_else(PoisonError::into_inner).0;
            std::mem::swap(&mut state.lines, &mut spare);
            let closed = state.closed;
            drop(state);
            // Not all at once: a write goes on until its end, whoever waits for the core. A log that nobody can read must not
            // stop the cache.
            let _nobody_reads = spare.chunks(ENOUGH).try_for_each(|chunk| to.write_all(chunk));
            spare.clear();
            spare.shrink_to(MAX_BYTES / 16);
            if closed {
                return;
            }
        }
    }
}

impl State {
    /// `now`: since 1970.
    fn append(&mut self, line: &Line<'_>, now: Duration) {
        if self.second.0 != now.as_secs() {
            let second = i64::try_from(now.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
            let text = second.map(|s| s.strftime("%Y-%m-%dT%H:%M:%S").to_string()).unwrap_or_default();
            self.second = (now.as_secs(), text);
        }
        let Line { client, endpoint, path, status, outcome, bytes, elapsed } = *line;
        // Put together by hand: with formats it was a sixteenth of a hit's time in user mode.
        let [mut millis, mut code, mut length, mut micros] = [Buffer::new(); 4];
        // Three digits.
        let millis = millis.format(1000 + now.subsec_millis()).strip_prefix('1').unwrap_or_default();
        let lines = &mut self.lines;
        let mut put = |texts: &[&str]| texts.iter().for_each(|text| lines.extend_from_slice(text.as_bytes()));
        put(&[r#"{"timestamp":""#, &self.second.1, ".", millis, r#"Z","target":"access","client":""#, client]);
        put(&[r#"","endpoint":""#, endpoint.as_str(), r#"","path":"#]);
        // A path of a request target holds neither quotes that matter nor control characters unless a client means harm, so the
        // cheap test comes first.
        if path.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            put(&["\"", path, "\""]);
        } else if let Ok(quoted) = serde_json::to_string(path) {
            put(&[&quoted]);
        }
        put(&[r#","status":"#, code.format(status), r#","result":""#, outcome.as_str()]);
        put(&[r#"","bytes":"#, length.format(bytes), r#","microseconds":"#, micros.format(elapsed.as_micros()), "}\n"]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn line(path: &str) -> Line<'_> {
        Line {
            client: "203.0.113.7:1234",
            endpoint: Endpoint::Zip,
            path,
            status: 200,
            outcome: Outcome::Hit,
            bytes: 17,
            elapsed: Duration::from_micros(42),
        }
    }

    #[test]
    fn every_line_is_json_whatever_the_path() {
        let mut state = State::default();
        for path in ["/corp.example/!tea/@v/v1.0.0.zip", "/\"},{\"x\":\"", "/é\n\u{7f}"] {
            state.lines.clear();
            state.append(&line(path), Duration::ZERO);
            let value: serde_json::Value = serde_json::from_slice(&state.lines).unwrap();
            assert_eq!((value["path"].as_str(), value["result"].as_str()), (Some(path), Some("hit")));
            assert_eq!(state.lines.iter().filter(|b| **b == b'\n').count(), 1);
        }
    }

    #[test]
    fn a_line_says_who_fetched_what_when_with_which_result() {
        let mut state = State::default();
        for (millis, text) in [(7, "007"), (117, "117"), (1_000, "000")] {
            state.lines.clear();
            state.append(&line("/corp.example/!tea/@v/v1.0.0.zip"), Duration::from_millis(1_790_000_000_000 + millis));
            let second = if millis < 1_000 { 20 } else { 21 };
            let expected = format!(
                concat!(
                    r#"{{"timestamp":"2026-09-21T14:13:{second}.{text}Z","target":"access","client":"203.0.113.7:1234","endpoint":"zip","#,
                    r#""path":"/corp.example/!tea/@v/v1.0.0.zip","status":200,"result":"hit","bytes":17,"microseconds":42}}"#
                ),
                second = second,
                text = text
            );
            assert_eq!(String::from_utf8_lossy(&state.lines), expected + "\n");
        }
    }

    #[test]
    fn what_was_logged_is_written_before_the_end() {
        let shared = Shared { state: Mutex::default(), wake: Condvar::new() };
        {
            let mut state = shared.state.lock().unwrap();
            state.append(&line("/x"), Duration::ZERO);
            state.closed = true;
        }
        let mut out = Vec::new();
        shared.write(&mut out);
        assert!(out.ends_with(b"\"microseconds\":42}\n"));
    }
}
