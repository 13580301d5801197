//! What clients may not have: denied modules and versions, all but the allowed ones, and versions that are too young.
//!
//! A go.mod file is never too young: it is asked for while versions are chosen, and no code comes with it. Private modules
//! and toolchains have no minimum age, and an allow list need not name toolchains.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{self, ProxyConfig};
use crate::gomod::{ModulePath, Patterns, PseudoVersion, Request, Version, VersionInfo, semver};
use crate::quantity::parse_duration;
use crate::source::FetchError;

pub(super) const TOOLCHAIN: &str = "golang.org/toolchain";
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
    pub(super) fn filters(&self, module: &ModulePath) -> bool {
        self.minimum_age(module).is_some() || self.deny.iter().chain(&self.allow).any(|rule| rule.version.is_some())
    }

    /// The versions of a list that no rule is against, in its order. Others have their turn meanwhile.
    pub(super) async fn listed(&self, module: &ModulePath, list: &str) -> Vec<Version> {
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
    pub(super) fn judge_answer(&self, module: &ModulePath, info: &[u8], minimum: Option<Duration>) -> Result<(), FetchError> {
        let version = VersionInfo::parse(info).ok().and_then(|info| Version::new(&info.version).ok());
        if let Some(rule) = self.rules_about(module).against(version.as_ref()) {
            return Err(FetchError::Denied(rule));
        }
        minimum.map_or(Ok(()), |minimum| self.judge_info(info, minimum))
    }

    /// Judges the age of a version that has its time in its name.
    pub(super) fn judge_name(&self, version: &Version, minimum: Duration) -> Option<Result<(), FetchError>> {
        let time = PseudoVersion::parse(version.as_str())?.time().and_then(|time| time.to_zoned(TimeZone::UTC).ok());
        Some(self.judge_time(version.as_str(), time.map(|time| time.timestamp()), minimum))
    }

    /// Judges the age of a version by its `.info` file.
    pub(super) fn judge_info(&self, info: &[u8], minimum: Duration) -> Result<(), FetchError> {
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

#[cfg(test)]
mod tests;
