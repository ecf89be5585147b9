//! `kubernetes.monitors`: which of them are read, and what they may do.

use std::collections::BTreeSet;
use std::fmt;

use binnacle_model::yaml::null_is_default;
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::Kind;

/// Namespaces that are watched one by one; each is a watch per kind.
const NAMESPACES_MAX: usize = 100;

/// Where a pod's service account says in which namespace it is.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Where those who run a cluster have their monitors.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", "monitoring"];

/// `monitors` as the operator wrote it: `true`, `false`, or what differs.
#[derive(Debug)]
pub struct RawMonitors(Option<RawOptions>);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawOptions {
    #[serde(deserialize_with = "null_is_default")]
    namespaces: Vec<String>,
    selector: Option<String>,
    kinds: Option<Vec<String>>,
    file_access: Option<Vec<String>>,
    modules: Option<Vec<String>>,
    loopback: bool,
}

/// Which monitors are read, and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorOptions {
    /// None is all.
    pub(super) namespaces: Vec<String>,
    /// Labels of monitors, as the API takes them.
    pub(super) selector: Option<String>,
    pub(super) kinds: Vec<Kind>,
    pub(super) files: FileAccess,
    /// Modules by which Probes may have us probe; `None` is all that send nothing of ours.
    pub(super) modules: Option<BTreeSet<String>>,
    /// Whether targets may be on the agent's own machine.
    pub(super) loopback: bool,
}

/// Whose monitors may name files of this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileAccess {
    /// Any file.
    pub(super) any: BTreeSet<String>,
    /// Files of the agent's own service account.
    pub(super) account: BTreeSet<String>,
}

impl<'de> Deserialize<'de> for RawMonitors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OnOrOptions;

        impl<'de> Visitor<'de> for OnOrOptions {
            type Value = RawMonitors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or keys of kubernetes.monitors")
            }

            fn visit_bool<E: Error>(self, is_on: bool) -> Result<RawMonitors, E> {
                Ok(RawMonitors(is_on.then(RawOptions::default)))
            }

            fn visit_unit<E: Error>(self) -> Result<RawMonitors, E> {
                Ok(RawMonitors(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawMonitors, A::Error> {
                RawOptions::deserialize(MapAccessDeserializer::new(map)).map(|raw| RawMonitors(Some(raw)))
            }
        }

        from.deserialize_any(OnOrOptions)
    }
}

impl RawMonitors {
    /// `None` if they are switched off.
    ///
    /// # Errors
    /// A sentence that names the key below `kubernetes.monitors` and what to write.
    pub fn check(self) -> Result<Option<MonitorOptions>, String> {
        self.check_in(std::fs::read_to_string(OWN_NAMESPACE).ok())
    }

    fn check_in(self, own_namespace: Option<String>) -> Result<Option<MonitorOptions>, String> {
        let Some(raw) = self.0 else { return Ok(None) };
        let RawOptions { namespaces, selector, kinds, file_access, modules, loopback } = raw;
        check_names("namespaces", &namespaces)?;
        check_names("file_access", file_access.as_deref().unwrap_or_default())?;
        if namespaces.len() > NAMESPACES_MAX {
            return Err(format!(
                "kubernetes.monitors.namespaces: more than {NAMESPACES_MAX}; leave them out to watch all"
            ));
        }
        let of_line = |text: &String| text.is_empty() || text.chars().any(char::is_control);
        if selector.as_ref().is_some_and(of_line) {
            return Err("kubernetes.monitors.selector: write labels such as `team=a,tier!=dev`".to_owned());
        }
        let named = kinds.unwrap_or_else(|| Kind::ALL.map(|kind| kind.name().to_owned()).to_vec());
        let mut kinds = Vec::new();
        for (at, name) in named.iter().enumerate() {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = known.ok_or_else(|| {
                format!("kubernetes.monitors.kinds[{at}]: {name:?} is none of service, pod and probe")
            })?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let files = if let Some(any) = file_access {
            FileAccess { any: any.into_iter().collect(), account: BTreeSet::new() }
        } else {
            let own = own_namespace.map(|text| text.trim().to_owned());
            let account = SYSTEM_NAMESPACES.map(str::to_owned).into_iter().chain(own).collect();
            FileAccess { any: BTreeSet::new(), account }
        };
        let namespaces = namespaces.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let modules = modules.map(|names| names.into_iter().collect());
        Ok(Some(MonitorOptions { namespaces, selector, kinds, files, modules, loopback }))
    }
}

fn check_names(key: &str, names: &[String]) -> Result<(), String> {
    let is_name = |name: &String| {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !name.is_empty() && name.len() <= 63 && name.bytes().all(is_allowed)
    };
    match names.iter().position(|name| !is_name(name)) {
        None => Ok(()),
        Some(at) => {
            Err(format!("kubernetes.monitors.{key}[{at}]: {:?} is no name of a namespace", names[at]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Option<MonitorOptions>, String> {
        let raw: RawMonitors = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        raw.check_in(Some("agents\n".to_owned()))
    }

    #[test]
    fn they_are_on_off_or_some() {
        assert_eq!(check("false").unwrap(), None);
        let all = check("true").unwrap().unwrap();
        assert_eq!((all.kinds.len(), all.namespaces.len(), &all.modules), (3, 0, &None));
        let may = |options: &MonitorOptions| {
            let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
            (names(&options.files.account), names(&options.files.any))
        };
        assert_eq!(may(&all), ("agents kube-system monitoring".to_owned(), String::new()));
        let some =
            "{namespaces: [b, a, b], selector: 'team=a', kinds: [pod], file_access: [x], modules: [m]}";
        let some = check(some).unwrap().unwrap();
        assert_eq!((some.namespaces.join(" "), some.kinds.as_slice()), ("a b".to_owned(), &[Kind::Pod][..]));
        assert_eq!(may(&some), (String::new(), "x".to_owned()));
    }

    #[test]
    fn errors_name_the_place() {
        for (yaml, want) in [
            ("{kinds: [service, ingress]}", "kubernetes.monitors.kinds[1]: \"ingress\" is none of"),
            ("{namespaces: [a, B]}", "kubernetes.monitors.namespaces[1]: \"B\" is no name"),
            ("{file_access: ['a/b']}", "kubernetes.monitors.file_access[0]"),
            ("{selector: ''}", "kubernetes.monitors.selector: write labels"),
            ("{selectors: a}", "selectors"),
            ("12", "true, false, or keys"),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want), "{yaml}: {error}");
        }
    }
}
