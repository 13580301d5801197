//! One key of the credentials directory.

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
}
