//! Who may ask the admin endpoints that name modules, hosts and Secrets.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};

use super::live::Live;

/// Opened by the bearer token in use; without one, only to this machine.
#[derive(Clone)]
pub(super) struct Guard {
    live: Arc<Live>,
    /// The admin address is one of this machine alone.
    on_loopback: bool,
}

impl Guard {
    pub(super) fn new(live: Arc<Live>, on_loopback: bool) -> Self {
        Self { live, on_loopback }
    }

    /// The refusal, unless the request may be answered.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let why = "it names modules and hosts: ask with the bearer token of the key admin-token of the credentials Secret; a proxy run by itself tells it with --admin-listen on loopback\n";
        let may_ask = may_ask(self.live.admin_token().as_deref(), headers, self.on_loopback);
        (!may_ask).then(|| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response())
    }
}

fn may_ask(token: Option<&[u8]>, headers: &HeaderMap, on_loopback: bool) -> bool {
    // An empty one would be known to everybody.
    let Some(token) = token.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) else { return on_loopback };
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    // Hashes are compared, so that the time that it takes says nothing about the token.
    given.strip_prefix(b"Bearer ").is_some_and(|given| digest(&SHA256, given).as_ref() == digest(&SHA256, token).as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_token_opens_it_and_without_one_only_this_machine() {
        let headers = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert!(may_ask(Some(b"secret\n"), &headers("Bearer secret"), false));
        assert!(!may_ask(Some(b"secret"), &headers("Bearer other"), true));
        assert!(!may_ask(Some(b"secret"), &HeaderMap::new(), true));
        assert!(!may_ask(Some(b"\n"), &headers("Bearer "), false), "an empty token is none");
        assert!(may_ask(None, &HeaderMap::new(), true) && !may_ask(None, &HeaderMap::new(), false));
    }
}
