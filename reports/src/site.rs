//! Sites: the machines and programs that computed the trials, each once.

use std::collections::BTreeSet;

use crate::origin::Environment;
use crate::results::{Results, Trial};

/// One program on one machine. Threads, ranks and plugins differ from stage to stage of one sweep, and make no site of their own.
#[derive(Clone)]
pub(crate) struct Site<'a> {
    /// Names it on the page: `A`, `B`, and so on, in the order in which the trials first name them.
    pub(crate) letter: String,
    /// One of its environments.
    pub(crate) environment: &'a Environment,
    /// Threads that stages had here.
    pub(crate) threads: BTreeSet<usize>,
    /// Ranks that shared the work of stages here.
    pub(crate) ranks: BTreeSet<usize>,
    /// What earlier parts of stages that were finished here were computed by.
    pub(crate) earlier: BTreeSet<&'a str>,
    /// Plugins that took part here: name and digest.
    pub(crate) plugins: BTreeSet<(&'a str, &'a str)>,
    /// The trials with the stages of them that were computed here.
    pub(crate) trials: Vec<(&'a Trial, Vec<&'a str>)>,
}

/// The sites of all trials.
pub(crate) fn sites(results: &Results) -> Vec<Site<'_>> {
    let mut sites: Vec<Site<'_>> = Vec::new();
    for trial in &results.trials {
        for origin in &trial.origins {
            let environment = &origin.environment;
            let known = sites.iter().position(|site| site.computed(environment));
            let place = known.unwrap_or_else(|| {
                sites.push(Site {
                    letter: letter(sites.len()),
                    environment,
                    threads: BTreeSet::new(),
                    ranks: BTreeSet::new(),
                    earlier: BTreeSet::new(),
                    plugins: BTreeSet::new(),
                    trials: Vec::new(),
                });
                sites.len() - 1
            });
            sites[place].add(trial, &origin.stage, environment);
        }
    }
    sites
}

impl<'a> Site<'a> {
    /// Whether an environment is this site.
    pub(crate) fn computed(&self, environment: &Environment) -> bool {
        let site = |e: &Environment| {
            let (earlier, plugins) = Default::default();
            Environment { threads: 0, ranks: None, earlier, plugins, ..e.clone() }
        };
        site(self.environment) == site(environment)
    }

    fn add(&mut self, trial: &'a Trial, stage: &'a str, environment: &'a Environment) {
        self.threads.insert(environment.threads);
        self.ranks.extend(environment.ranks);
        self.earlier.extend(environment.earlier.iter().map(String::as_str));
        self.plugins.extend(environment.plugins.iter().map(|(name, digest)| (name.as_str(), digest.as_str())));
        match self.trials.last_mut().filter(|(last, _)| std::ptr::eq(*last, trial)) {
            Some((_, stages)) => stages.push(stage),
            None => self.trials.push((trial, vec![stage])),
        }
    }
}

/// A, B, …, Z, AA, AB, ….
fn letter(mut place: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'A' + (place % 26) as u8));
        match (place / 26).checked_sub(1) {
            Some(rest) => place = rest,
            None => break,
        }
    }
    letters.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;

    fn trial(origins: &[(&str, &str, usize)]) -> Trial {
        let origin = |&(stage, processor, threads): &(&str, &str, usize)| Origin {
            stage: stage.to_owned(),
            environment: Environment { processor: processor.to_owned(), threads, ..Environment::default() },
        };
        Trial { origins: origins.iter().map(origin).collect(), ..Trial::default() }
    }

    #[test]
    fn equal_environments_are_one_site_whatever_the_threads() {
        let results = Results {
            trials: vec![
                trial(&[("tokenizer", "x", 2), ("prior", "y", 4)]),
                trial(&[]),
                trial(&[("tokenizer", "x", 1), ("codes", "x", 2)]),
            ],
            ..Results::default()
        };
        let sites = sites(&results);
        let told: Vec<_> = sites
            .iter()
            .map(|site| {
                let stages: Vec<_> = site.trials.iter().map(|(_, stages)| stages.join(" ")).collect();
                (site.letter.as_str(), site.environment.processor.as_str(), site.threads.len(), stages)
            })
            .collect();
        let first = vec!["tokenizer".to_owned(), "tokenizer codes".to_owned()];
        assert_eq!(told, [("A", "x", 2, first), ("B", "y", 1, vec!["prior".to_owned()])]);
    }

    #[test]
    fn letters_go_on_after_z() {
        let found = [0, 25, 26, 51, 52, 701, 702].map(letter);
        assert_eq!(found, ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }
}
