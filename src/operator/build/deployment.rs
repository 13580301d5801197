//! The pods. Nothing here depends on upstreams, pins or credentials: those reach a running pod by its mounts.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, PersistentVolumeClaimVolumeSource, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Validated, labels, owned, selector};
use crate::api::AccessMode;
use crate::config::{ADMIN_PORT, CACHE_DIR, CONFIG_DIR, CONFIG_FILE, CREDENTIALS_DIR, HTTP_PORT};

/// The user that the proxy runs as; the one that distroless images call nonroot.
const USER: i64 = 65532;

pub(super) fn build(cache: &Validated) -> Deployment {
    let spec = &cache.cache.spec;
    // Two pods of a roll can't both mount a volume of one node.
    let strategy = match spec.storage.access_mode {
        AccessMode::ReadWriteOnce => "Recreate",
        AccessMode::ReadWriteMany => "RollingUpdate",
    };
    Deployment {
        metadata: owned(cache, &cache.names.proxy),
        spec: Some(DeploymentSpec {
            replicas: Some(spec.replicas),
            selector: LabelSelector { match_labels: Some(selector(cache)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy { type_: Some(strategy.to_owned()), ..DeploymentStrategy::default() }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels(cache)), ..ObjectMeta::default() }),
                spec: Some(pod(cache)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod(cache: &Validated) -> PodSpec {
    let template = cache.cache.spec.pod_template.clone().unwrap_or_default();
    PodSpec {
        service_account_name: Some(cache.names.proxy.clone()),
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
        tolerations: (!template.tolerations.is_empty()).then_some(template.tolerations),
        ..PodSpec::default()
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
