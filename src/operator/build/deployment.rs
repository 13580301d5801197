//! The pods. Nothing here depends on upstreams, pins or credentials: those reach a running pod by its mounts.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{IMAGE_FROM, IMAGE_FROM_OPERATOR, PODS_ASKED, PODS_MADE, Validated, labels, owned, selector};
use crate::config::{ADMIN_PORT, CACHE_DIR, CONFIG_DIR, CONFIG_FILE, CREDENTIALS_DIR, HTTP_PORT};
use crate::report::config_digest;

/// The user that the proxy runs as; the one that distroless images call nonroot.
const USER: i64 = 65532;
/// Seconds that a pod stays bound to a node that is not heard of.
const NODE_LOST: i64 = 30;
/// For how long a pod takes connections after SIGTERM; what it drains afterwards has the rest of its 30 s.
const LINGER: (&str, &str) = ("GOMODCACHE_LINGER", "4s");

/// A pod template that stays as it is stored, with its label [`PODS_MADE`].
#[derive(Clone)]
pub(crate) struct Kept {
    pub template: PodTemplateSpec,
    pub made: Option<String>,
}

/// What tells a change of the pod template by a user from one by another release of the operator: digests, and not the stored
/// template, since the server's defaults and other people's additions are in that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub asked: String,
    pub made: String,
}

impl Marks {
    /// What tells these pods with this image from all others.
    #[must_use]
    pub(crate) fn with_image(&self, image: &str) -> String {
        digest(&json!([self.made, image]))
    }
}

/// The marks of a cache's pods.
#[must_use]
pub(crate) fn marks(cache: &Validated) -> Marks {
    let spec = &cache.cache.spec;
    let mut template = template(cache);
    // The image of the operator's setting is told apart by itself, and one of the spec's own is asked for.
    template.spec.iter_mut().flat_map(|pod| &mut pod.containers).for_each(|container| container.image = None);
    // All that a template is made of, and nothing that a running pod takes.
    Marks { asked: digest(&json!([spec.pod_template, spec.image, cache.sharing.replicas > 1])), made: digest(&json!(template)) }
}

fn digest(value: &Value) -> String {
    config_digest(&value.to_string())
}

pub(super) fn build(cache: &Validated) -> Deployment {
    let spec = &cache.cache.spec;
    // Two pods of a roll can't both mount a volume of one node or pod.
    let strategy = if cache.sharing.by_nodes { "RollingUpdate" } else { "Recreate" };
    let mut metadata = owned(cache, &cache.names.proxy);
    let image_from = if spec.image.is_some() { "spec" } else { IMAGE_FROM_OPERATOR };
    let Marks { asked, made } = marks(cache);
    let (template, made) = match cache.kept.clone() {
        Some(Kept { template, made }) => (template, made),
        None => (template(cache), Some(made)),
    };
    let told = [(IMAGE_FROM, Some(image_from.to_owned())), (PODS_ASKED, Some(asked)), (PODS_MADE, made)];
    metadata.labels.get_or_insert_default().extend(told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(cache.sharing.replicas),
            selector: LabelSelector { match_labels: Some(selector(cache)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy { type_: Some(strategy.to_owned()), ..DeploymentStrategy::default() }),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn template(cache: &Validated) -> PodTemplateSpec {
    PodTemplateSpec { metadata: Some(pod_metadata(cache)), spec: Some(pod(cache)) }
}

fn pod_metadata(cache: &Validated) -> ObjectMeta {
    let template = cache.cache.spec.pod_template.clone().unwrap_or_default();
    let mut all = template.labels;
    // Ours last: by them the Services and the fence find the pods.
    all.extend(labels(cache));
    let annotations = (!template.annotations.is_empty()).then_some(template.annotations);
    ObjectMeta { labels: Some(all), annotations, ..ObjectMeta::default() }
}

fn pod(cache: &Validated) -> PodSpec {
    let template = cache.cache.spec.pod_template.clone().unwrap_or_default();
    let pull_secrets: Vec<_> = template.image_pull_secrets.into_iter().map(|secret| LocalObjectReference { name: secret.name }).collect();
    PodSpec {
        service_account_name: template.service_account_name.or_else(|| Some(cache.names.proxy.clone())),
        affinity: template.affinity,
        priority_class_name: template.priority_class_name,
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        topology_spread_constraints: (cache.sharing.replicas > 1).then(|| vec![over_nodes(cache)]),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        dns_policy: Some("Default".to_owned()),
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(cache, template.resources)],
        volumes: Some(volumes(cache)),
        node_selector: (!template.node_selector.is_empty()).then_some(template.node_selector),
        tolerations: Some(tolerations(template.tolerations)),
        ..PodSpec::default()
    }
}

/// A cache of one pod is away until its pod is elsewhere, so that a lost node is not waited for as long as the cluster would.
fn tolerations(mut all: Vec<Toleration>) -> Vec<Toleration> {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let names_it = |toleration: &Toleration| toleration.key.as_deref() == Some(key);
        if !all.iter().any(names_it) {
            all.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(NODE_LOST),
                ..Toleration::default()
            });
        }
    }
    all
}

/// Several pods on one node would go with it. Where there is no other node, that is better than none.
fn over_nodes(cache: &Validated) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(selector(cache)), ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    }
}

fn container(cache: &Validated, resources: Option<ResourceRequirements>) -> Container {
    let args = [
        "proxy",
        "--listen",
        &format!("0.0.0.0:{HTTP_PORT}"),
        "--admin-listen",
        &format!("0.0.0.0:{ADMIN_PORT}"),
        "--cache-dir",
        CACHE_DIR,
        "--config",
        &format!("{CONFIG_DIR}/{CONFIG_FILE}"),
    ];
    let container_port = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: "proxy".to_owned(),
        image: Some(cache.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(args.map(str::to_owned).into()),
        // Of several pods the Service sends connections to one that ends, for a moment. Past a proxy of another release, too, which
        // may not know the setting.
        env: (cache.sharing.replicas > 1)
            .then(|| vec![EnvVar { name: LINGER.0.to_owned(), value: Some(LINGER.1.to_owned()), value_from: None }]),
        ports: Some(vec![container_port("http", HTTP_PORT), container_port("admin", ADMIN_PORT)]),
        resources: Some(resources.unwrap_or_else(default_resources)),
        readiness_probe: Some(probe("/readyz", 2)),
        liveness_probe: Some(probe("/livez", 10)),
        volume_mounts: Some(vec![
            mount("cache", CACHE_DIR, false),
            mount("config", CONFIG_DIR, true),
            mount("credentials", CREDENTIALS_DIR, true),
        ]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn default_resources() -> ResourceRequirements {
    let requests = [("cpu".to_owned(), Quantity("50m".to_owned())), ("memory".to_owned(), Quantity("64Mi".to_owned()))];
    ResourceRequirements { requests: Some(requests.into()), ..ResourceRequirements::default() }
}

fn probe(path: &str, period: i32) -> Probe {
    let get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::String("admin".to_owned()),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(get), period_seconds: Some(period), timeout_seconds: Some(2), ..Probe::default() }
}

/// Whole directories, never single files: the kubelet refreshes only those.
fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: read_only.then_some(true), ..VolumeMount::default() }
}

fn volumes(cache: &Validated) -> Vec<Volume> {
    let names = &cache.names;
    vec![
        Volume {
            name: "cache".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: names.proxy.clone(), read_only: None }),
            ..Volume::default()
        },
        Volume {
            name: "config".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: names.config.clone(), ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        Volume {
            name: "credentials".to_owned(),
            secret: Some(SecretVolumeSource { secret_name: Some(names.credentials.clone()), ..SecretVolumeSource::default() }),
            ..Volume::default()
        },
    ]
}
