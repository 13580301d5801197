//! Two Services: one for clients, one for the operator and monitoring.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Validated, owned, selector};
use crate::config::{ADMIN_PORT, HTTP_PORT};

pub(super) fn http(cache: &Validated) -> Service {
    service(cache, &cache.names.cache, "http", HTTP_PORT)
}

pub(super) fn admin(cache: &Validated) -> Service {
    service(cache, &cache.names.admin, "admin", ADMIN_PORT)
}

fn service(cache: &Validated, name: &str, port_name: &str, port: u16) -> Service {
    Service {
        metadata: owned(cache, name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector(cache)),
            ports: Some(vec![ServicePort {
                name: Some(port_name.to_owned()),
                port: i32::from(port),
                target_port: Some(IntOrString::String(port_name.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
