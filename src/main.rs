//! The command line of gomodcache.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gomodcache::config::Versions;
use gomodcache::{api, operator, proxy, telemetry, verify};

/// In-cluster Go module caches: a Kubernetes operator and the caching GOPROXY that it runs.
#[derive(Parser)]
#[command(name = "gomodcache", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a GOPROXY and checksum-database proxy with a disk cache.
    Proxy(ProxyArgs),
    /// Watch GoModuleCache objects and keep a proxy for each.
    Operator(OperatorArgs),
    /// Read every object of a cache and say which are broken.
    Verify(VerifyArgs),
    /// Print the CustomResourceDefinition.
    Crd,
}

#[derive(clap::Args)]
struct ProxyArgs {
    /// Address of the module endpoints.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of /livez, /readyz, /metrics, /report and /explain/<module>@<version>.
    #[arg(long, default_value = "127.0.0.1:8081")]
    admin_listen: SocketAddr,
    /// Folder of the cache [default: $XDG_CACHE_HOME/gomodcache].
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// Bytes that the cache may hold, such as 50Gi; the least useful zips go first [default, and at most: 95 % of the file system].
    #[arg(long, value_parser = gomodcache::quantity::parse_bytes)]
    cache_limit: Option<u64>,
    /// Configuration file. Without it the upstreams are the environment's GOPROXY and GOSUMDB, or what `go env` says.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Hosts to which the environment's upstreams may redirect; a configuration file says it of each upstream.
    #[arg(long, env = "GOMODCACHE_REDIRECT_HOSTS", value_delimiter = ',')]
    redirect_hosts: Vec<String>,
    /// How long from one scrub of the cache to the next; 0s: none. The first is 30 min after the start, or this if it is shorter.
    #[arg(long, env = "GOMODCACHE_SCRUB_EVERY", default_value = "24h", value_parser = duration)]
    scrub_every: Duration,
    /// How long to go on accepting connections after SIGTERM, until a Service has heard of it.
    #[arg(long, env = "GOMODCACHE_LINGER", default_value = "0s", value_parser = duration)]
    linger: Duration,
    /// For tests of upgrades: read these versions of the configuration, as an earlier or a later release would.
    #[arg(long, hide = true, env = "GOMODCACHE_CONFIG_VERSIONS", value_delimiter = ',')]
    config_versions: Vec<u32>,
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// Folder of the cache [default: $XDG_CACHE_HOME/gomodcache].
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// Move what is broken to .gomodcache/quarantine, so that it is fetched anew, and write anew the .ziphash of a good zip.
    #[arg(long)]
    quarantine: bool,
    /// Whom the output is for.
    #[arg(long, value_enum, default_value = "text")]
    output: verify::Output,
}

#[derive(clap::Args)]
struct OperatorArgs {
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:9090")]
    admin_listen: SocketAddr,
    /// Work in this namespace alone, under a Role and no ClusterRole [default: all namespaces].
    #[arg(long, env = "GOMODCACHE_NAMESPACE")]
    namespace: Option<String>,
    /// Upstreams of a cache that names none, in GOPROXY's syntax. `direct` is not followed, nor what comes after it.
    #[arg(long, env = "GOPROXY")]
    goproxy: String,
    /// Checksum database of every cache, in GOSUMDB's syntax, or `off`.
    #[arg(long, env = "GOSUMDB")]
    gosumdb: String,
    /// Hosts to which the default upstreams may redirect.
    #[arg(long, env = "GOMODCACHE_REDIRECT_HOSTS", value_delimiter = ',')]
    redirect_hosts: Vec<String>,
    /// Hosts of the default upstreams and of the checksum database that may have private addresses.
    #[arg(long, env = "GOMODCACHE_INTERNAL_HOSTS", value_delimiter = ',')]
    internal_hosts: Vec<String>,
    /// Image of the proxies.
    #[arg(long, env = "GOMODCACHE_PROXY_IMAGE")]
    proxy_image: String,
    /// How many caches at a time get new pods for a new proxy image or release.
    #[arg(long, env = "GOMODCACHE_MAX_CONCURRENT_ROLLOUTS", default_value = "1")]
    max_concurrent_rollouts: NonZeroUsize,
    /// How long a cache may take to become ready with new pods before no other gets them.
    #[arg(long, env = "GOMODCACHE_ROLLOUT_DEADLINE", default_value = "5m", value_parser = duration)]
    rollout_deadline: Duration,
    /// Name server (address:port) to ask in place of the system's; may be given more than once.
    #[arg(long = "name-server")]
    name_servers: Vec<SocketAddr>,
    /// Namespaces whose pods may scrape the metrics of every cache, besides the operator's own.
    #[arg(long, env = "GOMODCACHE_MONITORING_NAMESPACES", value_delimiter = ',')]
    monitoring_namespaces: Vec<String>,
    /// Send a Secret to any host, without the annotation gomodcache.io/hosts on it.
    #[arg(long)]
    allow_secrets_without_hosts: bool,
    /// For tests of upgrades: write these versions of the proxies' configuration, as an earlier or a later release would.
    #[arg(long, hide = true, env = "GOMODCACHE_CONFIG_VERSIONS", value_delimiter = ',')]
    config_versions: Vec<u32>,
    /// How long other operators wait for a leader that is silent; whole seconds.
    #[arg(long, env = "GOMODCACHE_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// How long a leader goes on without having renewed its lease.
    #[arg(long, env = "GOMODCACHE_RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    renew_deadline: Duration,
    /// How long between two attempts to get or renew the lease.
    #[arg(long, env = "GOMODCACHE_RETRY_PERIOD", default_value = "2s", value_parser = duration)]
    retry_period: Duration,
    /// No period but those of the election is longer than this; for tests.
    #[arg(long, env = "GOMODCACHE_LONGEST_PERIOD", value_parser = duration, hide = true)]
    longest_period: Option<Duration>,
}

/// Such as 15s or 700ms.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| format!("{text} is no duration such as 15s or 700ms"))?;
    Duration::try_from(parsed).map_err(|_| format!("{text} is negative"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the last word of a command is for the person who typed it")]
            {
                eprintln!("gomodcache: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    // One TLS provider for every client in the process; the second call of a process is refused and harmless.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Crd => {
            #[allow(clippy::print_stdout, reason = "this command's output")]
            {
                print!("{}", api::crd_yaml()?);
            }
        }
        Command::Verify(args) => {
            let cache_dir = args.cache_dir.map_or_else(default_cache_dir, Ok)?;
            if !verify::verify(&cache_dir, args.quarantine, args.output, &mut std::io::stdout())? {
                return Err("the cache holds objects that are broken or can't be read".into());
            }
        }
        Command::Proxy(args) => {
            telemetry::init_logging();
            let settings = proxy::Settings {
                listen: args.listen,
                admin_listen: args.admin_listen,
                cache_dir: args.cache_dir.map_or_else(default_cache_dir, Ok)?,
                cache_limit: args.cache_limit,
                config: args.config,
                redirect_hosts: args.redirect_hosts,
                config_versions: Versions::of(args.config_versions),
                scrub_every: args.scrub_every,
                linger: args.linger,
            };
            proxy::run(settings, telemetry::on_signal()?).await?;
        }
        Command::Operator(args) => {
            telemetry::init_logging();
            let namespace = args.namespace.filter(|namespace| !namespace.is_empty());
            let settings = operator::Settings {
                scope: namespace.map_or(operator::Scope::Cluster, operator::Scope::Namespace),
                admin_listen: args.admin_listen,
                goproxy: args.goproxy,
                gosumdb: args.gosumdb,
                redirect_hosts: args.redirect_hosts,
                internal_hosts: args.internal_hosts,
                proxy_image: args.proxy_image,
                rollouts: operator::RolloutLimits { at_once: args.max_concurrent_rollouts.get(), deadline: args.rollout_deadline },
                name_servers: args.name_servers,
                monitoring_namespaces: args.monitoring_namespaces,
                require_host_annotation: !args.allow_secrets_without_hosts,
                config_versions: Versions::of(args.config_versions),
                election: operator::Timing { lease: args.lease_duration, renew: args.renew_deadline, retry: args.retry_period },
                longest_period: args.longest_period,
            };
            operator::run(settings, telemetry::on_signal()?).await?;
        }
    }
    Ok(())
}

/// `$XDG_CACHE_HOME/gomodcache`, or `~/.cache/gomodcache`.
fn default_cache_dir() -> Result<PathBuf, String> {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("gomodcache"))
        .ok_or_else(|| "neither XDG_CACHE_HOME nor HOME is set: say where to cache with --cache-dir".to_owned())
}
