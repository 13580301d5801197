//! One key of the credentials directory.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// One credential, as stored under a `credential.<name>` key of the credentials directory (JSON).
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Credential {
    /// The only hosts to which it may be sent: what the Secret's owner wrote on it.
    pub hosts: Vec<String>,
    /// What is sent.
    pub secret: CredentialSecret,
}

/// The forms of a credential.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum CredentialSecret {
    /// `Authorization: Basic`.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// `Authorization: Bearer`.
    Token(String),
}

impl CredentialSecret {
    /// When it expires, in seconds since 1970, if it is a token that says so itself (a JSON Web Token). The words of a token
    /// that nobody verified: good for a warning and for nothing else.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        #[derive(Deserialize)]
        struct Claims {
            exp: f64,
        }
        let Self::Token(token) = self else { return None };
        let claims = token.split('.').nth(1).filter(|_| token.split('.').count() == 3)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        #[allow(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        (claims.exp > 0.0).then_some(claims.exp as i64)
    }

    /// The value of the header that it is sent in, which is not printed either; nothing if it can't stand in one.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { username, password } => format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))),
            Self::Token(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

// No derived Debug: a secret can't be printed.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("hosts", &self.hosts).field("secret", &self.secret).finish()
    }
}

impl std::fmt::Debug for CredentialSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(redacted)",
            Self::Token(_) => "Token(redacted)",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_cannot_be_printed() {
        let text = r#"{"hosts":["a.example"],"secret":{"basic":{"username":"u","password":"hunter2"}}}"#;
        let credential: Credential = serde_json::from_str(text).unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
    }

    #[test]
    fn only_a_token_of_json_says_when_it_expires() {
        let token = |claims: &str| CredentialSecret::Token(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)));
        assert_eq!(token(r#"{"iss":"a.example","exp":1900000000}"#).expires(), Some(1_900_000_000));
        assert_eq!(token(r#"{"exp":1900000000.9}"#).expires(), Some(1_900_000_000));
        let silent =
            [token("{}"), token(r#"{"exp":"soon"}"#), CredentialSecret::Token("e30.e30".into()), CredentialSecret::Token("x".into())];
        assert!(silent.iter().all(|secret| secret.expires().is_none()));
    }
}
