//! Samples of an app's own, and what may be taken of them: each name costs at every sink.

use std::collections::{BTreeSet, HashMap};

use flipside_api::{AppName, Code, Failure, Metric};

/// The most names that an app may use.
const MOST_NAMES: usize = 20;

/// The longest unit.
const LONGEST_UNIT: usize = 32;

/// The names that each app has used since the agent was started.
#[derive(Debug, Default)]
pub struct Names(HashMap<AppName, BTreeSet<String>>);

impl Names {
    /// Takes a sample.
    ///
    /// # Errors
    /// When it is none, or brings one name too many.
    pub fn take(&mut self, sample: &Metric) -> Result<(), Failure> {
        check(sample)?;
        let Metric { app, name, .. } = sample;
        let names = self.0.entry(app.clone()).or_default();
        if !names.contains(name) && names.len() >= MOST_NAMES {
            return Err(Failure::new(Code::Gate, format!("{app} has {MOST_NAMES} names of samples already"))
                .hint(format!("use one of: {}", names.iter().cloned().collect::<Vec<_>>().join(", "))));
        }
        names.insert(name.clone());
        Ok(())
    }
}

fn check(sample: &Metric) -> Result<(), Failure> {
    let usage = |text: &str| Err(Failure::new(Code::Usage, text));
    let Metric { name, value, unit, .. } = sample;
    if name.parse::<AppName>().is_err() {
        return usage("`name` must be like an app's: lower-case letters, digits and hyphens");
    }
    if !value.is_finite() {
        return usage("metric needs a finite number as `value`");
    }
    let is_unit = |unit: &str| unit.len() <= LONGEST_UNIT && unit.chars().all(|c| c.is_ascii_graphic());
    if !unit.as_deref().is_none_or(is_unit) {
        return usage("`unit` must be a short word, such as Count or Bytes/Second");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(app: &str, name: &str, value: f64) -> Metric {
        Metric { app: app.parse().unwrap(), name: name.into(), value, unit: None }
    }

    #[test]
    fn what_is_no_number_or_no_name_is_refused() {
        let mut names = Names::default();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(names.take(&sample("blog", "orders", value)).unwrap_err().code, Code::Usage);
        }
        for name in ["", "a/b", "A", "a b", &"a".repeat(200)] {
            assert_eq!(names.take(&sample("blog", name, 1.0)).unwrap_err().code, Code::Usage, "{name:?}");
        }
        for unit in ["per\nline", &"x".repeat(33)] {
            let odd = Metric { unit: Some(unit.to_owned()), ..sample("blog", "orders", 1.0) };
            assert_eq!(names.take(&odd).unwrap_err().code, Code::Usage);
        }
    }

    #[test]
    fn an_app_has_twenty_names() {
        let mut names = Names::default();
        for number in (0..20).chain(0..20) {
            names.take(&sample("blog", &format!("n{number}"), 1.0)).unwrap();
        }
        let refused = names.take(&sample("blog", "another", 1.0)).unwrap_err();
        assert!(refused.message.contains("20 names") && refused.hint.contains("n19"), "{refused:?}");
        names.take(&sample("shop", "another", 1.0)).unwrap();
    }
}
