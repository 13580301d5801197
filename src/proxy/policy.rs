//! What clients may not have: denied modules and versions, all but the allowed ones, and versions that are too young.
//!
//! A go.mod file is never too young: it is asked for while versions are chosen, and no code comes with it. Private modules
//! and toolchains have no minimum age, and an allow list need not name toolchains.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cache::{Answer, Cache, OnMiss};
use super::labels::Outcome;
use super::memory::Hot;
use crate::config::{self, ProxyConfig};
use crate::gomod::{ModulePath, Patterns, PseudoVersion, Request, Version, VersionInfo, semver, synthesized_go_mod};
use crate::quantity::parse_duration;
use crate::source::{Class, Fault, FetchError};

pub(super) const TOOLCHAIN: &str = "golang.org/toolchain";
/// How many versions' times are asked for at once.
const AT_ONCE: usize = 32;
/// How many lines of a list are read before others have their turn: the longest list has two million.
const LINES_AT_ONCE: usize = 1_000;

/// The rules of one configuration.
#[derive(Debug, Default)]
pub(super) struct Policy {
    deny: Vec<Rule>,
    allow: Vec<Rule>,
    minimum_age: Option<(Duration, String)>,
    private: Patterns,
}

#[derive(Debug)]
struct Rule {
    text: String,
    paths: Patterns,
    version: Option<String>,
}

/// The rules whose pattern matches one module. A list has thousands of versions, which differ in their version alone.
struct ModuleRules<'a> {
    deny: Vec<&'a Rule>,
    /// None: every version is allowed.
    allow: Option<Vec<&'a Rule>>,
}

impl Policy {
    pub(super) fn new(config: &ProxyConfig) -> Result<Self, String> {
        let rules = Self::of(&config.policy)?;
        Ok(Self { private: config.private().map_err(|e| e.to_string())?, ..rules })
    }

    /// The rules alone: without private modules.
    pub(super) fn of(policy: &config::Policy) -> Result<Self, String> {
        let config::Policy { deny, allow, minimum_release_age } = policy;
        let rules = |key: &str, list: &[String]| {
            list.iter().map(|text| Rule::parse(text).map_err(|reason| format!("policy.{key}: {reason}"))).collect::<Result<Vec<_>, _>>()
        };
        let parse_age = |text: &String| {
            parse_duration(text).map(|age| (age, text.clone())).map_err(|reason| format!("policy.minimumReleaseAge: {reason}"))
        };
        let minimum_age = minimum_release_age.as_ref().map(parse_age).transpose()?;
        let deny = rules("deny", deny)?.into_iter().map(Rule::ignoring_case).collect();
        Ok(Self { deny, allow: rules("allow", allow)?, minimum_age, private: Patterns::default() })
    }

    /// The rule against a request, whatever its version's age.
    pub(super) fn refusal(&self, request: &Request) -> Option<FetchError> {
        let module = request.module()?;
        self.rules_about(module).against(request.version()).map(FetchError::Denied)
    }

    fn rules_about(&self, module: &ModulePath) -> ModuleRules<'_> {
        let is_listed = self.allow.is_empty() || module.as_str() == TOOLCHAIN;
        let about = |rule: &&Rule| rule.paths.matches(module.as_str());
        let allow = (!is_listed).then(|| self.allow.iter().filter(about).collect());
        ModuleRules { deny: self.deny.iter().filter(about).collect(), allow }
    }

    /// The least age of a module's versions.
    pub(super) fn minimum_age(&self, module: &ModulePath) -> Option<Duration> {
        let (age, _) = self.minimum_age.as_ref()?;
        (module.as_str() != TOOLCHAIN && !self.private.matches(module.as_str())).then_some(*age)
    }

    /// Whether lists of a module are to be filtered.
    fn filters(&self, module: &ModulePath) -> bool {
        self.minimum_age(module).is_some() || self.deny.iter().chain(&self.allow).any(|rule| rule.version.is_some())
    }

    /// The versions of a list that no rule is against, in its order. Others have their turn meanwhile.
    async fn listed(&self, module: &ModulePath, list: &str) -> Vec<Version> {
        let (rules, mut listed) = (self.rules_about(module), Vec::new());
        for (n, line) in list.lines().enumerate() {
            if n % LINES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            // A go command does not look at what is no version either.
            let version = line.split_whitespace().next().and_then(|text| Version::new(text).ok()).filter(Version::is_canonical);
            listed.extend(version.filter(|version| rules.against(Some(version)).is_none()));
        }
        listed
    }

    /// Judges what an `.info` file names: that of `@latest` or a branch names another version than was asked for.
    fn judge_answer(&self, module: &ModulePath, info: &[u8], minimum: Option<Duration>) -> Result<(), FetchError> {
        let version = VersionInfo::parse(info).ok().and_then(|info| Version::new(&info.version).ok());
        if let Some(rule) = self.rules_about(module).against(version.as_ref()) {
            return Err(FetchError::Denied(rule));
        }
        minimum.map_or(Ok(()), |minimum| self.judge_info(info, minimum))
    }

    /// Judges the age of a version that has its time in its name.
    fn judge_name(&self, version: &Version, minimum: Duration) -> Option<Result<(), FetchError>> {
        let time = PseudoVersion::parse(version.as_str())?.time().and_then(|time| time.to_zoned(TimeZone::UTC).ok());
        Some(self.judge_time(version.as_str(), time.map(|time| time.timestamp()), minimum))
    }

    /// Judges the age of a version by its `.info` file.
    fn judge_info(&self, info: &[u8], minimum: Duration) -> Result<(), FetchError> {
        let info = VersionInfo::parse(info).unwrap_or_default();
        self.judge_time(&info.version, info.timestamp(), minimum)
    }

    fn judge_time(&self, version: &str, time: Option<Timestamp>, minimum: Duration) -> Result<(), FetchError> {
        let rule = || self.minimum_age.as_ref().map(|(_, text)| text.as_str()).unwrap_or_default();
        let Some(time) = time else { return Err(FetchError::Denied(format!("minimumReleaseAge {}: {version} has no time", rule()))) };
        let age = SystemTime::now().duration_since(SystemTime::from(time)).unwrap_or_default();
        if age >= minimum {
            return Ok(());
        }
        Err(FetchError::Denied(format!("minimumReleaseAge {}: {version} is from {}", rule(), time.strftime("%Y-%m-%d %H:%M UTC"))))
    }
}

impl Rule {
    /// A glob of module paths, or one and a version: `a.example/*`, `a.example/m@v1.2.3`.
    fn parse(text: &str) -> Result<Self, String> {
        let (glob, version) = text.split_once('@').map_or((text, None), |(glob, version)| (glob, Some(version)));
        if let Some(version) = version.filter(|version| semver::canonical_version(version).as_deref() != Some(version)) {
            return Err(format!("{text:?}: {version:?} is not a whole version such as v1.2.3"));
        }
        let paths = Patterns::parse([glob]).map_err(|e| e.to_string())?;
        if paths.is_empty() {
            return Err(format!("{text:?} names no module path"));
        }
        Ok(Self { text: text.to_owned(), paths, version: version.map(str::to_owned) })
    }

    /// Hosts of code do not tell upper from lower case, so that another spelling would get round a rule.
    fn ignoring_case(self) -> Self {
        Self { paths: self.paths.ignoring_case(), ..self }
    }

    /// Whether it is about every version, or this one.
    fn is_about(&self, version: Option<&Version>) -> bool {
        // The same version of a module without a go.mod file has another name.
        let is = |text: &str, only: &str| text == only || text.trim_end_matches(semver::INCOMPATIBLE) == only;
        self.version.as_ref().is_none_or(|only| version.is_some_and(|version| is(version.as_str(), only)))
    }
}

impl ModuleRules<'_> {
    /// The rule against a version, or against what is about no version.
    fn against(&self, version: Option<&Version>) -> Option<String> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.is_about(version)) {
            return Some(format!("deny {}", rule.text));
        }
        // What is about no version is allowed where one version is.
        let is_any = version.is_none_or(|version| !version.is_canonical());
        let is_allowed = self.allow.as_ref().is_none_or(|allow| allow.iter().any(|rule| is_any || rule.is_about(version)));
        (!is_allowed).then(|| "only the modules of its allow list".to_owned())
    }
}

impl Cache {
    /// Answers a request within the policy.
    pub(super) async fn answer_allowed(
        self: &Arc<Self>,
        policy: &Policy,
        request: &Arc<Request>,
        on_miss: OnMiss<'_>,
    ) -> (Answer, Outcome) {
        let Some(module) = request.module() else { return self.look_up(request, on_miss).await };
        let minimum = policy.minimum_age(module);
        if let (Request::Zip(_, version), Some(minimum)) = (&**request, minimum)
            && let Err(error) = self.judge_age(policy, module, version, minimum).await
        {
            return denied_or(error);
        }
        let (answer, outcome) = self.look_up(request, on_miss).await;
        let Some(bytes) = answer.bytes() else {
            let is_info = matches!(**request, Request::Info(..) | Request::Latest(_));
            return match (&answer, minimum) {
                (Answer::File(..), Some(_)) if is_info => denied_or(too_long()),
                _ => (answer, outcome),
            };
        };
        let refused = match &**request {
            Request::List(_) if policy.filters(module) => {
                let is_old = matches!(answer, Answer::Stale(..));
                return match self.allowed_versions(policy, module, &bytes, is_old).await {
                    Ok(versions) => (answer.with_bytes(lines(&versions)), outcome),
                    Err(error) => denied_or(error),
                };
            }
            Request::Info(..) | Request::Latest(_) => policy.judge_answer(module, &bytes, minimum).err(),
            _ => None,
        };
        let Some(refusal) = refused else { return (answer, outcome) };
        // The newest version that clients may have takes the place of one that they may not.
        if matches!(**request, Request::Latest(_))
            && let Some(info) = self.latest_allowed(policy, module).await
        {
            return (answer.with_bytes(info), outcome);
        }
        denied_or(refusal)
    }

    /// Whether a version is old enough to be fetched.
    pub(super) async fn judge_age(
        self: &Arc<Self>,
        policy: &Policy,
        module: &ModulePath,
        version: &Version,
        minimum: Duration,
    ) -> Result<(), FetchError> {
        match policy.judge_name(version, minimum) {
            Some(verdict) => verdict,
            None => policy.judge_info(&self.info(module, version).await?, minimum),
        }
    }

    /// What is against a version for its age by what is here: nobody is asked.
    pub(super) async fn known_too_young(&self, module: &ModulePath, version: &Version) -> Option<FetchError> {
        let policy = self.live.policy();
        let minimum = policy.minimum_age(module)?;
        let verdict = match policy.judge_name(version, minimum) {
            Some(verdict) => verdict,
            None => {
                let info = Request::Info(module.clone(), version.clone());
                let (bytes, _) = self.read_state(self.store.path(&info)).await?;
                policy.judge_info(&bytes, minimum)
            }
        };
        verdict.err()
    }

    async fn info(self: &Arc<Self>, module: &ModulePath, version: &Version) -> Result<Bytes, FetchError> {
        let request = Arc::new(Request::Info(module.clone(), version.clone()));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        match answer {
            Answer::Error(error) => Err(error),
            answer => answer.bytes().ok_or_else(too_long),
        }
    }

    /// What of a list clients may have, in its order. `is_old`: the list is shown for want of a newer one. What was judged before is
    /// here, so a version that can't be judged in an outage is one that was left out then; it does not keep the others from being
    /// listed, unless they all are.
    async fn allowed_versions(
        self: &Arc<Self>,
        policy: &Policy,
        module: &ModulePath,
        list: &[u8],
        is_old: bool,
    ) -> Result<Vec<String>, FetchError> {
        let candidates = policy.listed(module, &String::from_utf8_lossy(list)).await;
        let Some(minimum) = policy.minimum_age(module) else { return Ok(candidates.iter().map(ToString::to_string).collect()) };
        let judge = |version: Version| async move {
            let verdict = self.judge_age(policy, module, &version, minimum).await;
            (version, verdict)
        };
        let mut judged = futures::stream::iter(candidates).map(judge).buffered(AT_ONCE);
        let (mut allowed, mut unknown) = (Vec::new(), None);
        while let Some((version, verdict)) = judged.next().await {
            match verdict {
                Ok(()) => allowed.push(version.to_string()),
                // Too young, or listed and not there, or wrong: it does not keep the others from being listed.
                Err(
                    FetchError::Denied(_)
                    | FetchError::NotFound { .. }
                    | FetchError::Fault(Fault { class: Class::ClientError | Class::Verification, .. }),
                ) => {}
                Err(error) if is_old || matches!(error, FetchError::Offline) => unknown = Some(error),
                Err(error) => return Err(error),
            }
        }
        unknown.filter(|_| allowed.is_empty()).map_or(Ok(allowed), Err)
    }

    /// The newest of the versions that clients may have, chosen as a go command chooses.
    async fn latest_allowed(self: &Arc<Self>, policy: &Policy, module: &ModulePath) -> Option<Bytes> {
        let request = Arc::new(Request::List(module.clone()));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        let allowed = self.allowed_versions(policy, module, &answer.bytes()?, matches!(answer, Answer::Stale(..))).await.ok()?;
        let highest = |versions: &[&str]| versions.iter().copied().max_by(|a, b| semver::compare(a, b)).map(str::to_owned);
        let is_incompatible = |version: &&str| version.ends_with(semver::INCOMPATIBLE);
        let (incompatible, mut versions): (Vec<&str>, Vec<&str>) = allowed.iter().map(String::as_str).partition(is_incompatible);
        // Only where the newest of the others has no go.mod file: https://go.dev/issue/34165
        let has_go_mod = match highest(&versions) {
            Some(newest) if !incompatible.is_empty() => self.has_go_mod(module, &newest).await,
            newest => newest.is_some(),
        };
        if !has_go_mod {
            versions.extend(incompatible);
        }
        let is_release = |version: &&str| semver::Semver::parse(version).is_some_and(|v| v.prerelease().is_empty());
        let releases: Vec<&str> = versions.iter().copied().filter(is_release).collect();
        let latest = highest(&releases).or_else(|| highest(&versions))?;
        self.info(module, &Version::new(&latest).ok()?).await.ok()
    }

    /// Whether a version has a go.mod file of its own, and not the one that is made up where there is none.
    async fn has_go_mod(self: &Arc<Self>, module: &ModulePath, version: &str) -> bool {
        let Ok(version) = Version::new(version) else { return false };
        let request = Arc::new(Request::Mod(module.clone(), version));
        let (answer, _) = self.look_up(&request, &|| ()).await;
        // One that can't be had now leads nobody to another major version.
        answer.bytes().is_none_or(|bytes| bytes != synthesized_go_mod(module))
    }
}

impl Answer {
    /// The bytes of a small object.
    fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Hot(hot) => Some(hot.body.clone()),
            Self::Stale(bytes, _) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The same answer with other bytes.
    fn with_bytes(self, bytes: Bytes) -> Self {
        match self {
            Self::Hot(hot) => Self::Hot(Arc::new(Hot::mutable(bytes, &hot.request, hot.fresh_until.unwrap_or_else(Instant::now)))),
            Self::Stale(_, age) => Self::Stale(bytes, age),
            other => other,
        }
    }
}

fn denied_or(error: FetchError) -> (Answer, Outcome) {
    let outcome = match error {
        FetchError::Denied(_) => Outcome::Denied,
        FetchError::NotFound { .. } => Outcome::NotFound,
        _ => Outcome::Error,
    };
    (Answer::Error(error), outcome)
}

fn too_long() -> FetchError {
    FetchError::Denied("its .info is too long to be judged by".to_owned())
}

fn lines(versions: &[String]) -> Bytes {
    Bytes::from(versions.iter().fold(String::new(), |text, version| text + version + "\n"))
}

#[cfg(test)]
mod tests;
