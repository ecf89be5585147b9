//! Secrets and ConfigMaps that monitors name: only what they name, and only in their own namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use tokio::time::timeout;

use binnacle_outgoing::Secret;

/// Objects that are read at most; each monitor that names one more is refused.
pub(super) const OBJECTS_MAX: usize = 2_000;

/// Bytes of one value at most: bundles of authorities are smaller.
const VALUE_MAX_BYTES: usize = 512 * 1024;

/// For one object, and for all that are read in one go; what is left is read the next time.
const ONE_TIMEOUT: Duration = Duration::from_secs(10);
const ALL_TIMEOUT: Duration = Duration::from_secs(30);

const AT_ONCE: usize = 8;

/// What holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Secret,
    ConfigMap,
}

impl Holder {
    fn shown(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// A value that a monitor names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AssetRef {
    pub(super) holder: Holder,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) key: String,
}

/// An object: what holds it, its namespace and its name.
type Object = (Holder, String, String);

/// What is known of the values that are named.
#[derive(Debug, Default)]
pub(super) struct Assets(BTreeMap<AssetRef, Result<Secret, String>>);

impl Assets {
    /// `None` if nobody has asked yet; else the value, or why there is none.
    pub(super) fn get(&self, asked: &AssetRef) -> Option<Result<&str, &str>> {
        let known = self.0.get(asked)?;
        Some(known.as_ref().map(Secret::reveal).map_err(String::as_str))
    }

    /// Objects of which something is known.
    pub(super) fn objects(&self) -> usize {
        let names = self.0.keys().map(|one| (one.holder, &one.namespace, &one.name));
        names.collect::<BTreeSet<_>>().len()
    }

    /// Keeps what is still named.
    pub(super) fn retain(&mut self, asked: &BTreeSet<AssetRef>) {
        self.0.retain(|one, _| asked.contains(one));
    }

    /// Notes what there is; answers whether that is news.
    pub(super) fn put(&mut self, asked: AssetRef, value: Result<Secret, String>) -> bool {
        if self.0.get(&asked) == Some(&value) {
            return false;
        }
        self.0.insert(asked, value);
        true
    }

    /// Asks the API for these values. Answers those that are others than before. What cannot be asked keeps its last value.
    pub(super) async fn read(&mut self, client: &Client, asked: &BTreeSet<AssetRef>) -> BTreeSet<AssetRef> {
        let mut by_object: BTreeMap<Object, Vec<&AssetRef>> = BTreeMap::new();
        for one in asked {
            let object = (one.holder, one.namespace.clone(), one.name.clone());
            by_object.entry(object).or_default().push(one);
        }
        let ask = |(object, keys): (Object, Vec<&AssetRef>)| {
            let keys: Vec<AssetRef> = keys.into_iter().cloned().collect();
            let client = client.clone();
            async move {
                let found = timeout(ONE_TIMEOUT, values(&client, &object)).await;
                let found = found.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
                (object, keys, found)
            }
        };
        let mut changed = BTreeSet::new();
        let mut answers =
            std::pin::pin!(futures_util::stream::iter(by_object).map(ask).buffer_unordered(AT_ONCE));
        let all = async {
            while let Some((object, keys, found)) = answers.next().await {
                for key in keys {
                    let value = value_of(&object, &key.key, &found);
                    let is_away = matches!(found, Err(Failure::Away(_)));
                    // What was never known stays so: whoever names it waits.
                    if is_away {
                        continue;
                    }
                    if self.put(key.clone(), value) {
                        changed.insert(key);
                    }
                }
            }
        };
        if timeout(ALL_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                "not all Secrets that monitors name could be read in time; the others are tried again"
            );
        }
        changed
    }
}

/// Why an object is not known.
enum Failure {
    /// It is not there, or may not be read.
    Refused(String),
    /// The API does not answer.
    Away(String),
}

fn value_of(
    (holder, namespace, name): &Object,
    key: &str,
    found: &Result<BTreeMap<String, Vec<u8>>, Failure>,
) -> Result<Secret, String> {
    let place = format!("{} {namespace}/{name}", holder.shown());
    match found {
        Err(Failure::Refused(reason) | Failure::Away(reason)) => Err(format!("{place}: {reason}")),
        Ok(values) => match values.get(key) {
            None => Err(format!("{place} has no key {key:?}")),
            Some(bytes) if bytes.len() > VALUE_MAX_BYTES => {
                Err(format!("{place}: {key:?} has more than {VALUE_MAX_BYTES} bytes"))
            }
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Secret::from(text.to_owned())),
                Err(_) => Err(format!("{place}: {key:?} is no text")),
            },
        },
    }
}

async fn values(
    client: &Client,
    (holder, namespace, name): &Object,
) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let found = match holder {
        Holder::Secret => {
            let api: Api<core::Secret> = Api::namespaced(client.clone(), namespace);
            let found = api.get(name).await;
            found.map(|secret| secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect())
        }
        Holder::ConfigMap => {
            let api: Api<core::ConfigMap> = Api::namespaced(client.clone(), namespace);
            let found = api.get(name).await;
            found.map(|map| {
                let texts = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
                let bytes = map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
                texts.chain(bytes).collect()
            })
        }
    };
    found.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => {
            Failure::Refused("it is not there; monitors read only their own namespace".to_owned())
        }
        // 401 is a token that has just run out, or a server that cannot check it now.
        kube::Error::Api(status) if status.code == 403 => Failure::Refused(format!(
            "it may not be read; the service account needs `get` on {}s there",
            holder.shown().to_lowercase()
        )),
        kube::Error::Api(status) => Failure::Away(format!("the API answers {}", status.code)),
        _ => Failure::Away("the API does not answer".to_owned()),
    })
}
