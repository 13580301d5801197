//! From the users' Secrets to the one that the proxy mounts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::api::{CredentialState, CredentialStatus};
use crate::config::{ADMIN_TOKEN_KEY, CREDENTIAL_KEY_PREFIX, Credential, CredentialSecret, GENERATION_KEY};

/// The annotation by which a Secret's owner allows hosts.
pub(crate) const HOSTS_ANNOTATION: &str = "gomodcache.io/hosts";

/// The data of a Secret. No Debug: it can't be printed.
pub(crate) type Data = BTreeMap<String, ByteString>;

/// What the proxy gets, and what to say about it.
#[derive(Default)]
pub(crate) struct Credentials {
    /// The content of `<cache>-credentials`, generation included.
    pub data: Data,
    /// One entry a Secret.
    pub states: Vec<CredentialStatus>,
    /// What is wrong and what to do: reason and message.
    pub problems: Vec<(&'static str, String)>,
}

/// Which Secret is to be sent to which hosts.
pub(crate) type Wanted = BTreeMap<String, BTreeSet<String>>;

/// Checks and copies. `previous` is the content that we wrote last; `random` gives 32 digits that nobody can guess.
#[must_use]
pub(crate) fn collect(
    namespace: &str,
    wanted: &Wanted,
    sources: &BTreeMap<String, Secret>,
    previous: &Data,
    require_hosts: bool,
    random: impl Fn() -> String,
) -> Credentials {
    let mut out = Credentials::default();
    for (name, hosts) in wanted {
        let key = format!("{CREDENTIAL_KEY_PREFIX}{name}");
        let kept = previous.get(&key).cloned();
        let still = if kept.is_some() { "; the proxy keeps the last good content" } else { "" };
        let state = match sources.get(name) {
            None => {
                out.problems.push(("SecretMissing", format!("Secret {name} does not exist: create it in namespace {namespace}{still}")));
                out.data.extend(kept.map(|content| (key, content)));
                CredentialState::Missing
            }
            Some(secret) => match (allowed(secret, hosts, require_hosts), read(secret)) {
                (Err(missing), _) => {
                    let all: Vec<&str> = annotated(secret).into_iter().chain(missing.iter().copied()).collect();
                    out.problems.push((
                        "HostNotAllowed",
                        format!(
                            "Secret {name} does not allow {}; its owner can: kubectl annotate secret {name} --namespace {namespace} --overwrite {HOSTS_ANNOTATION}={}",
                            missing.join(", "),
                            all.join(",")
                        ),
                    ));
                    CredentialState::HostNotAllowed
                }
                (Ok(_), None) => {
                    out.problems.push((
                        "SecretMalformed",
                        format!("Secret {name} must be of type kubernetes.io/basic-auth with username and password, or Opaque with the key token{still}"),
                    ));
                    out.data.extend(kept.map(|content| (key, content)));
                    CredentialState::Malformed
                }
                (Ok(hosts), Some(secret)) => {
                    if let Ok(content) = serde_json::to_vec(&Credential { hosts, secret }) {
                        out.data.insert(key, ByteString(content));
                    }
                    CredentialState::InUse
                }
            },
        };
        out.states.push(CredentialStatus { secret_name: name.clone(), state });
    }
    let is_ours = |key: &str| key == GENERATION_KEY || key == ADMIN_TOKEN_KEY;
    let unchanged = previous.iter().filter(|(key, _)| !is_ours(key)).eq(out.data.iter());
    let kept_or_new = |key: &str, may_be_kept: bool| {
        let kept = previous.get(key).filter(|value| may_be_kept && is_random(&value.0)).cloned();
        (key.to_owned(), kept.unwrap_or_else(|| ByteString(random().into_bytes())))
    };
    // The token is no content: a new one is no rotation.
    out.data.extend([kept_or_new(GENERATION_KEY, unchanged), kept_or_new(ADMIN_TOKEN_KEY, true)]);
    out
}

/// Whether we made it: what someone else put there is not kept.
fn is_random(value: &[u8]) -> bool {
    value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit)
}

fn annotated(secret: &Secret) -> Vec<&str> {
    let text = secret.metadata.annotations.as_ref().and_then(|a| a.get(HOSTS_ANNOTATION)).map_or("", String::as_str);
    text.split(',').map(str::trim).filter(|host| !host.is_empty()).collect()
}

/// The hosts that the credential may be sent to, or those that its owner would have to add.
fn allowed<'a>(secret: &Secret, hosts: &'a BTreeSet<String>, require: bool) -> Result<Vec<String>, Vec<&'a str>> {
    if !require {
        return Ok(hosts.iter().cloned().collect());
    }
    let annotated: Vec<String> = annotated(secret).into_iter().map(str::to_ascii_lowercase).collect();
    let missing: Vec<&str> = hosts.iter().filter(|host| !annotated.contains(host)).map(String::as_str).collect();
    if missing.is_empty() { Ok(annotated) } else { Err(missing) }
}

fn read(secret: &Secret) -> Option<CredentialSecret> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        // A trailing line break is what `echo` left behind; any other control character would split a header.
        let text = std::str::from_utf8(&bytes.0).ok()?.trim_end_matches(['\r', '\n']);
        (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
    };
    match secret.type_.as_deref() {
        Some("kubernetes.io/basic-auth") => Some(CredentialSecret::Basic { username: text("username")?, password: text("password")? }),
        Some("Opaque") | None => Some(CredentialSecret::Token(text("token")?)),
        Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn secret(hosts: &str, token: &str) -> Secret {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "corp", "annotations": {HOSTS_ANNOTATION: hosts}},
            "type": "Opaque",
            "data": {"token": ByteString(token.as_bytes().to_vec())},
        }))
        .unwrap()
    }

    fn wanted() -> Wanted {
        [("corp".to_owned(), ["modules.corp.example".to_owned()].into())].into()
    }

    fn run(sources: &BTreeMap<String, Secret>, previous: &Data, digit: &str) -> Credentials {
        collect("build", &wanted(), sources, previous, true, || digit.repeat(32))
    }

    fn value(credentials: &Credentials, key: &str) -> String {
        String::from_utf8(credentials.data[key].0.clone()).unwrap()
    }

    #[test]
    fn a_generation_changes_with_the_content_only() {
        let hosts = "modules.corp.example";
        let first = run(&[("corp".into(), secret(hosts, "t1"))].into(), &Data::new(), "1");
        let same = run(&[("corp".into(), secret(hosts, "t1"))].into(), &first.data, "2");
        assert_eq!(value(&same, GENERATION_KEY), "1".repeat(32));
        let rotated = run(&[("corp".into(), secret(hosts, "t2"))].into(), &first.data, "3");
        assert_eq!(value(&rotated, GENERATION_KEY), "3".repeat(32));
        assert_eq!(value(&rotated, ADMIN_TOKEN_KEY), "1".repeat(32), "a rotation keeps the token");
    }

    #[test]
    fn a_token_is_kept_once_it_was_made_and_a_new_one_is_no_rotation() {
        let first = run(&BTreeMap::new(), &Data::new(), "1");
        let mut without = first.data.clone();
        without.remove(ADMIN_TOKEN_KEY);
        let added = run(&BTreeMap::new(), &without, "2");
        assert_eq!((value(&added, GENERATION_KEY), value(&added, ADMIN_TOKEN_KEY)), ("1".repeat(32), "2".repeat(32)));
        let mut guessable = first.data;
        guessable.insert(ADMIN_TOKEN_KEY.to_owned(), ByteString(b"password".to_vec()));
        assert_eq!(value(&run(&BTreeMap::new(), &guessable, "3"), ADMIN_TOKEN_KEY), "3".repeat(32));
    }

    #[test]
    fn a_missing_or_malformed_source_keeps_the_last_good_content() {
        let first = run(&[("corp".into(), secret("modules.corp.example", "t1"))].into(), &Data::new(), "1");
        for sources in [BTreeMap::new(), [("corp".into(), secret("modules.corp.example", ""))].into()] {
            let after = run(&sources, &first.data, "2");
            assert!(after.data == first.data);
            assert!(after.problems[0].1.contains("keeps the last good content"));
        }
    }

    #[test]
    fn an_unlisted_host_is_not_served_and_the_message_is_the_remedy() {
        let after = run(&[("corp".into(), secret("other.example", "t1"))].into(), &Data::new(), "1");
        assert_eq!(after.data.keys().collect::<Vec<_>>(), [ADMIN_TOKEN_KEY, GENERATION_KEY]);
        assert_eq!(after.problems[0].0, "HostNotAllowed");
        assert!(after.problems[0].1.ends_with(
            "kubectl annotate secret corp --namespace build --overwrite gomodcache.io/hosts=other.example,modules.corp.example"
        ));
    }
}
