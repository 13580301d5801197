//! The account that the operator runs as in these tests: the role is the one that `deploy/base` ships, under names of its own.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// What was made of `deploy/base/rbac.yaml`.
pub(crate) struct Account {
    /// As the API server's audit log spells it.
    pub(crate) user: String,
    /// Whoever holds this file is the operator; it is removed when the operator ends.
    pub(crate) kubeconfig: String,
    config: Config,
    /// The roles as shipped: the cluster's, and the one for the operator's own namespace.
    pub(crate) roles: [Value; 2],
}

/// The namespace and, for what has none, the name of everything made here.
pub(crate) fn own_name() -> String {
    format!("gomodcache-tests-{}", std::process::id())
}

/// Makes the account and waits until the API server knows what it may do.
pub(crate) async fn make(admin: &Client) -> Account {
    let name = own_name();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let parameters = PatchParams::apply("tests").force();
    Api::<Namespace>::all(admin.clone()).patch(&name, &parameters, &Patch::Apply(&namespace)).await.unwrap();

    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base/rbac.yaml")).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&shipped).unwrap();
    let [mut account, mut role, mut binding, own_role, _]: [Value; 5] =
        documents.try_into().expect("an account and two roles with bindings");
    account["metadata"]["namespace"] = json!(name);
    role["metadata"]["name"] = json!(name);
    binding["metadata"]["name"] = json!(name);
    binding["roleRef"]["name"] = json!(name);
    binding["subjects"][0]["namespace"] = json!(name);
    let account_name = account["metadata"]["name"].as_str().unwrap().to_owned();
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), &name);
    accounts.patch(&account_name, &parameters, &Patch::Apply(&account)).await.unwrap();
    Api::<ClusterRole>::all(admin.clone()).patch(&name, &parameters, &Patch::Apply(&role)).await.unwrap();
    Api::<ClusterRoleBinding>::all(admin.clone()).patch(&name, &parameters, &Patch::Apply(&binding)).await.unwrap();

    let user = format!("system:serviceaccount:{name}:{account_name}");
    super::admission::make(admin, &name, &user).await;
    let lifetime = TokenRequestSpec { audiences: Vec::new(), expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: lifetime, ..TokenRequest::default() };
    grant_the_lease(admin, &name).await;
    let token = accounts.create_token_request(&account_name, &PostParams::default(), &request).await.unwrap().status.unwrap().token;
    let kubeconfig = kubeconfig(&token);
    let path = format!("{}/operator-{}.kubeconfig", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    write_private(&path, &serde_json::to_string(&kubeconfig).unwrap());
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let made = Account { user, kubeconfig: path, config, roles: [role, own_role] };
    for _ in 0..100 {
        if made.may("list", "gomodcache.io", "gomodulecaches", "", None).await {
            return made;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the shipped role did not come into force within 10 s");
}

/// Lets the account hold a lease in this namespace, as the shipped role lets it in the operator's.
pub(crate) async fn grant_the_lease(admin: &Client, namespace: &str) {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base/rbac.yaml")).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&shipped).unwrap();
    let [_, _, _, mut role, mut binding]: [Value; 5] = documents.try_into().unwrap();
    role["metadata"]["namespace"] = json!(namespace);
    binding["metadata"]["namespace"] = json!(namespace);
    binding["subjects"][0]["namespace"] = json!(own_name());
    let (name, parameters) = (role["metadata"]["name"].as_str().unwrap(), PatchParams::apply("tests").force());
    Api::<Role>::namespaced(admin.clone(), namespace).patch(name, &parameters, &Patch::Apply(&role)).await.unwrap();
    Api::<RoleBinding>::namespaced(admin.clone(), namespace).patch(name, &parameters, &Patch::Apply(&binding)).await.unwrap();
}

/// The cluster of the tests' own kubeconfig, and the token in place of its user.
fn kubeconfig(token: &str) -> Kubeconfig {
    let mut kubeconfig = Kubeconfig::read().expect("the file that KUBECONFIG names");
    let current = kubeconfig.current_context.clone().expect("a current context");
    for context in &mut kubeconfig.contexts {
        if let Some(context) = context.context.as_mut().filter(|_| context.name == current) {
            context.user = Some("operator".to_owned());
        }
    }
    let user = json!({"name": "operator", "user": AuthInfo::default()});
    kubeconfig.auth_infos = vec![serde_json::from_value(user).unwrap()];
    let info = kubeconfig.auth_infos[0].auth_info.get_or_insert_default();
    info.token = Some(token.to_owned().into());
    kubeconfig
}

fn write_private(path: &str, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

impl Account {
    /// A client of the same power for the test itself; new each time, since a client ends with the test that made it.
    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }

    /// How its clients are made.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    /// The API server's own answer to whether the operator may do this, in a namespace or in all.
    pub(crate) async fn may(&self, verb: &str, group: &str, resource: &str, name: &str, namespace: Option<&str>) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attributes = ResourceAttributes {
            verb: text(verb),
            group: text(group),
            resource: text(resource),
            subresource: text(subresource),
            name: text(name),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client());
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }
}
