//! Who keeps whom silent, at this moment.
//!
//! For each rule the alerts that fire and match its source are kept by the values of its `equal` labels, so that a target
//! looks at those alone that could keep it silent.

use std::collections::{BTreeMap, HashMap};

use binnacle_model::{Labels, Timestamp};

use super::SentAlert;
use super::config::Inhibit;

/// The rules, and the alerts that are their sources now.
#[derive(Debug, Default)]
pub(super) struct Inhibitor {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    inhibit: Inhibit,
    /// By the values of the equal labels, then by fingerprint.
    sources: HashMap<Vec<String>, BTreeMap<String, Source>>,
}

#[derive(Debug)]
struct Source {
    ends_at: Option<Timestamp>,
    /// Whether it is a target of the rule, too.
    is_target: bool,
}

impl Inhibitor {
    pub(super) fn new(rules: &[Inhibit]) -> Self {
        let rule = |inhibit: &Inhibit| Rule { inhibit: inhibit.clone(), sources: HashMap::new() };
        Self { rules: rules.iter().map(rule).collect() }
    }

    /// Takes note of an alert that fires until its end, or does not any more.
    pub(super) fn observe(&mut self, print: &str, alert: &SentAlert, now: Timestamp) {
        let (labels, fires) = (&alert.labels, !alert.is_resolved(now));
        for rule in &mut self.rules {
            if !rule.inhibit.is_source(labels) {
                continue;
            }
            let key = rule.inhibit.key(labels);
            if fires {
                let is_target = rule.inhibit.is_target(labels);
                let source = Source { ends_at: alert.ends_at, is_target };
                rule.sources.entry(key).or_default().insert(print.to_owned(), source);
            } else if let Some(sources) = rule.sources.get_mut(&key) {
                sources.remove(print);
                if sources.is_empty() {
                    rule.sources.remove(&key);
                }
            }
        }
    }

    /// The first alert that keeps one with these labels silent.
    pub(super) fn inhibited_by(&self, labels: &Labels, now: Timestamp) -> Option<&str> {
        self.rules.iter().find_map(|rule| {
            if !rule.inhibit.is_target(labels) {
                return None;
            }
            // One that is source and target keeps no other such alert silent, nor itself.
            let is_source = rule.inhibit.is_source(labels);
            let sources = rule.sources.get(&rule.inhibit.key(labels))?;
            let fires = |source: &Source| source.ends_at.is_none_or(|end| end > now);
            let found = sources.iter().find(|(_, one)| fires(one) && !(is_source && one.is_target));
            found.map(|(print, _)| print.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_alertmanager;
    use super::*;

    #[test]
    fn consequences_are_silent_while_their_cause_fires() {
        let config = "
route: {receiver: r}
receivers: [{name: r}]
inhibit_rules:
- {source_matchers: [severity=critical], target_match: {severity: warning}, equal: [cluster, zone]}
- {source_matchers: ['alertname=~\"Down|Slow\"'], target_matchers: ['alertname=~\"Slow|Errors\"']}
";
        let config = parse_alertmanager("a.yml", config).unwrap();
        let mut inhibitor = Inhibitor::new(&config.inhibit);
        let labels = |pairs: &[(&str, &str)]| Labels::new(pairs.iter().copied()).unwrap();
        let now = Timestamp(100);
        let sent = |labels: &Labels, ends: Option<i64>| SentAlert {
            labels: labels.clone(),
            annotations: Labels::default(),
            starts_at: Timestamp(0),
            ends_at: ends.map(Timestamp),
            generator_url: String::new(),
        };
        let critical = labels(&[("severity", "critical"), ("cluster", "a")]);
        let warning = labels(&[("severity", "warning"), ("cluster", "a")]);
        assert_eq!(inhibitor.inhibited_by(&warning, now), None);
        inhibitor.observe("c", &sent(&critical, Some(150)), now);
        assert_eq!(inhibitor.inhibited_by(&warning, now), Some("c"), "a label that neither has is equal");
        assert_eq!(inhibitor.inhibited_by(&labels(&[("severity", "warning"), ("cluster", "b")]), now), None);
        assert_eq!(inhibitor.inhibited_by(&critical, now), None);
        assert_eq!(inhibitor.inhibited_by(&warning, Timestamp(150)), None, "its end has come");
        inhibitor.observe("c", &sent(&critical, Some(100)), now);
        assert_eq!(inhibitor.inhibited_by(&warning, now), None);
        // Slow is source and target: it silences Errors, but neither itself nor another Slow.
        let slow = labels(&[("alertname", "Slow"), ("i", "1")]);
        inhibitor.observe("s", &sent(&slow, None), now);
        assert_eq!(inhibitor.inhibited_by(&slow, now), None);
        assert_eq!(inhibitor.inhibited_by(&labels(&[("alertname", "Slow"), ("i", "2")]), now), None);
        assert_eq!(inhibitor.inhibited_by(&labels(&[("alertname", "Errors")]), now), Some("s"));
        inhibitor.observe("d", &sent(&labels(&[("alertname", "Down")]), None), now);
        assert_eq!(inhibitor.inhibited_by(&slow, now), Some("d"));
    }
}
