//! Who keeps whom silent, at this moment.
//!
//! For each rule the alerts that fire and match its source are kept by the values of its `equal` labels, so that a target
//! looks at those alone that could keep it silent.

use std::collections::{BTreeMap, HashMap};

use binnacle_model::Labels;

use super::config::Inhibit;

/// The rules, and the alerts that are their sources now.
#[derive(Debug, Default)]
pub(super) struct Inhibitor {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    inhibit: Inhibit,
    /// By the values of the equal labels, then by fingerprint: whether the source is a target of the rule, too.
    sources: HashMap<Vec<String>, BTreeMap<String, bool>>,
}

impl Inhibitor {
    pub(super) fn new(rules: &[Inhibit]) -> Self {
        let rule = |inhibit: &Inhibit| Rule { inhibit: inhibit.clone(), sources: HashMap::new() };
        Self { rules: rules.iter().map(rule).collect() }
    }

    /// Takes note of an alert that fires, or does not any more.
    pub(super) fn observe(&mut self, print: &str, labels: &Labels, fires: bool) {
        for rule in &mut self.rules {
            if !rule.inhibit.is_source(labels) {
                continue;
            }
            let key = rule.inhibit.key(labels);
            if fires {
                let is_target = rule.inhibit.is_target(labels);
                rule.sources.entry(key).or_default().insert(print.to_owned(), is_target);
            } else if let Some(sources) = rule.sources.get_mut(&key) {
                sources.remove(print);
                if sources.is_empty() {
                    rule.sources.remove(&key);
                }
            }
        }
    }

    /// The first alert that keeps one with these labels silent.
    pub(super) fn inhibited_by(&self, labels: &Labels) -> Option<&str> {
        self.rules.iter().find_map(|rule| {
            if !rule.inhibit.is_target(labels) {
                return None;
            }
            // One that is source and target keeps no other such alert silent, nor itself.
            let is_source = rule.inhibit.is_source(labels);
            let sources = rule.sources.get(&rule.inhibit.key(labels))?;
            let found = sources.iter().find(|(_, is_target)| !(is_source && **is_target));
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
        let critical = labels(&[("severity", "critical"), ("cluster", "a")]);
        let warning = labels(&[("severity", "warning"), ("cluster", "a")]);
        assert_eq!(inhibitor.inhibited_by(&warning), None);
        inhibitor.observe("c", &critical, true);
        assert_eq!(inhibitor.inhibited_by(&warning), Some("c"), "a label that neither has is equal");
        assert_eq!(inhibitor.inhibited_by(&labels(&[("severity", "warning"), ("cluster", "b")])), None);
        assert_eq!(inhibitor.inhibited_by(&critical), None);
        inhibitor.observe("c", &critical, false);
        assert_eq!(inhibitor.inhibited_by(&warning), None);
        // Slow is source and target: it silences Errors, but neither itself nor another Slow.
        let slow = labels(&[("alertname", "Slow"), ("i", "1")]);
        inhibitor.observe("s", &slow, true);
        assert_eq!(inhibitor.inhibited_by(&slow), None);
        assert_eq!(inhibitor.inhibited_by(&labels(&[("alertname", "Slow"), ("i", "2")])), None);
        assert_eq!(inhibitor.inhibited_by(&labels(&[("alertname", "Errors")])), Some("s"));
        inhibitor.observe("d", &labels(&[("alertname", "Down")]), true);
        assert_eq!(inhibitor.inhibited_by(&slow), Some("d"));
    }
}
