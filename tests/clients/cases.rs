//! Which go.mod files, with which go commands, and what is done with them.

use std::fmt;

/// A go.mod file and the client that reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// A toolchain's name, or `local` for the go command of this machine.
    pub(crate) client: &'static str,
    /// `module@version` whose go.mod is the main module's.
    pub(crate) module: &'static str,
    /// How many modules `go mod download` must bring at least.
    pub(crate) at_least: usize,
    /// `package@version` for `go install`.
    pub(crate) install: &'static str,
    /// The toolchain to switch to.
    pub(crate) switch: Option<&'static str>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.module, self.client)
    }
}

/// The oldest client: the first release line that chooses toolchains, and so the first one whose go.mod files are today's.
const OLDEST: &str = "go1.21.13";
const NEWEST: &str = "go1.27.4";

/// Small ones, for every run of the tests.
pub(crate) const SMALL: &[Case] = &[
    Case {
        client: "local",
        module: "golang.org/x/tools@v0.30.0",
        at_least: 5,
        // Below its module: the longest prefixes of its path are no modules, and no cache was told so for long.
        install: "golang.org/x/tools/cmd/stringer@v0.30.0",
        switch: Some(OLDEST),
    },
    Case {
        client: OLDEST,
        module: "golang.org/x/tools@v0.24.0",
        at_least: 5,
        install: "github.com/google/addlicense@v1.1.1",
        switch: None,
    },
];

/// Real and large.
pub(crate) const LARGE: &[Case] = &[
    Case {
        client: NEWEST,
        module: "helm.sh/helm/v3@v3.22.0",
        at_least: 170,
        install: "github.com/google/addlicense@v1.1.1",
        switch: Some(OLDEST),
    },
    Case {
        client: NEWEST,
        module: "github.com/prometheus/prometheus@v0.315.0",
        at_least: 240,
        install: "golang.org/x/tools/cmd/stringer@v0.40.0",
        switch: None,
    },
    Case {
        client: NEWEST,
        module: "github.com/influxdata/telegraf@v1.33.3",
        at_least: 500,
        install: "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
        switch: None,
    },
    Case {
        client: OLDEST,
        module: "helm.sh/helm/v3@v3.13.3",
        at_least: 150,
        install: "github.com/google/addlicense@v1.1.1",
        switch: Some(NEWEST),
    },
    Case {
        client: OLDEST,
        module: "github.com/prometheus/prometheus@v0.47.2",
        at_least: 180,
        install: "golang.org/x/tools/cmd/stringer@v0.24.0",
        switch: None,
    },
    Case {
        client: OLDEST,
        module: "github.com/influxdata/telegraf@v1.28.5",
        at_least: 480,
        install: "github.com/yannh/kubeconform/cmd/kubeconform@v0.6.4",
        switch: None,
    },
];

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Download,
    ListUpdates,
    Get,
    Install(&'static str),
    Switch(&'static str),
}

impl Case {
    /// `go mod download` comes first: what it brings says how large the case is.
    pub(crate) fn tasks(&self) -> Vec<Task> {
        let mut tasks = vec![Task::Download, Task::ListUpdates, Task::Get, Task::Install(self.install)];
        tasks.extend(self.switch.map(Task::Switch));
        tasks
    }
}

impl Task {
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Download => vec!["mod", "download"],
            Self::ListUpdates => vec!["list", "-m", "-u", "-json", "all"],
            // The newest of what there is, and a version that is named. Both are old enough for the oldest client.
            Self::Get => vec!["get", "github.com/pkg/errors@latest", "github.com/google/go-cmp@v0.6.0"],
            Self::Install(package) => vec!["install", "-trimpath", package],
            Self::Switch(_) => vec!["version"],
        }
    }

    /// What `GOTOOLCHAIN` is.
    pub(crate) fn toolchain(self) -> &'static str {
        if let Self::Switch(to) = self { to } else { "local" }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(to) => write!(f, "GOTOOLCHAIN={to}"),
            _ => write!(f, "go {}", self.arguments().join(" ")),
        }
    }
}
