//! A cluster at rest is left alone: by the API server's own log, with every period shortened to two seconds.
#![allow(clippy::print_stdout, reason = "the figures are for `make soak`")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::process::Process;
use super::stage::{Stage, stage_alone};
use super::{dns, secret, with_secret, with_upstream};

const HOST: &str = "modules.corp.example";
/// Of the operator, of whatever kind, in any ten seconds.
const READS_PER_SECOND: usize = 20;

/// The API server's audit log from here on.
struct Log {
    user: String,
    from: u64,
}

/// One request of the operator, the lease's apart.
struct Request {
    received: Timestamp,
    is_read: bool,
    /// Verb, kind, subresource and name.
    what: String,
    name: String,
}

impl Log {
    fn from_now(stage: &Stage) -> Option<Self> {
        let path = std::env::var_os("GOMODCACHE_AUDIT_LOG")?;
        Some(Self { user: stage.account().user.clone(), from: std::fs::metadata(path).unwrap().len() })
    }

    /// What was finished since, and what goes on.
    fn requests(&self) -> Vec<Request> {
        let mut log = std::fs::File::open(std::env::var_os("GOMODCACHE_AUDIT_LOG").unwrap()).unwrap();
        log.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        // A line that is being written is not ours yet.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = events.filter(|event| event["user"]["username"] == self.user.as_str() && event["objectRef"]["resource"] != "leases");
        // A watch is told of twice.
        ours.filter(|event| event["stage"] == if event["verb"] == "watch" { "ResponseStarted" } else { "ResponseComplete" })
            .map(|event| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (verb, object) = (text(&event["verb"]), &event["objectRef"]);
                let name = text(&object["name"]);
                Request {
                    received: event["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap(),
                    is_read: ["get", "list", "watch"].contains(&verb.as_str()),
                    what: format!("{verb} {}/{} {name}", text(&object["resource"]), text(&object["subresource"])),
                    name,
                }
            })
            .collect()
    }

    fn writes(&self) -> Vec<String> {
        self.requests().into_iter().filter(|request| !request.is_read).map(|request| request.what).collect()
    }

    /// Waits until nothing was written for three seconds.
    async fn await_rest(&self) {
        let deadline = Instant::now() + Duration::from_secs(1200);
        let (mut count, mut since) = (self.writes().len(), Instant::now());
        while since.elapsed() < Duration::from_secs(3) {
            assert!(Instant::now() < deadline, "the operator never came to rest");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.writes().len();
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
    }
}

/// The most reads in any ten seconds, and how many there were of each kind.
fn busiest(requests: &[Request]) -> (usize, BTreeMap<String, usize>) {
    let mut times: Vec<i64> = requests.iter().filter(|request| request.is_read).map(|request| request.received.as_millisecond()).collect();
    times.sort_unstable();
    let within = |(i, begin): (usize, &i64)| times[i..].iter().take_while(|time| **time < begin + 10_000).count();
    let most = times.iter().enumerate().map(within).max().unwrap_or(0);
    let mut kinds = BTreeMap::new();
    for request in requests.iter().filter(|request| request.is_read) {
        *kinds.entry(request.what.rsplit_once(' ').unwrap().0.to_owned()).or_insert(0) += 1;
    }
    (most, kinds)
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// The spec of the i-th cache: none, a shared or a Secret of its own, and a name that is resolved again and again.
fn spec(i: usize) -> Value {
    let mut spec = if i.is_multiple_of(3) { with_upstream(HOST) } else { with_secret(HOST) };
    if i % 3 == 2 {
        spec["upstreams"][0]["credentialsRef"]["name"] = json!(format!("corp-{i}"));
    }
    spec
}

async fn make_caches(stage: &Stage, count: usize) {
    let hosts = json!({"gomodcache.io/hosts": HOST});
    stage.apply(&secret(&hosts, "shared")).await;
    let made = futures::stream::iter(0..count).for_each_concurrent(16, async |i| {
        if i % 3 == 2 {
            let mut own = secret(&hosts, "own");
            own["metadata"]["name"] = json!(format!("corp-{i}"));
            stage.apply(&own).await;
        }
        stage.cache(&format!("c{i}"), &spec(i)).await;
    });
    made.await;
}

async fn await_reconciled(stage: &Stage, operator: &Process, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(1200);
    loop {
        // The operator's own word first: to list them all is work for the API server as well.
        let looked = operator.metric("gomodcache_operator_reconciles_total{outcome=\"ok\"}").await.unwrap_or(0.0);
        if looked >= f64::from(u32::try_from(count).unwrap()) {
            let observed = stage.list("GoModuleCache").await;
            let observed = observed.iter().filter(|cache| cache.data["status"]["observedGeneration"].as_i64() == cache.metadata.generation);
            if observed.count() == count && stage.list("Deployment").await.len() == count {
                return;
            }
        }
        assert!(Instant::now() < deadline, "not all caches were reconciled");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Everything of this stage's by UID and generation, which no status moves.
async fn children(stage: &Stage) -> BTreeSet<String> {
    let mut children = BTreeSet::new();
    for kind in ["ServiceAccount", "ConfigMap", "Secret", "Service", "PersistentVolumeClaim", "Deployment", "NetworkPolicy"] {
        let ours = |object: &kube::api::DynamicObject| {
            object.metadata.labels.as_ref().is_some_and(|l| l.contains_key("app.kubernetes.io/managed-by"))
        };
        for object in stage.list(kind).await.into_iter().filter(ours) {
            children.insert(format!("{kind} {:?} {:?} {:?}", object.metadata.name, object.metadata.uid, object.metadata.generation));
        }
    }
    children
}

/// QUIET_CACHES and QUIET_SECONDS; the long form is in `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_at_rest_is_left_alone_and_one_change_touches_one_cache() {
    let Some(stage) = stage_alone("quiet-many").await else { return };
    let Some(start) = Log::from_now(&stage) else {
        eprintln!("not run: no audit log (GOMODCACHE_AUDIT_LOG is not set)");
        return;
    };
    let (count, seconds) = (number("QUIET_CACHES", 30), number("QUIET_SECONDS", 10));
    let _stopped = stage.without_the_operator().await;
    dns::set(HOST, "203.0.113.7");
    make_caches(&stage, count).await;

    // A lease that outlasts a machine with too much to do: each term begins with a look at everything, which is no rest.
    let new = stage.new_operator().with_longest_period("2s").with_lease("60s", "50s", "2s");
    let begin = Instant::now();
    let first = new.start("pod-quiet");
    await_reconciled(&stage, &first, count).await;
    let made_in = begin.elapsed();
    start.await_rest().await;
    let requests = start.requests();
    let writes = requests.iter().filter(|request| !request.is_read).count();
    println!(
        "scale: {count} caches reconciled {:.1} s after the start, {:.1} writes and {:.1} reads each, RSS {} MiB",
        made_in.as_secs_f64(),
        per(writes, count),
        per(requests.len() - writes, count),
        first.rss_mib()
    );

    // At rest.
    let log = Log::from_now(&stage).unwrap();
    let cpu = first.cpu();
    tokio::time::sleep(Duration::from_secs(u64::try_from(seconds).unwrap())).await;
    let requests = log.requests();
    let (most, kinds) = busiest(&requests);
    let reads = requests.iter().filter(|request| request.is_read).count();
    println!(
        "quiet: {count} caches, {seconds} s: {} writes, {:.1} reads a second, at most {:.1} in any ten; {:.0} % of a core, RSS {} MiB; {kinds:?}",
        requests.len() - reads,
        per(reads, seconds),
        per(most, 10),
        100.0 * (first.cpu() - cpu).as_secs_f64() / per(seconds, 1),
        first.rss_mib()
    );
    assert_eq!(log.writes(), Vec::<String>::new(), "nothing had changed");
    assert!(most <= READS_PER_SECOND * 10, "{most} reads in ten seconds");
    assert!(reads > 0, "the log has no request of the operator");

    // One change.
    let log = Log::from_now(&stage).unwrap();
    stage.cache("c4", &json!({"upstreams": [{"url": "https://203.0.113.9/go"}]})).await;
    let told = async || stage.get("ConfigMap", "c4-config").await.unwrap().data.to_string().contains("203.0.113.9");
    stage.eventually("the change is applied", told).await;
    log.await_rest().await;
    let writes = log.requests().into_iter().filter(|request| !request.is_read);
    let (own, others): (Vec<Request>, Vec<Request>) = writes.partition(|request| request.name == "c4" || request.name.starts_with("c4-"));
    let others: Vec<String> = others.into_iter().map(|request| request.what).collect();
    println!("one change: {} writes to the cache's own objects, {} to others", own.len(), others.len());
    assert!(own.len() >= 3 && others.is_empty(), "{others:?}");

    // A restart, and a change of the leader.
    let (log, before) = (Log::from_now(&stage).unwrap(), children(&stage).await);
    first.signal("TERM");
    first.ended();
    let begin = Instant::now();
    let second = new.start("pod-second");
    await_reconciled(&stage, &second, count).await;
    let restarted = begin.elapsed();
    let third = new.start("pod-third");
    stage.eventually("the third is ready", async || third.admin("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    let standby = third.rss_mib();
    second.signal("TERM");
    second.ended();
    await_reconciled(&stage, &third, count).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reads = log.requests().len();
    println!(
        "restart: all looked at {:.1} s after the start, {:.1} reads each in two terms; RSS of a standby {standby} MiB",
        restarted.as_secs_f64(),
        per(reads, count)
    );
    assert_eq!(log.writes(), Vec::<String>::new(), "a new leader is no reason to write");
    assert_eq!(children(&stage).await, before);
    // In an orderly way: whoever leads next need not wait for the end of its long lease.
    third.signal("TERM");
    third.ended();
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn per(count: usize, of: usize) -> f64 {
    count as f64 / of as f64
}
