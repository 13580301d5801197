//! What fifty clients see while things change under them. They are curl's, in the node's own network.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gomodcache::gomod::{ModulePath, Version};

use super::cluster::{apply, cluster, eventually, kubectl_ok, metrics, path_from_top, pod_uid, runner};
use super::{CACHE, FRESH_DOWNLOAD, stage};

const CLIENTS: &str = "50";
/// For how long a client waits: one whose pod has gone hears nothing any more.
const PATIENCE: &str = "10";

/// The zips that a real go.sum names, as paths under GOPROXY.
fn zips() -> Vec<String> {
    let go_sum = std::fs::read_to_string(path_from_top("tests/cluster/dns/go.sum")).unwrap();
    let path_of = |line: &str| {
        let mut words = line.split(' ');
        let (module, version) = (words.next()?, words.next()?);
        let (module, version) = (ModulePath::new(module).ok()?, Version::new(version).ok()?);
        Some(format!("{}/@v/{}.zip", module.escaped(), version.escaped()))
    };
    go_sum.lines().filter(|line| !line.contains("/go.mod ")).filter_map(path_of).collect()
}

/// Fifty clients ask for these, each once; the statuses of the answers that came whole, and `000` for each that did not.
fn fetch(address: &str, paths: &[String]) -> Vec<String> {
    let config: String = paths.iter().map(|path| format!("url = \"http://{address}/{path}\"\noutput = \"/dev/null\"\n")).collect();
    let mut curl = Command::new(path_from_top("tests/cluster/cluster"))
        .args(["exec", "curl", "--silent", "--parallel", "--parallel-immediate", "--parallel-max", CLIENTS, "--max-time", PATIENCE])
        .args(["--write-out", "%{exitcode} %{http_code}\\n", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let said = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    let status = |line: &str| line.strip_prefix("0 ").unwrap_or("000").to_owned();
    said.lines().map(status).collect()
}

/// Has the clients ask again and again while something is done, which is told how many rounds were served whole so far;
/// the statuses of all answers.
fn under_load(address: &str, paths: &[String], done: impl FnOnce(&AtomicUsize)) -> Vec<String> {
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let statuses = fetch(address, paths);
                let whole = statuses.iter().all(|status| status == "200");
                seen.extend(statuses);
                if whole {
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }
            seen
        });
        // The load ends also where what is done fails.
        let stopper = Stopper(&stop);
        done(&rounds);
        drop(stopper);
        clients.join().unwrap()
    })
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn address_of(cache: &str) -> String {
    let address = kubectl_ok(&["-n", "build", "get", "service", cache, "-o", "jsonpath={.spec.clusterIP}"]);
    format!("{}:8080", address.trim())
}

fn is_applied(cache: &str, pattern: &str) -> bool {
    let config = kubectl_ok(&["-n", "build", "get", "configmap", &format!("{cache}-config"), "-o", "jsonpath={.data}"]);
    let path = "jsonpath={.status.conditions[?(@.type=='ConfigurationApplied')].status}";
    config.contains(pattern) && kubectl_ok(&["-n", "build", "get", "gomodulecache", cache, "-o", path]) == "True"
}

#[test]
fn f1_a_change_of_configuration_while_fifty_clients_download_loses_no_request() {
    let Some(_stage) = stage() else { return };
    let (uid, address, zips) = (pod_uid("build", "ci"), address_of("ci"), zips());
    assert_eq!(fetch(&address, &zips).into_iter().filter(|status| status != "200").collect::<Vec<_>>(), Vec::<String>::new());
    let reloads = || metrics("build", "ci").keys().find(|name| name.starts_with("gomodcache_config_info{")).cloned();
    let mut configurations = vec![reloads()];
    let statuses = under_load(&address, &zips, |rounds| {
        for change in 1..=3 {
            let pattern = format!("git{change}.corp.example/*");
            apply(&CACHE.replace("spec:", &format!("spec:\n  privateModules: [{{pattern: {pattern}}}]")));
            eventually("the change is applied", || is_applied("ci", &pattern));
            configurations.push(reloads());
        }
        let so_far = rounds.load(Ordering::Relaxed);
        eventually("another round has ended", || rounds.load(Ordering::Relaxed) > so_far);
    });
    let lost = statuses.iter().filter(|status| *status != "200").count();
    assert_eq!(lost, 0, "of {} requests", statuses.len());
    assert!(statuses.len() > 2 * zips.len());
    configurations.dedup();
    assert_eq!(configurations.len(), 4, "the running proxy took each: {configurations:?}");
    assert_eq!(pod_uid("build", "ci"), uid);
    eprintln!("{} requests, none lost", statuses.len());
    apply(CACHE);
}

#[test]
fn f2_a_pod_deleted_under_load_and_the_one_after_it_keep_every_object_whole_and_the_limit() {
    let Some(_stage) = stage() else { return };
    // A tenth of it is less than what the clients ask for, so that both write and evict without an end.
    apply(&CACHE.replace("name: ci,", "name: small,").replace("size: 1Gi", "size: 320Mi, evictAbovePercent: 10"));
    kubectl_ok(&["-n", "build", "wait", "--for=condition=Ready", "gomodulecache/small", "--timeout=120s"]);
    let (uid, address, zips) = (pod_uid("build", "small"), address_of("small"), zips());
    let limit = 320 * 1024 * 1024 / 100 * 10;
    let statuses = under_load(&address, &zips, |rounds| {
        eventually("a round", || rounds.load(Ordering::Relaxed) > 0);
        // It ends what it has begun, beside the next.
        kubectl_ok(&["-n", "build", "delete", "pod", "-l", "app.kubernetes.io/instance=small", "--wait=false"]);
        eventually("another pod is ready", || {
            let other = pod_uid("build", "small");
            let ready = format!("jsonpath={{.items[?(@.metadata.uid=='{other}')].status.conditions[?(@.type=='Ready')].status}}");
            !["", uid.as_str()].contains(&other.as_str()) && kubectl_ok(&["-n", "build", "get", "pods", "-o", &ready]) == "True"
        });
        let so_far = rounds.load(Ordering::Relaxed);
        eventually("it serves two rounds", || rounds.load(Ordering::Relaxed) > so_far + 1);
    });
    let served = statuses.iter().filter(|status| *status == "200").count();
    let strange: Vec<_> = statuses.iter().filter(|status| !["200", "000"].contains(&status.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");

    let found = kubectl_ok(&[
        "-n",
        "build",
        "exec",
        "deployment/small-proxy",
        "--",
        "/gomodcache",
        "verify",
        "--cache-dir",
        "/var/cache/gomodcache",
        "--output",
        "json",
    ]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let bytes = found["bytes"].as_u64().unwrap();
    assert!(bytes <= limit && bytes > limit / 2, "{bytes} bytes, where {limit} may be: {found}");
    eprintln!("{} requests, {served} served while the pod was replaced; {found}", statuses.len());
    kubectl_ok(&["-n", "build", "delete", "gomodulecache", "small", "--wait=false"]);
}

#[test]
fn f3_a_kubelet_and_a_containerd_that_were_killed_come_back_to_the_same_pods() {
    let Some(_stage) = stage() else { return };
    let uid = pod_uid("build", "ci");
    for daemon in ["containerd", "kubelet"] {
        cluster(&["restart", daemon]);
    }
    eventually("the node is well", || {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        kubectl_ok(&["get", "node", "node", "-o", path]) == "True"
    });
    // Both have work to do before this is in the running pod: the one makes it, the other asks.
    apply(&CACHE.replace("spec:", "spec:\n  privateModules: [{pattern: after.corp.example/*}]"));
    eventually("a change reaches the pod", || is_applied("ci", "after.corp.example/*"));
    eventually("a pod can be entered", || super::kubectl(&["-n", "build", "exec", "runner", "--", "true"]).is_ok());
    runner(FRESH_DOWNLOAD);
    assert_eq!(pod_uid("build", "ci"), uid, "the pod was replaced");
    apply(CACHE);
}
