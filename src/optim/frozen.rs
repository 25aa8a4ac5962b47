//! Which parameters stay as they are.

use crate::{
    error::{Error, Result},
    graph::Parameters,
};

/// Names of the parameters that patterns name. A pattern is a name, the front of one up to a dot (`map_encoder`), or has `*` for
/// any characters (`*.norm1.*`).
///
/// # Errors
/// [`Error::Config`] for a pattern that names none, and if nothing would be left to train.
pub fn frozen(parameters: &Parameters, patterns: &[String]) -> Result<Vec<String>> {
    let named = |pattern: &str, name: &str| matches(pattern, name) || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
    let trained = || parameters.iter().filter(|p| !p.statistic);
    if let Some(pattern) = patterns.iter().find(|pattern| !trained().any(|p| named(pattern, &p.name))) {
        return Err(Error::config("freeze", format!("'{pattern}' names no parameter of this model")));
    }
    let names: Vec<String> = trained().filter(|p| patterns.iter().any(|pattern| named(pattern, &p.name))).map(|p| p.name.clone()).collect();
    if names.len() == trained().count() {
        return Err(Error::config("freeze", "names every parameter: nothing is left to train"));
    }
    Ok(names)
}

/// Does a name fit a pattern, in which `*` stands for any characters?
fn matches(pattern: &str, name: &str) -> bool {
    let (first, rest) = match pattern.split_once('*') {
        None => return pattern == name,
        Some(parts) => parts,
    };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // The earliest place of each part leaves the most for those behind it.
    for part in parts {
        let Some(place) = name.find(part) else { return false };
        name = &name[place + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        let yes =
            [("a", "a"), ("*", "a.b"), ("a*", "a"), ("a.*", "a.b.c"), ("*.c", "a.b.c"), ("a*b*c", "aXbYbZc"), ("*b*", "abc"), ("**", "")];
        let no = [("a", "ab"), ("a.*", "a"), ("*.c", "a.b.c.d"), ("a*b", "b"), ("a*a", "a"), ("ab*bc", "abc"), ("*x*", "abc")];
        yes.iter().for_each(|(pattern, name)| assert!(matches(pattern, name), "{pattern} {name}"));
        no.iter().for_each(|(pattern, name)| assert!(!matches(pattern, name), "{pattern} {name}"));
    }

    #[test]
    fn names_fronts_and_faults() {
        let mut parameters = Parameters::default();
        for name in ["a.1.weight", "a.10.weight", "b.weight"] {
            parameters.push(name.into(), &[2], false);
        }
        parameters.push("c.running_mean".into(), &[2], true);
        let names = |patterns: &[&str]| frozen(&parameters, &patterns.iter().map(|p| p.to_string()).collect::<Vec<_>>());
        assert_eq!(names(&[]).unwrap(), Vec::<String>::new());
        assert_eq!(names(&["a.1"]).unwrap(), ["a.1.weight"], "not a.10");
        assert_eq!(names(&["a", "b.weight"]).unwrap_err().to_string().matches("nothing is left").count(), 1);
        assert_eq!(names(&["b*", "a.10.*"]).unwrap(), ["a.10.weight", "b.weight"]);
        assert!(names(&["a", "d"]).unwrap_err().to_string().contains("'d' names no parameter"));
        assert!(names(&["c"]).unwrap_err().to_string().contains("'c' names no parameter"), "a statistic is none");
    }
}
