//! Operator processes besides the one that all tests share.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::serving;

/// The upstreams of an operator under test.
pub(crate) const UPSTREAMS: [&str; 4] = ["--goproxy", "https://modules.corp.example/go,direct", "--gosumdb", "sum.corp.example"];

/// So that an operator that was killed is soon replaced.
pub(crate) const SHORT_LEASE: [(&str, &str); 3] =
    [("GOMODCACHE_LEASE_DURATION", "4s"), ("GOMODCACHE_RENEW_DEADLINE", "3s"), ("GOMODCACHE_RETRY_PERIOD", "300ms")];

/// How to run one.
#[derive(Clone)]
pub(crate) struct NewOperator {
    kubeconfig: String,
    name_server: String,
    lease: [(&'static str, &'static str); 3],
    namespace: String,
    longest_period: Option<&'static str>,
    arguments: Vec<String>,
}

/// One that runs; it is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: String,
    /// Where its own log begins, in bytes.
    begin: usize,
}

impl NewOperator {
    pub(crate) fn new(kubeconfig: &str, name_server: &str) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            name_server: name_server.to_owned(),
            lease: SHORT_LEASE,
            namespace: super::account::own_name(),
            longest_period: None,
            arguments: Vec::new(),
        }
    }

    /// With every period but the election's as short as this.
    pub(crate) fn with_longest_period(mut self, period: &'static str) -> Self {
        self.longest_period = Some(period);
        self
    }

    pub(crate) fn with_lease(mut self, duration: &'static str, deadline: &'static str, retry: &'static str) -> Self {
        self.lease = [("GOMODCACHE_LEASE_DURATION", duration), ("GOMODCACHE_RENEW_DEADLINE", deadline), ("GOMODCACHE_RETRY_PERIOD", retry)];
        self
    }

    /// With these on its command line besides; the last of several has its way.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// By this way to the API server, and with a lease in this namespace.
    pub(crate) fn behind(mut self, kubeconfig: &str, namespace: &str) -> Self {
        (self.kubeconfig, self.namespace) = (kubeconfig.to_owned(), namespace.to_owned());
        self
    }

    /// Starts it as this pod, which stands in its lease and in the user agent of its requests.
    pub(crate) fn start(&self, pod: &str) -> Process {
        let log = format!("{}/operator-{pod}-{}.log", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let begin = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gomodcache"))
            .args(["operator", "--admin-listen", "127.0.0.1:0", "--name-server", &self.name_server])
            .args(UPSTREAMS)
            .args(&self.arguments)
            .env("GOMODCACHE_PROXY_IMAGE", "localhost/gomodcache:dev")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAMESPACE", &self.namespace)
            .env("POD_NAME", pod)
            .envs(self.lease)
            .envs(self.longest_period.map(|period| ("GOMODCACHE_LONGEST_PERIOD", period)))
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the operator starts");
        Process { child, log, begin }
    }
}

impl Process {
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) {
        self.child.wait().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it and earlier ones of its name have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Status and body of an admin endpoint; nothing while it does not answer.
    pub(crate) async fn admin(&self, path: &str) -> Option<(u16, String)> {
        let said = serving(self.log().get(self.begin..)?)?;
        let answer = reqwest::get(format!("http://{}{path}", said["admin"].as_str()?)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// What it holds of the machine's memory.
    pub(crate) fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// The processor's time that it used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // User and system time, in hundredths, after the name in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
    }

    /// The value of a metric, with its labels as they stand there, if it has any.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
