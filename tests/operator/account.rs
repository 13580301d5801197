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

/// What was made of the accounts and roles in `deploy/`.
pub(crate) struct Account {
    /// As the API server's audit log spells it.
    pub(crate) user: String,
    /// Whoever holds this file is the operator; it is removed when the operator ends.
    pub(crate) kubeconfig: String,
    config: Config,
    /// The roles as shipped: the one for the caches, and the one for the operator's own namespace.
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

    let [mut role, mut binding]: [Value; 2] = shipped("base/cluster-role.yaml");
    role["metadata"]["name"] = json!(name);
    binding["metadata"]["name"] = json!(name);
    binding["roleRef"]["name"] = json!(name);
    binding["subjects"][0]["namespace"] = json!(name);
    Api::<ClusterRole>::all(admin.clone()).patch(&name, &parameters, &Patch::Apply(&role)).await.unwrap();
    Api::<ClusterRoleBinding>::all(admin.clone()).patch(&name, &parameters, &Patch::Apply(&binding)).await.unwrap();
    let made = account(admin, &name, role).await;
    super::admission::make(admin, &name, &made.user).await;
    made.comes_into_force(None).await;
    made
}

/// The account of an operator of one namespace, in which it lives as well, under the Role alone that is shipped for it.
pub(crate) async fn make_in(admin: &Client, namespace: &str) -> Account {
    let [mut role, mut binding]: [Value; 2] = shipped("overlays/namespace/role.yaml");
    role["metadata"]["namespace"] = json!(namespace);
    binding["metadata"]["namespace"] = json!(namespace);
    binding["subjects"][0]["namespace"] = json!(namespace);
    grant(admin, namespace, &role, &binding).await;
    let made = account(admin, namespace, role).await;
    made.comes_into_force(Some(namespace)).await;
    made
}

/// The shipped account in this namespace, with a lease there.
async fn account(admin: &Client, namespace: &str, role: Value) -> Account {
    let [mut account, own_role, _]: [Value; 3] = shipped("base/rbac.yaml");
    account["metadata"]["namespace"] = json!(namespace);
    let account_name = account["metadata"]["name"].as_str().unwrap().to_owned();
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), namespace);
    accounts.patch(&account_name, &PatchParams::apply("tests").force(), &Patch::Apply(&account)).await.unwrap();
    grant_the_lease_to(admin, namespace, namespace).await;
    let lifetime = TokenRequestSpec { audiences: Vec::new(), expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: lifetime, ..TokenRequest::default() };
    let token = accounts.create_token_request(&account_name, &PostParams::default(), &request).await.unwrap().status.unwrap().token;
    let kubeconfig = kubeconfig(&token);
    let path = format!("{}/operator-{namespace}.kubeconfig", env!("CARGO_TARGET_TMPDIR"));
    write_private(&path, &serde_json::to_string(&kubeconfig).unwrap());
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Account { user: format!("system:serviceaccount:{namespace}:{account_name}"), kubeconfig: path, config, roles: [role, own_role] }
}

/// The objects in a file of `deploy/`.
fn shipped<const N: usize>(file: &str) -> [Value; N] {
    let text = std::fs::read_to_string(format!("{}/deploy/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    documents.try_into().unwrap_or_else(|_| panic!("{file} holds another number of objects than {N}"))
}

/// Lets the account hold a lease in this namespace, as the shipped role lets it in the operator's.
pub(crate) async fn grant_the_lease(admin: &Client, namespace: &str) {
    grant_the_lease_to(admin, namespace, &own_name()).await;
}

async fn grant_the_lease_to(admin: &Client, namespace: &str, account_namespace: &str) {
    let [_, mut role, mut binding]: [Value; 3] = shipped("base/rbac.yaml");
    role["metadata"]["namespace"] = json!(namespace);
    binding["metadata"]["namespace"] = json!(namespace);
    binding["subjects"][0]["namespace"] = json!(account_namespace);
    grant(admin, namespace, &role, &binding).await;
}

async fn grant(admin: &Client, namespace: &str, role: &Value, binding: &Value) {
    let (name, parameters) = (role["metadata"]["name"].as_str().unwrap(), PatchParams::apply("tests").force());
    Api::<Role>::namespaced(admin.clone(), namespace).patch(name, &parameters, &Patch::Apply(role)).await.unwrap();
    Api::<RoleBinding>::namespaced(admin.clone(), namespace).patch(name, &parameters, &Patch::Apply(binding)).await.unwrap();
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
    async fn comes_into_force(&self, namespace: Option<&str>) {
        for _ in 0..100 {
            if self.may("list", "gomodcache.io", "gomodulecaches", "", namespace).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the shipped role did not come into force within 10 s");
    }

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
